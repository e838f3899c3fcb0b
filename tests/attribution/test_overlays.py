"""Pictures beside their contributions: what is where, which contributions, and what is refused."""

import pytest
import torch
from matplotlib import colors, pyplot

from toumei.attribution import Attribution, ExactShapley, overlay
from toumei.attribution.plots import heat_map
from toumei.core.errors import ArgumentError, ShapeError
from toumei.plots.style import ink

IMAGES = torch.rand(2, 3, 12, 18, generator=torch.Generator().manual_seed(0))
VALUES = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(1))


def attribution(method="Some", **options):
    return Attribution(VALUES, torch.tensor([3.0, 4.0]), method=method, classes=("cat", "dog"), **options)


def test_a_grid_has_a_row_for_each_picture_and_a_column_for_each_map():
    ax = overlay([attribution(), attribution("Other")], IMAGES, show=("original", "map", "blend"))
    lefts = sorted({image.get_extent()[0] for image in ax.images})
    tops = sorted({image.get_extent()[3] for image in ax.images})
    assert len(lefts) == 5 and len(tops) == 2
    words = [text.get_text() for text in ax.texts]
    assert words == ["cat\nscore 3", "dog\nscore 4", "original", "Some, map", "Some", "Other, map", "Other"]
    torch.testing.assert_close(torch.tensor(ax.images[0].get_array()), IMAGES[0].permute(1, 2, 0))


@pytest.mark.parametrize(("height", "width", "count"), [(8, 8, 6), (8, 8, 1), (8, 16, 2), (40, 20, 3)])
def test_names_beside_pictures_of_any_size_are_inside_the_figure(height, width, count):
    values = torch.rand(count, 1, height, width)
    names = tuple(f"a long name of class {index}" for index in range(count))
    result = Attribution(values, torch.ones(count), method="Some", classes=names)
    ax = result.overlay(values)
    ax.figure.canvas.draw()
    whole = ax.figure.bbox
    for box in (text.get_window_extent() for text in ax.texts):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1


@pytest.mark.parametrize(("count", "columns"), [(3, 3), (2, 1), (3, 1)])
def test_short_names_beside_wide_grids_are_inside_the_figure(count, columns):
    values = torch.rand(count, 1, 24, 24)
    result = Attribution(
        values, -torch.ones(count) / 3, method="Some", classes=("macaw", "mug", "pie")[:count]
    )
    for show in (("original", "blend"), ("map",)):
        ax = overlay([result] * columns, values, show=show)
        ax.figure.canvas.draw()
        assert min(text.get_window_extent().x0 for text in ax.texts) >= 0


def test_the_given_axes_are_drawn_on():
    ax = pyplot.figure().add_subplot()
    assert attribution().overlay(IMAGES, ax=ax) is ax
    assert ax.figure.axes[-1].get_ylabel() == "contribution to the class,\n1: 99th percentile of each map"


@pytest.mark.parametrize("sign", ["both", "positive", "negative", "absolute"])
def test_signs(sign):
    shown = heat_map(VALUES, 100.0, sign)
    summed = VALUES.sum(1)
    kept = {
        "both": summed,
        "positive": summed.relu(),
        "negative": -(-summed).relu(),
        "absolute": summed.abs(),
    }
    wanted = kept[sign] / kept[sign].abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(shown, wanted)
    ax = attribution().overlay(IMAGES, show=["map"], sign=sign)
    torch.testing.assert_close(torch.tensor(ax.images[1].get_array()), heat_map(VALUES, 99.0, sign)[1])


def test_a_percentile_clips_what_is_larger():
    values = torch.arange(1.0, 101.0).reshape(1, 1, 10, 10)
    values[0, 0, 0, 0] = -1.0
    heat = heat_map(values, 50.0).flatten()
    torch.testing.assert_close(heat, (values.flatten() / 50).clamp(max=1))


def test_pictures_that_do_not_fit_are_refused():
    for images, match in (
        (IMAGES[:1], "1 picture for contributions of 2"),
        (IMAGES * 255, "values in \\[0, 1\\], got .* divided by 255"),
        (IMAGES * 4 - 2, "before normalization"),
        (torch.rand(2, 3, 18, 12), "do not have the proportions"),
        (IMAGES.movedim(1, 3), "expected pictures"),
    ):
        with pytest.raises(ShapeError, match=match):
            attribution().overlay(images)
    with pytest.raises(ArgumentError, match="nothing to show"):
        overlay([], IMAGES)
    with pytest.raises(ArgumentError, match="percentile"):
        attribution().overlay(IMAGES, percentile=0.0)
    table = Attribution(torch.rand(2, 4), torch.zeros(2))
    with pytest.raises(ShapeError, match="contributions of pictures"):
        table.overlay(IMAGES)


def test_interactions_are_a_matrix_with_names():
    """The product of two columns is shared by both, half in each of their cells."""
    method = ExactShapley(lambda rows: rows[:, 0] * rows[:, 1] + rows[:, 2], interactions=True)
    result = method(torch.tensor([[2.0, 3.0, 5.0]]), feature_names=["a", "b", "c"])
    ax = result.interaction_matrix()
    cells = torch.tensor(ax.collections[0].get_array().data.reshape(3, 3))
    torch.testing.assert_close(cells, torch.tensor([[0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 5.0]]))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]
    with pytest.raises(ArgumentError, match="interactions=True"):
        Attribution(torch.rand(1, 3), torch.zeros(1)).interaction_matrix()


@pytest.mark.parametrize("ground", ["white", "#17191c"])
def test_letters_of_tokens_can_be_read_on_white_and_on_dark(ground):
    """The contrast of WCAG 2.1 with what is below each letter is at least 4.5."""
    result = Attribution(torch.tensor([[2.0, -1.0]]), torch.zeros(1), tokens=(("a", "b"),), names=("it",))
    ax = pyplot.figure(facecolor=ground).add_subplot()
    result.plot(ax=ax)
    name, *others = ax.texts
    for text in [name, *others[1::2]]:
        assert contrast(text.get_color(), ground) > 4.5
    for text, patch in zip(others[::2], ax.patches, strict=True):
        assert contrast(text.get_color(), patch.get_facecolor()) > 4.5
    assert ink(ax) == ("black" if ground == "white" else "white")


def contrast(one, other):
    first, second = sorted((luminance(one), luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def luminance(color):
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colors.to_rgb(color)
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
