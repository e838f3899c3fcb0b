"""Which heads write and read a direction, on a transformer whose subspaces are known."""

import pytest
import torch
from architectures import build

from toumei.core.errors import ArgumentError, ShapeError
from toumei.models import InductionTransformer
from toumei.transformers.heads.directions import read_strengths, write_strengths
from toumei.transformers.heads.weights import head_weights
from toumei.transformers.model.hooked_model import HookedModel


def unit(model, subspace, place):
    vector = torch.zeros(model.width)
    vector[model.model.subspaces[subspace].start + place] = 3.0  # any length
    return vector


@pytest.fixture
def wired():
    return HookedModel(InductionTransformer(vocabulary=6, positions=16, sharpness=5))


@pytest.mark.parametrize(
    ("subspace", "writers"),
    [("previous", {"0.0"}), ("next", {"1.0"}), ("token", {"1.1"}), ("position", set())],
)
def test_each_subspace_is_written_by_the_head_that_is_wired_to_it(wired, subspace, writers):
    found = write_strengths(wired, unit(wired, subspace, 2))
    assert {name for name, value in found.top(4) if value > 0} == writers
    assert all(value in (0, 1) for _, value in found.top(4))


@pytest.mark.parametrize(
    ("by", "subspace", "readers"),
    [
        ("q", "position", {"0.0", "0.1"}),
        ("k", "previous", {"1.0"}),
        ("k", "token", {"1.1"}),
        ("q", "token", {"1.0", "1.1"}),
        ("v", "token", {"0.0", "1.0", "1.1"}),
    ],
)
def test_each_subspace_is_read_by_the_heads_that_are_wired_to_it(wired, by, subspace, readers):
    found = read_strengths(wired, unit(wired, subspace, 2), by)
    assert {name for name, value in found.top(4) if value > 0} == readers


def test_relative_strengths_are_shares_of_the_weight():
    model = HookedModel(build("llama"))
    direction = torch.randn(model.width, generator=torch.Generator().manual_seed(0))
    weights = head_weights(model, 1, fold_norms=True)
    shares = write_strengths(model, direction, relative=True).values[1]
    expected = (weights.W_O @ direction).norm(dim=-1) / direction.norm() / weights.W_O.flatten(1).norm(dim=-1)
    torch.testing.assert_close(shares, expected)
    basis = torch.eye(model.width)
    all_shares = torch.stack([read_strengths(model, one, "k", relative=True).values[1] for one in basis])
    torch.testing.assert_close(all_shares.square().sum(0), torch.ones(4))


def test_a_direction_is_a_vector_of_the_stream(wired):
    with pytest.raises(ShapeError, match="expected a direction"):
        write_strengths(wired, torch.ones(3))
    with pytest.raises(ArgumentError, match="positive and finite"):
        read_strengths(wired, torch.zeros(wired.width))
