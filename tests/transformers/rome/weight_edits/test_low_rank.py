"""The closed form of low-rank edits: exact, minimal, and refused where it has no solution."""

import pytest
import torch

from toumei.core.errors import ArgumentError, NonFiniteError, ShapeError
from toumei.transformers.rome.statistics import SecondMoment
from toumei.transformers.rome.weight_edits.low_rank import LowRank, closed_form

IN, OUT, FACTS = 12, 7, 4


def draw(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def moment():
    keys = draw(200, IN, seed=1) * torch.linspace(0.1, 2, IN, dtype=torch.float64)
    return SecondMoment(keys.T @ keys, 200)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_memit_without_a_ridge_is_exact_and_minimal_in_the_metric(moment):
    keys, residuals = draw(FACTS, IN), draw(FACTS, OUT, seed=3)
    change = closed_form(keys, residuals, moment.whiten(keys)).dense
    assert close(keys @ change.T, residuals)
    other = draw(OUT, IN, seed=5)
    other = other - (other @ keys.T) @ torch.linalg.pinv(keys).T  # changes nothing at the keys
    disturbance = [float(torch.trace(d @ moment.matrix @ d.T)) for d in (change, change + 0.1 * other)]
    assert disturbance[0] < disturbance[1]


def test_factors_have_the_norm_of_their_product():
    change = LowRank(draw(OUT, 2), draw(2, IN, seed=1))
    assert change.norm == pytest.approx(float(change.dense.norm()))
    assert repr(change) == "LowRank(7x12, rank 2)"


def test_the_null_space_is_a_projection_without_the_used_directions(moment):
    projection = moment.project(torch.eye(IN), 0.5)
    assert close(projection @ projection, projection) and close(projection, projection.T)
    assert float(torch.linalg.eigvalsh(projection @ moment.matrix @ projection)[-1]) < 0.5
    with pytest.raises(ArgumentError, match="give a larger threshold"):
        moment.project(torch.eye(IN), 1e-9)


@pytest.mark.parametrize("keys", [torch.zeros(1, IN), torch.ones(2, IN), torch.full((1, IN), torch.nan)])
def test_keys_without_a_solution_are_an_error(keys):
    keys = keys.double()
    with pytest.raises(NonFiniteError, match="no solution|keys has NaN"):
        closed_form(keys, draw(len(keys), OUT), keys)


def test_keys_that_are_given_twice_need_a_ridge():
    keys = draw(1, IN).repeat(2, 1)
    with pytest.raises(NonFiniteError):
        closed_form(keys, draw(2, OUT), keys)
    assert closed_form(keys, draw(2, OUT), keys, ridge=1e-3).dense.isfinite().all()


@pytest.mark.parametrize(
    ("keys", "residuals", "whitened"),
    [
        ((2, IN), (3, OUT), (2, IN)),
        ((2, IN), (2, OUT), (2, OUT)),
        ((IN,), (1, OUT), (IN,)),
        ((2, IN), (0, OUT), (2, IN)),
    ],
)
def test_tensors_that_do_not_fit_are_named(keys, residuals, whitened):
    with pytest.raises(ShapeError):
        closed_form(draw(*keys), draw(*residuals), draw(*whitened))
