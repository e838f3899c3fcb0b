"""Bars, waterfalls, swarms and dependence: the numbers on the axes are those that were given."""

from itertools import combinations, pairwise

import pytest
import torch
from matplotlib.figure import Figure

from toumei.core.errors import ArgumentError, ShapeError
from toumei.plots import bar_chart, beeswarm, dependence, waterfall
from toumei.plots.statistics import heat_map

VALUES = torch.tensor([1.0, -4.0, 0.5, 2.0])
NAMES = ["a", "b", "c", "d"]


def labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_bars_are_sorted_and_the_rest_is_added_up():
    ax = bar_chart(VALUES, NAMES, most=2)
    assert labels(ax) == ["b", "d", "sum of 2 others"]
    assert [patch.get_width() for patch in ax.patches] == [-4.0, 2.0, 1.5]
    assert [text.get_text() for text in ax.texts] == ["-4", "2", "1.5"]


def test_what_rounding_leaves_of_zero_is_written_as_zero():
    values = torch.tensor([3.0, -4e-14, 2e-4], dtype=torch.float64)
    names = ["a", "b", "c"]
    assert [text.get_text() for text in bar_chart(values, names).texts] == ["3", "0.0002", "0"]
    ax = waterfall(values, names, start=0.0, end=3.0002)
    assert {text.get_text() for text in ax.texts} >= {"+3", "+0.0002", "0"}
    assert [text.get_text() for text in bar_chart(torch.zeros(2), ["a", "b"]).texts] == ["0", "0"]


def test_bars_of_several_targets_do_not_cover_each_other():
    ax = bar_chart(torch.stack([VALUES, -VALUES]), NAMES, ["cat", "dog"])
    spans = sorted((patch.get_y(), patch.get_y() + patch.get_height()) for patch in ax.patches)
    assert all(one[1] <= other[0] + 1e-9 for one, other in pairwise(spans))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog"]


@pytest.mark.parametrize("most", [1, 2, 10])
def test_a_waterfall_leads_from_the_baseline_to_the_input(most):
    """Each bar begins where the one below it ends, and the last one ends at the score."""
    ax = waterfall(VALUES, NAMES, start=3.0, end=2.5, most=most)
    place = 3.0
    for patch in sorted(ax.patches, key=lambda patch: -patch.get_y()):
        assert patch.get_x() == pytest.approx(place)
        place += patch.get_width()
    assert place == pytest.approx(2.5)


def test_the_names_of_a_waterfall_do_not_cover_each_other():
    ax = waterfall(VALUES, NAMES, start=3.0, end=2.5, label="score of a class")
    ax.figure.canvas.draw()
    words = [text for text in (*ax.texts, ax.xaxis.label, *ax.get_xticklabels()) if text.get_text()]
    boxes = [text.get_window_extent() for text in words]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5)])
def test_the_numbers_of_a_waterfall_to_0_are_beside_the_names_of_columns(start, end):
    ax = waterfall(torch.tensor([end - start]), ["a"], start=start, end=end)
    ax.figure.canvas.draw()
    box = ax.get_window_extent()
    number = next(text for text in ax.texts if text.get_text() == f"{end - start:+.3g}").get_window_extent()
    assert box.x0 <= number.x0 and number.x1 <= box.x1


def test_what_is_not_explained_is_a_bar_of_its_kind():
    ax = waterfall(VALUES, NAMES, start=0.0, end=0.5)
    assert labels(ax)[-1] == "not explained (gap)" and ax.patches[0].get_width() == pytest.approx(1.0)


def test_a_swarm_has_a_point_for_each_number_and_none_lies_on_another():
    torch.manual_seed(0)
    values = torch.randn(200, 3) * torch.tensor([1.0, 3.0, 0.1])
    values[:50, 0] = 0.0
    ax = beeswarm(values, NAMES[:3], torch.rand(200, 3))
    assert labels(ax) == ["b", "a", "c"]
    for row, column in enumerate([1, 0, 2]):
        points = torch.from_numpy(ax.collections[row].get_offsets().data)
        torch.testing.assert_close(points[:, 0], values[:, column].double())
        assert (points[:, 1] - row).abs().max() < 0.5
        assert len(points.unique(dim=0)) == 200


def test_dependence_shows_contribution_against_value():
    data = torch.tensor([1.0, 5.0, 2.0, 3.0])
    ax = dependence(VALUES, data, "dose", by=data, by_name="age")
    points = torch.from_numpy(ax.collections[0].get_offsets().data)
    torch.testing.assert_close(points, torch.stack([data, VALUES], 1).double())
    assert ax.get_xlabel() == "dose"
    # the colours are in the order of the values
    assert ax.collections[0].get_array().argsort().tolist() == data.argsort().tolist()


def test_numbers_that_do_not_fit_their_names_are_refused():
    for draw in (bar_chart, beeswarm):
        with pytest.raises(ShapeError, match="expected"):
            draw(torch.rand(2, 3), ["a", "b"])
    with pytest.raises(ShapeError, match="expected a number for each of 1"):
        waterfall(VALUES, ["a"], start=0.0, end=1.0)
    with pytest.raises(ShapeError, match="the data"):
        beeswarm(torch.rand(2, 2), ["a", "b"], torch.rand(2, 3))
    with pytest.raises(ShapeError, match="as many contributions"):
        dependence(VALUES, torch.rand(3), "a")


def test_what_is_no_colour_is_named():
    ax = Figure().add_subplot()
    with pytest.raises(ArgumentError, match="color is a colour.*'no such thing'"):
        bar_chart(torch.ones(2), ["a", "b"], color="no such thing")
    with pytest.raises(ArgumentError, match="color is a colour"):
        heat_map(torch.ones(1, 2), ["a"], ax, label="x", color="bleu")
    with pytest.raises(ArgumentError, match="largest is a colour"):
        heat_map(torch.ones(1, 2), ["a"], ax, label="x", below=("gray", "blakc"))
