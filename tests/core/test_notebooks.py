"""What notebooks show of objects: text that cannot change the page, and a picture where one can be drawn."""

import base64
import io
import re

import pytest
from matplotlib import pyplot
from PIL import Image

from toumei.core import notebooks
from toumei.core.notebooks import Displayed, escaped


@pytest.fixture(autouse=True)
def no_figures():
    pyplot.close("all")


class Line(Displayed):
    def __repr__(self):
        return "<Line>"

    def plot(self, ax=None):
        ax = pyplot.figure(figsize=(2, 1)).add_subplot() if ax is None else ax
        ax.plot([1, 2])
        return ax


def picture_in(page):
    """The picture of a page, None where it has none."""
    found = re.search(r'src="data:image/png;base64,([^"]*)"', page)
    return Image.open(io.BytesIO(base64.b64decode(found[1]))) if found else None


def test_the_figure_of_plot_stands_below_the_text_and_is_closed():
    first = pyplot.figure()
    page = Line()._repr_html_()
    assert "&lt;Line&gt;</pre><img" in page and picture_in(page).size == (180, 90)
    assert pyplot.get_fignums() == [first.number], "only the user's figures stay open"
    pyplot.close(first)


@pytest.mark.parametrize("limit", ["_MOST_PICTURE", "_MOST_ARTISTS", "_MOST_INCHES"])
def test_a_picture_that_is_too_large_is_left_out(limit, monkeypatch):
    monkeypatch.setattr(notebooks, limit, 1)
    page = Line()._repr_html_()
    assert picture_in(page) is None and "&lt;Line&gt;" in page and not pyplot.get_fignums()


def test_a_plot_that_fails_or_needs_arguments_leaves_the_text():
    class Broken(Line):
        def plot(self, ax=None):
            super().plot()
            raise ValueError

    class Asking(Line):
        def plot(self, unit):
            raise AssertionError

    for shown in (Broken(), Asking()):
        assert picture_in(shown._repr_html_()) is None and not pyplot.get_fignums()


def test_long_texts_are_cut_and_text_does_not_turn_what_follows_it(monkeypatch):
    monkeypatch.setattr(notebooks, "_MOST_TEXT", 3)
    assert "&lt;Li ...</pre>" in Line()._repr_html_()
    assert escaped("a\u202eb<") == "a\ufffdb&lt;"
