"""Pages need no other file, show text as it is, and let no text change the page."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from toumei import plots
from toumei.attribution import Attribution
from toumei.cnns import Visualization
from toumei.core.errors import ArgumentError


class Parsed(HTMLParser):
    """The tags, the addresses and the text of a page; every tag that is opened is closed."""

    alone = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.addresses, self.text = [], [], [], {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.alone:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data


NASTY = "</script><b>&\"' \u202egnp.exe <!--heading-->"


def test_a_page_has_its_title_summary_body_style_script_and_data():
    given = {
        "summary": "a line",
        "style": "p { margin: 0; }",
        "script": "go(data);",
        "data": {"a": [1, None]},
    }
    text = plots.page("Title", "<p>body</p>", **given)
    page = Parsed(text)
    assert text.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in text
    assert (page.text["title"], page.text["h1"], page.text["p"]) == ("Title", "Title", "body")
    assert text.index("<h1>") < text.index("a line") < text.index("<p>body")
    assert "p { margin: 0; }" in page.text["style"] and "prefers-color-scheme: dark" in page.text["style"]
    assert page.text["script"].strip().splitlines() == ['const data = {"a": [1, null]};', "go(data);"]
    assert not page.addresses and not re.search(r"https?:|@import|//", text)


def test_a_page_without_a_script_has_none_and_the_heading_goes_where_the_body_says():
    text = plots.page("Title", "<p>first</p><!--heading--><p>then</p>")
    assert "script" not in Parsed(text).tags
    assert text.index("first") < text.index("<h1>") < text.index("then") and text.count("<h1>") == 1


def test_no_text_changes_the_page():
    text = plots.page(NASTY, f"<p>{plots.escaped(NASTY)}</p>", summary=NASTY, script="go();", data=[NASTY])
    page = Parsed(text)
    assert page.tags == ["html", "head", "meta", "meta", "title", "style", "body", "h1", "div", "p", "script"]
    shown = NASTY.replace("\u202e", "\ufffd")
    assert page.text["title"] == page.text["h1"] == page.text["p"] == shown
    data = page.text["script"].splitlines()[1].removeprefix("const data = ").removesuffix(";")
    assert json.loads(data) == [shown]
    assert "\u202e" not in text and text.count("<h1>") == 1


@pytest.mark.parametrize("code", [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
def test_characters_that_turn_the_text_are_replaced(code):
    assert plots.escaped(f"a{chr(code)}b") == "a\ufffdb"
    assert json.loads(plots.script_data(f"a{chr(code)}b")) == "a\ufffdb"
    assert json.loads(plots.script_data(f"\\u{code:04x}\\\\u{code:04x}")) == f"\\u{code:04x}\\\\u{code:04x}"


@pytest.mark.parametrize("data", [None, 3, 0.5, "ä\u2028\n", ["<!--", "]]>"], {"a": {"b": [True]}}])
def test_data_of_a_script_is_the_data(data):
    text = plots.script_data(data)
    assert json.loads(text) == data and "<" not in text and text.isascii()


@pytest.mark.parametrize("data", [torch.ones(2), {"a": [object()]}, {(1, 2): 3}, {1j: 2}])
def test_data_that_json_cannot_hold_are_refused(data):
    for call in (plots.script_data, lambda data: plots.page("a", "b", script="data", data=data)):
        with pytest.raises(ArgumentError, match="what JSON can hold, got"):
            call(data)


def test_data_that_hold_themselves_are_refused():
    data = []
    data.append(data)
    with pytest.raises(ArgumentError, match="what JSON can hold, got"):
        plots.script_data(data)


def test_pictures_are_in_the_page_pixel_by_pixel():
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    (address,) = Parsed(plots.picture(image, "width:10px")).addresses
    shown = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert shown.size == (7, 5)
    expected = (image * 255).round().byte().permute(1, 2, 0)
    assert torch.equal(
        torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).view(5, 7, 3), expected
    )


def test_a_page_is_written_whole_in_utf_8_with_its_folder(tmp_path):
    path = tmp_path / "new" / "x.html"
    plots.save_page(plots.page("ä 透明 \ud83d", "<p></p>"), path)
    assert "ä 透明 &#55357;" in path.read_bytes().decode("utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_results_in_a_notebook_let_no_text_change_the_page():
    result = Attribution(
        torch.tensor([[1.0, -1.0]]), torch.zeros(1), tokens=((NASTY, "b"),), names=(NASTY,), method=NASTY
    )
    visualization = Visualization(torch.rand(1, 3, 8, 8), torch.zeros(2, 1), (NASTY,))
    for given in (result, visualization):
        text = given._repr_html_()
        assert not {"script", "b"} & set(Parsed(text).tags) and "\u202e" not in text
