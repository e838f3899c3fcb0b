"""What attributions hold, how they are kept and drawn."""

import base64
import io
import re
from dataclasses import replace
from html import unescape

import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from toumei.attribution import Attribution
from toumei.attribution.plots import heat_map
from toumei.core.errors import ArgumentError, ShapeError
from toumei.plots.tokens import shade


def rows(several=False, **options):
    torch.manual_seed(0)
    lead = (2,) if several else ()
    return Attribution(
        torch.randn(*lead, 3, 4), torch.randn(*lead, 3), method="Some", several=several, **options
    )


def test_sums_and_gaps():
    values = (torch.ones(2, 3, 2), torch.full((2, 3, 1, 4), 2.0))
    result = Attribution(values, torch.full((2, 3), 11.0), torch.ones(2, 3), several=True, complete=True)
    assert torch.equal(result.sums, torch.full((2, 3), 10.0, dtype=torch.float64))
    assert torch.equal(result.gap, torch.zeros(2, 3, dtype=torch.float64))
    assert Attribution(values, result.output, result.baseline_output, several=True).gap is None
    assert Attribution(values, result.output, several=True, complete=True).gap is None


@pytest.mark.parametrize("structure", ["tensor", "tuple", "dict"])
@pytest.mark.parametrize("several", [False, True])
def test_saving_and_loading(tmp_path, structure, several):
    lead = (2,) if several else ()
    first, second = torch.randn(*lead, 3, 4), torch.randn(*lead, 3, 1, 2)
    values = {"tensor": first, "tuple": (first, second), "dict": {"b": first, "a": second}}[structure]
    result = Attribution(
        values,
        torch.randn(*lead, 3),
        torch.randn(*lead, 3),
        standard_error=values,
        r_squared=torch.rand(*lead, 3),
        method="Some",
        seed=3,
        several=several,
        complete=True,
        tokens=(("a", "b"),),
        names=("one", "two") if several else None,
    )
    result.save(tmp_path / "deep" / "kept.safetensors")
    loaded = Attribution.load(tmp_path / "deep" / "kept.safetensors")
    assert type(loaded.values) is type(values) and repr(loaded) == repr(result)
    for found, other in ((loaded.values, values), (loaded.standard_error, values)):
        if structure == "dict":
            assert list(found) == ["b", "a"]
            found, other = tuple(found.values()), tuple(other.values())
        for part, expected in zip(found, other, strict=True):
            assert torch.equal(part, expected)
    for name in ("output", "baseline_output", "r_squared"):
        assert torch.equal(getattr(loaded, name), getattr(result, name))
    for name in ("method", "seed", "several", "complete", "tokens", "names"):
        assert getattr(loaded, name) == getattr(result, name)
    assert loaded.features is None and loaded.interactions is None


def test_another_file_is_no_attribution(tmp_path):
    from safetensors.torch import save_file

    save_file({"values": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ArgumentError, match="no saved Attribution"):
        Attribution.load(tmp_path / "other.safetensors")


def test_one_of_several_targets():
    result = rows(several=True, names=("one", "two"))
    assert torch.equal(result[1].values, result.values[1]) and result[1].names == ("two",)
    assert not result[1].several
    assert torch.equal(result["two"].values, result.values[1]) and len(result[1]) == 3
    with pytest.raises(ArgumentError, match="did you mean two"):
        result["twos"]


def test_heat_maps_are_relative_to_the_99th_percentile():
    values = torch.arange(200.0).reshape(1, 1, 10, 20) - 20
    heat = heat_map(values)
    assert heat.max() == 1 and torch.isclose(heat[0, 4, 19], torch.tensor((99.0 - 20) / (197.0 - 20)))
    few = torch.zeros(1, 3, 10, 20)
    few[0, :, 3, 4] = -2.0
    assert heat_map(few)[0, 3, 4] == -1 and heat_map(few).count_nonzero() == 1
    assert heat_map(torch.zeros(1, 1, 2, 2)).abs().max() == 0


def test_heat_maps_leave_out_what_all_places_have_in_common():
    values = torch.tensor(
        [[[[9.0, 9.5, 10.0]]], [[[-9.0, -9.5, -10.0]]], [[[3.0, 3.0, 3.0]]], [[[1.0, 5.0, 9.0]]]]
    )
    expected = torch.tensor(
        [[[0.0, 0.5, 1.0]], [[0.0, -0.5, -1.0]], [[1.0, 1.0, 1.0]], [[1 / 9, 5 / 9, 1.0]]]
    )
    torch.testing.assert_close(heat_map(values), expected)


@pytest.mark.parametrize("several", [False, True])
def test_maps_are_laid_over_pictures(several):
    shape = (2, 3, 1, 5, 7) if several else (3, 1, 5, 7)
    result = Attribution(torch.randn(shape), torch.zeros(shape[:-3]), method="Some", several=several)
    ax = result.plot()
    assert len(ax.images) == 3 and ax.get_title() == "Some"
    given = pyplot.figure().add_subplot()
    assert result.plot(torch.rand(3, 3, 20, 28), ax=given) is given and len(given.images) == 6
    with pytest.raises(ShapeError, match="expected 3 pictures"):
        result.plot(torch.rand(2, 3, 20, 28))


def test_the_class_of_each_picture_stands_above_its_map():
    classes = ("disc", "a$_star", "disc")
    result = Attribution(torch.randn(3, 1, 5, 7), torch.zeros(3), method="Some", classes=classes)
    ax = result.plot(torch.rand(3, 3, 20, 28))
    assert tuple(text.get_text() for text in ax.texts) == classes
    ax.figure.canvas.draw()
    words = [text.get_window_extent() for text in ax.texts]
    maps = [image.get_window_extent() for image in ax.images[1::2]]
    for word, shown in zip(words, maps, strict=True):
        assert word.y0 >= shown.y1 and shown.x0 < (word.x0 + word.x1) / 2 < shown.x1
        assert word.y1 < ax.title.get_window_extent().y0


def test_rows_are_bars():
    ax = rows().plot()
    assert len(ax.patches) == 4 and len(rows(several=True).plot().patches) == 8
    with pytest.raises(ShapeError, match="only maps"):
        Attribution(torch.ones(1, 2, 3, 4, 5), torch.ones(1)).plot()


def test_tokens_are_drawn_as_text_in_the_colours_of_the_page():
    tokens = ("<b>", " two", "$x$", "long" * 6)
    result = Attribution(
        torch.tensor([[2.0, -1.0, 0.0, -2.0]]), torch.zeros(1), method="Some", tokens=(tokens,), names=("it",)
    )
    ax = result.plot()
    assert [text.get_text() for text in ax.texts] == [
        *("it", "<b>", "2", "two", "-1", "$x$", "0"),
        *("long" * 6, "-2"),
    ]
    colors = [[round(255 * part) for part in patch.get_facecolor()[:3]] for patch in ax.patches]
    assert colors == [list(shade(share)) for share in (1.0, -0.5, 0.0, -1.0)]
    assert colors[0][0] > colors[0][2] and colors[1][0] < colors[1][2] and colors[2] == [255, 255, 255]
    for color in colors:
        assert f"rgb({','.join(map(str, color))})" in result._repr_html_()
    assert not ax.axison and ax.get_title() == "Some"


@pytest.mark.parametrize("width", [1.5, 4, 12])
def test_long_texts_are_wrapped_and_no_token_lies_on_another(width):
    tokens = ("word", "a", "longer_word") * 20
    result = Attribution(torch.randn(1, 60), torch.zeros(1), method="Some", tokens=(tokens,))
    ax = pyplot.figure(figsize=(width, 4)).add_subplot()
    result.plot(ax=ax).figure.canvas.draw()
    cells = [patch.get_window_extent() for patch in ax.patches]
    words = [text.get_window_extent() for text in ax.texts[::2]]
    assert [text.get_text() for text in ax.texts[::2]] == list(tokens)
    for cell, word in zip(cells, words, strict=True):
        assert cell.x0 <= word.x0 and word.x1 <= cell.x1
    lines = {round(cell.y0) for cell in cells}
    assert len(lines) > 3 and all(ax.bbox.x0 - 1 <= cell.x0 and cell.x1 <= ax.bbox.x1 + 1 for cell in cells)


def pictures(html):
    """The pictures within a page, and the page without them."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found], re.sub(
        r'src="[^"]+"', "", html
    )


def test_notebooks_show_the_heat_maps_of_pictures():
    values = torch.zeros(2, 3, 4, 6)
    values[0, :, 1, 2], values[0, :, 3, 5], values[1, 0, 0, 0] = 1.0, -0.5, -1.0
    shown, page = pictures(Attribution(values, torch.zeros(2), method="Some")._repr_html_())
    assert [image.size for image in shown] == [(6, 4), (6, 4)] and "Attribution(Some" in page
    assert shown[0].getpixel((2, 1)) == (213, 94, 0) and shown[0].getpixel((5, 3)) == (128, 184, 216)
    assert shown[1].getpixel((0, 0)) == (0, 114, 178) and shown[1].getpixel((1, 0)) == (255, 255, 255)
    for outside in ("http", "<script", "url("):
        assert outside not in page


def test_notebooks_show_a_line_of_pictures_for_each_target_but_not_hundreds():
    several = Attribution(
        torch.randn(2, 3, 1, 4, 6), torch.zeros(2, 3), method="Some", several=True, names=("one", "<two>")
    )
    shown, page = pictures(several._repr_html_())
    assert len(shown) == 6 and "one: " in page and "&lt;two&gt;: " in page and "more" not in page
    many = Attribution(torch.randn(100, 1, 4, 6), torch.zeros(100), method="Some")
    shown, page = pictures(many._repr_html_())
    assert len(shown) == 24 and "and 76 more" in page


def test_targets_of_one_text_have_one_scale_of_colours():
    values = torch.tensor([[[4.0, 1e-5]], [[1e-5, 0.0]]])
    result = Attribution(values, torch.zeros(2, 1), method="Some", several=True, tokens=(("a", "b"),))
    full, white = (f"rgb({','.join(map(str, shade(share)))})" for share in (1.0, 0.0))
    html = result._repr_html_()
    assert html.count(full) == 1 and html.count(white) == 3
    ax = result.plot()
    colors = [tuple(round(255 * part) for part in patch.get_facecolor()[:3]) for patch in ax.patches]
    assert colors == [shade(1.0), *[shade(0.0)] * 3]
    pyplot.close(ax.figure)
    assert result[1]._repr_html_().count(full) == 1  # alone it has another scale


def test_tokens_have_the_colour_of_their_share():
    result = Attribution(torch.tensor([[2.0, -1.0, 0.0]]), torch.zeros(1), method="Some")
    html = replace(result, tokens=(("<b>", "two", "three"),))._repr_html_()
    strongest, half = (f"rgb({','.join(map(str, shade(share)))})" for share in (1.0, -0.5))
    assert f'background:{strongest};color:black;padding:3px 2px;margin:0 1px">&lt;b&gt;</span>' in html
    assert half in html and "rgb(255,255,255)" in html and "<b>" not in html
    embedded = Attribution(
        torch.tensor([[[1.0, 1.0], [-1.0, 0.0], [1.0, -1.0]]]), torch.zeros(1), method="Some"
    )
    assert replace(embedded, tokens=(("<b>", "two", "three"),))._repr_html_().count(half) == 1
    assert "<span" not in Attribution(torch.ones(1, 1, 2, 2), torch.ones(1))._repr_html_()


def test_a_notebook_shows_the_strongest_columns_of_a_table_by_name():
    values = torch.arange(24.0).reshape(2, 12) * torch.tensor([1.0, -1.0])[:, None]
    names = tuple(f"<{letter}>" for letter in "abcdefghijkl")
    result = Attribution(
        values, torch.zeros(2), method="Some", feature_names=names, classes=("cat", "dog"), data=values
    )
    lines = [
        unescape(re.sub("<[^>]*>", " ", line)).split() for line in result._repr_html_().split("<tr>")[1:]
    ]
    assert lines[0] == ["contribution", "cat", "dog"] and lines[1] == ["<l>", "11", "-23"]
    assert [line[0] for line in lines[1:11]] == [*names[:1:-1]]
    assert lines[11] == ["sum", "of", "2", "others", "1", "-25"]
    assert result._repr_html_().count(f"rgb({','.join(map(str, shade(-1.0)))})") == 1
    assert "&lt;c&gt; = 2<" in result[:1]._repr_html_()


def test_a_notebook_counts_the_rows_and_the_targets_that_it_leaves_out():
    several = Attribution(torch.rand(5, 9, 3), torch.zeros(5, 9), several=True, names=tuple("abcde"))
    page = several._repr_html_()
    assert page.count("<table>") == 4 and "and 1 more row<" in page and "and 1 more target<" in page
    assert "contribution to d<" in page and "contribution to e<" not in page


def test_black_letters_can_be_read_on_every_shade():
    """The contrast of WCAG 2.1 is at least 4.5."""
    for share in torch.linspace(-1, 1, 21).tolist():
        linear = [((part / 255 + 0.055) / 1.055) ** 2.4 for part in shade(share)]
        luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert (luminance + 0.05) / 0.05 > 4.5


def test_the_repr_says_how_far_to_believe_it():
    values = torch.ones(2, 3)
    result = Attribution(
        values, torch.ones(2), torch.zeros(2), standard_error=values / 4, method="Some", complete=True
    )
    assert repr(result) == "Attribution(Some: values (2, 3), gap at most 2, standard error at most 0.25)"
