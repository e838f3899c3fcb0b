"""Cells of maps: against NumPy's histograms, and planted clusters."""

import numpy as np
import pytest
import torch
from area_helpers import areas_of, random_areas

from toumei.core.errors import ArgumentError, LayerError
from toumei.transformers.areas import Areas
from toumei.transformers.areas.grid import cell_edges, cells_of


@pytest.mark.parametrize("bins", ["width", "quantile"])
def test_counts_are_those_of_numpy(bins):
    areas = random_areas(bins=bins)
    for layer in range(3):
        x, y = areas.coordinates[layer].T.numpy()
        edges = [np.quantile(one, np.linspace(0, 1, 5)) for one in (x, y)] if bins == "quantile" else 4
        for category in (None, 0, 1):
            chosen = areas.in_category(category).numpy()
            spans = None if bins == "quantile" else [[x.min(), x.max()], [y.min(), y.max()]]
            expected = np.histogram2d(x[chosen], y[chosen], edges, spans)[0]
            assert np.array_equal(areas.counts(layer, category).T.numpy(), expected)


def test_quantiles_give_each_column_about_as_many_texts():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).exp()
    counts = cells_of(values, cell_edges(values, 8, "quantile")).bincount()
    assert counts.min() >= 124 and counts.max() <= 126
    assert cells_of(values, cell_edges(values, 8)).bincount()[0] > 700  # equal widths: most in one


def test_planted_clusters_lie_in_different_cells():
    labels = torch.arange(60) % 2
    noise = 0.1 * torch.randn(1, 60, 2, generator=torch.Generator().manual_seed(0))
    areas = areas_of(noise + labels[None, :, None] * torch.tensor([3.0, 3.0]), labels)
    both = (areas.counts(0, "a") > 0) & (areas.counts(0, "b") > 0)
    assert not both.any()
    assert int(areas.counts(0, "a").sum()) == int(areas.counts(0, "b").sum()) == 30


def test_what_is_the_same_in_all_texts_lies_in_the_middle():
    values = torch.full((5,), 3.0)
    edges = cell_edges(values, 3)
    assert edges.tolist() == [1.5, 2.5, 3.5, 4.5] and cells_of(values, edges).tolist() == [1] * 5


def test_another_size_keeps_the_coordinates(tmp_path):
    areas = random_areas(texts=64)
    finer = areas.resized(8)
    assert torch.equal(finer.coordinates, areas.coordinates) and finer.counts(0).shape == (8, 8)
    halved = finer.counts(0).view(4, 2, 4, 2).sum((1, 3))
    assert torch.equal(halved, areas.counts(0))
    finer.save(tmp_path / "areas.safetensors")
    again = Areas.load(tmp_path / "areas.safetensors")
    assert torch.equal(again.cells, finer.cells) and str(again) == str(finer)


def test_unknown_layers_and_categories_name_the_nearest():
    areas = random_areas(categories=("true", "fake"))
    with pytest.raises(LayerError, match="did you mean first"):
        areas.counts("frist")
    with pytest.raises(LayerError, match="layers 0 to 2"):
        areas.counts(3)
    with pytest.raises(ArgumentError, match="did you mean true"):
        areas.counts(0, "ture")
    with pytest.raises(ArgumentError, match="there are true, fake"):
        areas.counts(0, 2)
    with pytest.raises(ArgumentError, match="the reduction to 3 has none"):
        random_areas(components=3).counts(0)


def test_selected_layers_are_those_of_the_whole():
    areas = random_areas()
    part = areas.select("second", 0)
    assert part.layers == ("second", "embedding")
    assert torch.equal(part.counts(0), areas.counts(2)) and torch.equal(part.counts(1), areas.counts(0))
