"""Permutation tests: p-values are uniform where categories do not differ, and small where they do."""

import pytest
import torch
from area_helpers import areas_of, random_areas

from toumei.core.errors import ArgumentError
from toumei.transformers.areas import AreaComparison


def test_p_values_are_uniform_where_categories_do_not_differ():
    rows = []
    for seed in range(40):
        found = random_areas(texts=20, layers=2, seed=seed).compare("a", "b", permutations=9, seed=seed)
        rows.append(torch.cat([found.distance_p_values, found.p_values]))
    values = torch.stack(rows)
    assert (values >= 0.1).all()
    for level in (0.1, 0.2, 0.5):  # no more often than the level, within 4 standard errors
        assert (values[:, 0] <= level).double().mean() <= level + 4 * (level * (1 - level) / 40) ** 0.5
    variances = values[:, 3]  # of degrees, which are seldom equal in two shuffles
    assert abs(float((variances <= 0.5).double().mean()) - 0.5) < 4 * (0.25 / 40) ** 0.5


def test_planted_differences_have_the_smallest_p_value():
    labels = torch.arange(40) % 2
    noise = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise[1] += 4 * labels[:, None]
    found = areas_of(noise, labels).compare(0, 1, permutations=99)
    assert found.distance_p_values[1] == 0.01 and found.distances[1] > 0.8
    assert found.distance_p_values[0] > 0.02
    adjusted, metrics = found.adjusted
    assert (adjusted >= found.distance_p_values).all() and len(metrics) == len(found.metrics)


def test_texts_of_a_group_do_not_count_as_independent():
    # each group is one text eight times over, so that single shuffles find what is not there
    first = random_areas(texts=8, layers=2, seed=1)
    labels, groups = (torch.arange(64) // 8) % 2, torch.arange(64) // 8
    coordinates = first.coordinates.repeat_interleave(8, 1)
    alone = areas_of(coordinates, labels).compare(0, 1, permutations=99)
    whole = areas_of(coordinates, labels, groups=groups).compare(0, 1, permutations=99)
    assert torch.equal(alone.distances, whole.distances)
    assert alone.distance_p_values.max() < 0.02 and whole.distance_p_values.min() > 0.1


def test_the_distance_is_the_share_of_texts_that_would_have_to_move():
    coordinates = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [9.0, 9.0], [0.0, 0.0], [9.0, 9.0], [9.0, 9.0]]])
    found = areas_of(coordinates, [0, 0, 0, 1, 1, 1]).compare("a", "b", permutations=5)
    assert found.distances.tolist() == pytest.approx([1 / 3])


def test_a_seed_is_one_result_and_files_keep_it(tmp_path):
    areas = random_areas()
    first, second = (areas.compare("a", "b", permutations=9, seed=3) for _ in range(2))
    assert torch.equal(first.null_differences, second.null_differences)
    first.save(tmp_path / "comparison.safetensors")
    assert str(AreaComparison.load(tmp_path / "comparison.safetensors")) == str(second)
    assert "density" in str(first) and len(first) == 9


def test_what_cannot_be_compared():
    with pytest.raises(ArgumentError, match="two different categories, got 'a' twice"):
        random_areas().compare("a", 0)
    with pytest.raises(ArgumentError, match="category 'b' has 1 text:"):
        areas_of(torch.rand(1, 5, 2), [0, 0, 0, 0, 1]).compare("a", "b")
    with pytest.raises(ArgumentError, match="category 'b' has 1 group:"):
        areas_of(torch.rand(1, 6, 2), [0, 0, 0, 0, 1, 1], groups=[0, 0, 1, 1, 2, 2]).compare("a", "b")
    with pytest.raises(ArgumentError, match="groups with texts of both 'a' and 'b'"):
        areas_of(torch.rand(1, 4, 2), [0, 0, 1, 1], groups=[0, 1, 1, 2]).compare("a", "b")
