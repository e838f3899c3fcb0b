"""One look for all figures: zero is white, panels share their limits, the user's settings stay."""

import pickle
import sys
from types import SimpleNamespace

import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib import colors, pyplot

from toumei.attribution import Attribution, Comparison, Curve, Randomization
from toumei.cnns import ChannelGroups, ExpandedWeights
from toumei.core.errors import ShapeError
from toumei.misc.modularity import NullTest, plot_blocks, plot_eigenvalues, plot_layers, plot_null_test
from toumei.misc.modularity.graph import chain
from toumei.misc.sharpness import Sharpness
from toumei.plots import check_overlay, image_grid, side_by_side, style
from toumei.transformers.rome import AverageEffects, CausalTrace


def test_zero_is_white_and_signs_are_told_apart():
    shown = style.diverging_colors(torch.tensor([-2.0, 0.0, 2.0, 5.0]), limit=2.0)
    assert torch.equal(shown[1], torch.ones(3))
    torch.testing.assert_close(shown[0], torch.tensor(colors.to_rgb(style.NEGATIVE)), atol=1e-6, rtol=0)
    torch.testing.assert_close(shown[2], torch.tensor(colors.to_rgb(style.POSITIVE)), atol=1e-6, rtol=0)
    assert torch.equal(shown[2], shown[3])


def test_a_map_of_one_side_keeps_white_at_zero_and_the_strength_of_each_number():
    """Between -1 and 4 a number has the colour that it has between -4 and 4."""
    whole, part = style.diverging_map(), style.diverging_map(span=(-1.0, 4.0))
    for number in (-1.0, 0.0, 2.0, 4.0):
        expected, shown = torch.tensor(whole(number / 8 + 0.5)), torch.tensor(part((number + 1) / 5))
        torch.testing.assert_close(shown, expected, atol=0.02, rtol=0)


def test_palettes_have_different_colours_however_many():
    for count in (3, 8, 20):
        for on_dark in (False, True):
            shades = style.palette(count, on_dark)
            assert len(set(shades)) == count and not (on_dark and style.BLACK in shades)


def seen_without_red_cones(color):
    """A colour as a protanope sees it (Vienot et al., 1999), in linear RGB."""
    linear = torch.tensor([part**2.2 for part in colors.to_rgb(color)])
    matrix = torch.tensor([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, -0.0], [0.00401, -0.00401, 1.0]])
    return matrix @ linear


def test_the_first_colours_differ_for_colour_blind_people():
    seen = torch.stack([seen_without_red_cones(color) for color in style.COLORS[:5]])
    distances = torch.cdist(seen, seen) + torch.eye(5)
    assert distances.min() > 0.05


def test_a_notebook_shows_the_figure_of_a_plot_alone():
    """IPython asks an object to display itself, and writes no text of one that does."""
    plots = [Attribution(torch.randn(2, 3, 4, 4), torch.zeros(2)).plot(), image_grid(torch.rand(2, 3, 8, 8))]
    for ax in plots:
        assert ax._ipython_display_() is None
        assert pickle.loads(pickle.dumps(ax.figure)).axes[0].get_title() == ax.get_title()


def test_a_notebook_shows_a_figure_that_a_plot_returns_once(monkeypatch):
    """A cell shows what its last line returns, and then each figure that is still open."""
    published = []
    formatters = {"image/png": lambda figure: (b"PNG", {"width": 6}), "text/html": lambda figure: None}
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters=formatters))
    display = SimpleNamespace(publish_display_data=lambda *data: published.append(data))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    table = Comparison(("A", "B"), {"inside": torch.rand(2, 3)}, torch.rand(2, 3, 4, 4))
    for figure in (table.plot(), Curve(torch.rand(5), torch.rand(2, 5)).plot().figure):
        figure._ipython_display_()
        assert published.pop() == ({"image/png": b"PNG"}, {"image/png": {"width": 6}})
        assert not pyplot.fignum_exists(figure.number)
    formatters["image/png"] = lambda figure: None
    figure = table.plot()
    figure._ipython_display_()
    assert pyplot.fignum_exists(figure.number), "a widget is drawn on"
    pyplot.close("all")


def test_titles_of_new_figures_are_in_the_look_and_those_of_given_axes_the_users():
    given = pyplot.figure().add_subplot()
    table = Attribution(torch.rand(2, 3), torch.ones(2), torch.zeros(2), data=torch.rand(2, 3))
    null = NullTest("ncut", 0.5, torch.rand(20), 2)
    plots = [lambda ax: table.waterfall(0, ax=ax), lambda ax: table.bar(ax=ax), null.plot]
    with pyplot.rc_context({"axes.titlesize": 31}):
        for plot in plots:
            assert plot(None).title.get_fontsize() < 15 and plot(given).title.get_fontsize() == 31
    pyplot.close("all")


def test_a_plot_leaves_given_axes_in_place():
    ax = pyplot.figure(facecolor="yellow").add_subplot()
    result = Attribution(torch.randn(2, 2, 4), torch.zeros(2, 2), several=True, names=("cat", "dog"))
    assert result.plot(ax=ax) is ax
    assert ax.figure.get_facecolor() == colors.to_rgba("yellow")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog"]
    assert ax.get_xlabel() == "mean magnitude of the contribution"
    pyplot.close("all")


def attribution_of_pictures():
    return Attribution(torch.randn(2, 3, 8, 8), torch.zeros(2), method="Saliency", names=("cat",))


def trace():
    return CausalTrace(
        scores=torch.tensor([[0.05, 0.1], [0.9, 0.3]]),
        low=0.1,
        high=0.9,
        tokens=("Ann", " lives"),
        ids=(5, 7),
        subject_range=(0, 1),
        answer=" Rome",
        answer_id=3,
        probability=0.9,
        kind="hidden",
        window=1,
        prompt="Ann lives",
        subject="Ann",
    )


def graph():
    return chain(["a", "b", "c"], [torch.rand(6, 5), torch.rand(4, 6)])


LABELS = torch.tensor([0, 1, 0, 1, 1] + [0, 1] * 5)
AVERAGE = (torch.rand(5, 7, 3) - 0.2, torch.zeros(5), torch.ones(5), "mlp", 1)
PLOTS = {
    "maps": lambda: attribution_of_pictures().plot(),
    "maps over pictures": lambda: attribution_of_pictures().plot(torch.rand(2, 3, 16, 16)),
    "bars": lambda: Attribution(torch.randn(2, 4), torch.zeros(2)).plot(),
    "tokens": lambda: Attribution(torch.randn(1, 2), torch.zeros(1), tokens=(("a", "b"),)).plot(),
    "comparison": lambda: Comparison(("A",), {}, torch.rand(1, 2, 8, 8)).plot().axes[0],
    "curve": lambda: Curve(torch.linspace(0, 1, 5), torch.rand(3, 5)).plot(),
    "randomization": lambda: Randomization(("a", "b"), torch.rand(2, 3)).plot(),
    "trace": lambda: trace().plot(),
    "average": lambda: AverageEffects(*AVERAGE).plot(),
    "average as heat map": lambda: AverageEffects(*AVERAGE).plot_heatmap(),
    "layers": lambda: plot_layers(graph(), LABELS),
    "blocks": lambda: plot_blocks(graph(), LABELS),
    "eigenvalues": lambda: plot_eigenvalues(torch.linspace(0, 1, 6), 2),
    "null test": lambda: plot_null_test(torch.rand(20), 0.1),
    "sharpness": lambda: Sharpness(torch.ones(2), torch.rand(2), torch.rand(2), 0.1).plot(),
    "pictures": lambda: image_grid(torch.rand(2, 3, 8, 8), ["a", "b"]),
    "groups of pictures": lambda: side_by_side({"highest": [torch.rand(2, 3, 8, 8)]}, ["a"]),
    "weights": lambda: ExpandedWeights("a", "b", (0,), torch.randn(1, 4, 3, 3)).plot(2),
}


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_has_one_look_and_leaves_the_settings_of_the_user(name):
    """A figure of the library stays light in the dark style of a user, and each colour bar has a label."""
    with matplotlib.style.context(["dark_background", {"axes.labelsize": 30, "xtick.labelsize": 30}]):
        before = dict(matplotlib.rcParams)
        figure = PLOTS[name]().figure
        assert dict(matplotlib.rcParams) == before
        figure.canvas.draw()
        assert figure.get_facecolor() == colors.to_rgba("white")
        for text in figure.findobj(matplotlib.text.Text):
            if text.get_text():
                assert text.get_size() < 16 and colors.to_rgb(text.get_color()) != (1.0, 1.0, 1.0), text
        for ax in figure.axes:
            assert not hasattr(ax, "_colorbar") or ax.get_ylabel()
        pyplot.close("all")


def test_nothing_restored_is_white_and_worse_is_gray():
    """The trace has the same colour for no effect on every scale, and another one for less than no effect."""
    for limits in (None, (0.05, 3.0)):
        ax = trace().plot(limits=limits)
        (mesh,) = ax.collections
        shown = mesh.to_rgba([0.1, 0.05, 0.9])
        assert np.allclose(shown[0], 1, atol=0.02), "nothing restored"
        red, green, blue = shown[1, :3]
        assert max(red, green, blue) < 1 and np.ptp(shown[1, :3]) < 1e-6, "worse than nothing is gray"
        assert np.ptp(shown[2, :3]) > 0.02, "better than nothing is coloured"
        assert "+0.80" in ax.get_title()
    pyplot.close("all")


@pytest.mark.parametrize("size", [(16, 8), (8, 16), (224, 448)])
def test_maps_are_not_stretched_over_pictures_of_other_proportions(size):
    pictures = torch.rand(2, 3, *size)
    with pytest.raises(ShapeError, match=f"maps of 8 x 8 .* pictures of {size[0]} x {size[1]}"):
        attribution_of_pictures().plot(pictures)
    with pytest.raises(ShapeError, match="proportions"):
        Comparison(("A",), {}, torch.rand(1, 2, 8, 8)).plot(pictures)
    with pytest.raises(ShapeError, match="proportions"):
        ChannelGroups("a", torch.rand(2, 3), torch.rand(2, 2, 8, 8), pictures, 0.1).plot()


def test_masks_and_pictures_of_a_comparison_are_those_of_its_inputs():
    table = Comparison(("A",), {}, torch.rand(1, 2, 8, 8))
    with pytest.raises(ShapeError, match="masks"):
        table.plot(masks=torch.ones(2, 4, 4))
    with pytest.raises(ShapeError, match="2 pictures"):
        table.plot(torch.rand(3, 3, 8, 8))


def test_a_map_may_be_a_pixel_off_the_proportions_of_its_picture():
    for maps, pictures in [
        ((7, 7), (224, 224)),
        ((13, 17), (224, 300)),
        ((6, 6), (227, 227)),
        ((1, 1), (9, 9)),
    ]:
        check_overlay(maps, pictures)


def test_normalized_pictures_are_not_cut_off_without_a_word():
    normalized = torch.rand(2, 3, 8, 8) * 4 - 2
    with pytest.warns(UserWarning, match="values in .0, 1., got .* before normalization"):
        image_grid(normalized)
    with pytest.warns(UserWarning, match="before normalization"):
        attribution_of_pictures().plot(normalized)
    pyplot.close("all")


def test_a_notebook_stays_interactive_after_its_first_figure():
    with matplotlib.rc_context():
        pyplot.ioff()
        with style.look():
            pyplot.ion()  # as the backend of notebooks does when it is first used
        assert matplotlib.is_interactive()
        with pytest.raises(KeyError), style.look():
            pyplot.ioff()
            raise KeyError
        assert not matplotlib.is_interactive()
