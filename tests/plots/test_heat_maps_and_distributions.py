"""Heat maps and distributions show the numbers that they are given."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from toumei.core.errors import ShapeError
from toumei.plots.statistics import color_limits, distribution, heat_map


@pytest.fixture
def ax():
    yield pyplot.figure().add_subplot()
    pyplot.close("all")


def test_a_heat_map_shows_each_number_at_its_row_and_column(ax):
    values = torch.arange(60.0).reshape(2, 30)
    values[1, 3] = torch.nan
    assert heat_map(values, ["a", "b"], ax, label="effect", limits=(-5, 70)) is ax
    (mesh,) = ax.collections
    shown = mesh.get_array().reshape(2, 30)
    assert np.array_equal(shown.filled(np.nan), values.numpy(), equal_nan=True)
    assert mesh.get_clim() == (-5, 70)
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(column) for column in range(0, 30, 3)]
    assert mesh.colorbar.ax.get_ylabel() == "effect"


def test_labels_of_many_rows_and_columns_stand_beside_their_cells_without_touching(ax):
    names = [f"{number} " + "x" * 100 for number in range(300)]
    heat_map(torch.rand(300, 300), names, ax, label="effect", columns=names)
    for axis in (ax.yaxis, ax.xaxis):
        places = axis.get_majorticklocs()
        written = [label.get_text() for label in axis.get_ticklabels()]
        assert [int(text.split()[0]) for text in written] == [int(place) for place in places]
        assert 20 < len(written) < 100 and max(map(len, written)) <= 60


@pytest.mark.parametrize("shape", [(3, 4), (2,), (2, 1, 1)])
def test_a_heat_map_needs_a_label_for_each_row(shape, ax):
    with pytest.raises(ShapeError, match="a matrix with 2 labelled rows, got"):
        heat_map(torch.zeros(shape), ["a", "b"], ax, label="effect")


@pytest.mark.parametrize(
    ("panels", "middle", "limits"),
    [
        ([torch.tensor([0.5, -3.0]), torch.tensor([1.0])], 0.0, (-3.0, 1.0)),
        (torch.tensor([[2.0, float("nan")]]), 0.0, (0.0, 2.0)),
        (torch.tensor([2.0, 4.0]), 5.0, (2.0, 5.0)),
        ([], 1.0, (1.0, 1.000001)),
        ([torch.tensor([3, -2]), torch.empty(0), torch.tensor([float("inf")])], 0.0, (-2.0, 3.0)),
    ],
)
def test_panels_that_are_compared_share_limits_around_the_middle(panels, middle, limits):
    assert color_limits(panels, middle) == pytest.approx(limits)


def test_a_distribution_counts_every_sample_and_marks_the_middle_95_percent(ax):
    samples = torch.randn(400, generator=torch.Generator().manual_seed(0))
    distribution(samples, 2.5, ax, names=("shuffled", "network"))
    bars = [patch for patch in ax.patches if patch.get_label() != "95 % of shuffled"]
    assert sum(bar.get_height() for bar in bars) == 400
    (span,) = [patch for patch in ax.patches if patch.get_label() == "95 % of shuffled"]
    low, high = span.get_extents().transformed(ax.transData.inverted()).intervalx
    assert ((samples >= low) & (samples <= high)).float().mean() == pytest.approx(0.95, abs=0.005)
    (line,) = ax.get_lines()
    assert line.get_xdata()[0] == 2.5 and line.get_label() == "network"


@pytest.mark.parametrize("value", [-3.0, 0.0, 3.0])
def test_the_legend_of_a_distribution_lies_above_all_that_is_drawn(ax, value):
    distribution(torch.linspace(-1, 1, 40).sin(), value, ax)
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    for drawn in (*ax.patches, *ax.get_lines()):
        assert drawn.get_window_extent().y1 < legend.y0


def test_a_distribution_of_equal_samples_is_one_bar(ax):
    distribution(torch.ones(5), 1.0, ax)
    bars = [patch for patch in ax.patches if patch.get_label() != "95 % of samples"]
    assert max(bar.get_height() for bar in bars) == 5
