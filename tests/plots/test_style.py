"""One look for all figures: zero is white, panels share their limits, the user's settings stay."""

import matplotlib
import pytest
import torch
from matplotlib import colors, pyplot

from toumei.attribution import Attribution
from toumei.plots import style


def test_zero_is_white_and_signs_are_told_apart():
    shown = style.diverging_colors(torch.tensor([-2.0, 0.0, 2.0, 5.0]), limit=2.0)
    assert torch.equal(shown[1], torch.ones(3))
    torch.testing.assert_close(shown[0], torch.tensor(colors.to_rgb(style.NEGATIVE)), atol=1e-6, rtol=0)
    torch.testing.assert_close(shown[2], torch.tensor(colors.to_rgb(style.POSITIVE)), atol=1e-6, rtol=0)
    assert torch.equal(shown[2], shown[3])


@pytest.mark.parametrize(
    ("panels", "limit"),
    [
        ([torch.tensor([0.5, -3.0]), torch.tensor([1.0])], 3.0),
        (torch.tensor([[2.0, float("nan")]]), 2.0),
        (torch.zeros(3), 1.0),
        ([], 1.0),
    ],
)
def test_limits_are_shared_and_symmetric(panels, limit):
    assert style.symmetric_limits(panels) == (-limit, limit)


def seen_without_red_cones(color):
    """A colour as a protanope sees it (Vienot et al., 1999), in linear RGB."""
    linear = torch.tensor([part**2.2 for part in colors.to_rgb(color)])
    matrix = torch.tensor([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, -0.0], [0.00401, -0.00401, 1.0]])
    return matrix @ linear


def test_the_first_colours_differ_for_colour_blind_people():
    seen = torch.stack([seen_without_red_cones(color) for color in style.COLORS[:5]])
    distances = torch.cdist(seen, seen) + torch.eye(5)
    assert distances.min() > 0.05


def test_a_plot_leaves_global_settings_and_given_axes_in_place():
    before = dict(matplotlib.rcParams)
    ax = pyplot.figure(facecolor="yellow").add_subplot()
    result = Attribution(torch.randn(2, 2, 4), torch.zeros(2, 2), several=True, names=("cat", "dog"))
    assert result.plot(ax=ax) is ax
    assert ax.figure.get_facecolor() == colors.to_rgba("yellow") and dict(matplotlib.rcParams) == before
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog"]
    assert ax.get_xlabel() == "feature" and ax.get_ylabel() == "contribution"
    pyplot.close("all")
