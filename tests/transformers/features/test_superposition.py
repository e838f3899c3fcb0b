"""The toy model of superposition against the published polytopes."""

from dataclasses import replace
from itertools import product
from math import cos, pi, sin, sqrt

import pytest
import torch

from toumei.core.errors import ArgumentError, ShapeError
from toumei.transformers.features import (
    feature_dimensionality,
    interference,
    polysemanticity,
    train_superposition,
)


def polygon(corners, height=0.0, turn=0.0):
    return [
        (cos(2 * pi * k / corners + turn), sin(2 * pi * k / corners + turn), height) for k in range(corners)
    ]


SHAPES = {
    "alone": ([(1, 0), (0, 1)], 1),
    "antipodal pair": ([(1,), (-1,)], 1 / 2),
    "triangle": (polygon(3), 2 / 3),
    "pentagon": (polygon(5), 2 / 5),
    "tetrahedron": (
        [corner for corner in product((1, -1), repeat=3) if corner[0] * corner[1] * corner[2] > 0],
        3 / 4,
    ),
    "octahedron": ([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], 1 / 2),
    "cube": (list(product((1, -1), repeat=3)), 3 / 8),
    # a frame is tight, and has these dimensionalities, where squares of heights are a third of all squares
    "square antiprism": (polygon(4, sqrt(1 / 2)) + polygon(4, -sqrt(1 / 2), pi / 4), 3 / 8),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_polytopes_have_their_dimensionality(shape):
    corners, share = SHAPES[shape]
    found = feature_dimensionality(torch.tensor(corners, dtype=torch.float64) * 1.7)
    torch.testing.assert_close(found, torch.full((len(corners),), share, dtype=torch.float64))


@pytest.mark.parametrize(
    ("features", "dimensions", "share"), [(2, 1, 1 / 2), (5, 2, 2 / 5)], ids=["antipodal pair", "pentagon"]
)
def test_sparse_features_form_the_published_polytopes(features, dimensions, share):
    best = train_superposition(features, dimensions, density=0.03, steps=700, batch_size=256, instances=8)[0]
    assert bool(best.represented.all())
    assert best.dimensionalities.tolist() == pytest.approx([share] * features, abs=0.02)


def test_eight_features_in_three_dimensions_form_a_square_antiprism():
    best = train_superposition(8, 3, density=0.03, steps=500, batch_size=256, instances=4)[0]
    assert best.dimensionalities.tolist() == pytest.approx([3 / 8] * 8, abs=0.03)


def test_dense_features_get_a_dimension_each_and_the_rest_is_left_out():
    importances = 0.7 ** torch.arange(5.0)
    options = {"density": 1.0, "importances": importances, "steps": 500, "batch_size": 128}
    best = train_superposition(5, 2, **options, instances=6)[0]
    assert best.represented.tolist() == [True, True, False, False, False]
    assert best.dimensionalities[:2].tolist() == pytest.approx([1, 1], abs=0.05)


def test_instances_are_sorted_and_repeated_by_the_seed():
    options = {"steps": 30, "batch_size": 32, "instances": 3}
    one, again = (train_superposition(4, 2, **options, seed=4) for _ in range(2))
    assert [each.loss for each in one] == sorted(each.loss for each in again)
    assert torch.equal(one[0].directions, again[0].directions)
    number = int(one[0].represented.sum())
    assert one[0].plot().get_title().startswith(f"density 0.05: {number} features in 2 dimensions")
    shares = one[0].directions / one[0].directions.abs().max()
    limits = [replace(one[0], directions=scale * shares).plot().get_xlim() for scale in (0.5, 1.1, 2.0)]
    assert limits[0] == limits[1] != limits[2], "pictures of short directions have one scale"
    train_superposition(4, 3, **options)[0].plot()


def test_interference_and_polysemanticity_are_their_formulas():
    directions = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    for row in range(6):
        unit = directions[row] / directions[row].norm()
        others = sum(float(unit @ directions[other]) ** 2 for other in range(6) if other != row)
        assert float(interference(directions)[row]) == pytest.approx(others, rel=1e-4)
        length = float(directions[row].square().sum())
        assert float(feature_dimensionality(directions)[row]) == pytest.approx(
            length / (length + others), rel=1e-4
        )
    for neuron in range(4):
        weights = directions[:, neuron].tolist()
        expected = sum(w**2 for w in weights) ** 2 / sum(w**4 for w in weights)
        assert float(polysemanticity(directions)[neuron]) == pytest.approx(expected, rel=1e-4)
    shared = torch.zeros(5, 3)
    shared[:3, 0], shared[4, 1] = 2.0, -1.0
    assert polysemanticity(shared).tolist() == [3.0, 1.0, 0.0]
    assert feature_dimensionality(torch.zeros(2, 2)).tolist() == [0, 0]


def test_what_makes_no_sense_is_refused():
    for wrong in (
        {"density": 0.0},
        {"density": 1.5},
        {"importances": torch.ones(3)},
        {"steps": 0},
        {"instances": 0},
    ):
        with pytest.raises(ArgumentError):
            train_superposition(4, 2, **wrong)
    for function in (feature_dimensionality, interference, polysemanticity):
        with pytest.raises(ShapeError):
            function(torch.rand(3))
