"""The editing methods against each paper's own formula, solved densely in float64."""

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.transformers.rome.editing.methods import (
    EDITING_METHODS,
    Keys,
    alphaedit,
    emmet,
    find_method,
    memit,
    r_rome,
    rome,
)
from toumei.transformers.rome.editing.settings import EditSettings
from toumei.transformers.rome.statistics import SecondMoment

IN, OUT, FACTS = 12, 7, 4

SETTINGS = EditSettings(layers=(0,), ridge=30.0, emmet_ridge=0.2, null_threshold=0.5, null_ridge=3.0)


def draw(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def moment():
    keys = draw(200, IN, seed=1) * torch.linspace(0.1, 2, IN, dtype=torch.float64)
    return SecondMoment(keys.T @ keys, 200)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_rome_is_the_papers_outer_product(moment):
    mean, bare, delta = draw(1, IN), draw(1, IN, seed=2), draw(1, OUT, seed=3)
    u = torch.linalg.solve(moment.matrix, mean[0])
    u = u / u.norm()
    wanted = torch.outer(delta[0] / (u @ bare[0]), u)
    change = rome(Keys.of(mean, bare), delta, moment, SETTINGS).dense
    assert close(change, wanted) and close(change @ bare[0], delta[0])


def test_r_rome_is_exact_on_the_averaged_key(moment):
    mean, delta = draw(1, IN), draw(1, OUT, seed=3)
    u = torch.linalg.solve(moment.matrix, mean[0])
    change = r_rome(Keys.of(mean, draw(1, IN, seed=2)), delta, moment, SETTINGS).dense
    assert close(change, torch.outer(delta[0], u) / (u @ mean[0])) and close(change @ mean[0], delta[0])


def test_memit_is_the_papers_ridge_regression(moment):
    keys, residuals = draw(FACTS, IN), draw(FACTS, OUT, seed=3)
    K, R = keys.T, residuals.T
    wanted = R @ K.T @ torch.linalg.inv(SETTINGS.ridge * moment.matrix + K @ K.T)
    assert close(memit(Keys.of(keys), residuals, moment, SETTINGS).dense, wanted)


def test_emmet_is_the_papers_equality_constrained_solution(moment):
    keys, residuals = draw(FACTS, IN), draw(FACTS, OUT, seed=3)
    K, inverse = keys.T, torch.linalg.inv(SETTINGS.ridge * moment.matrix)
    middle = K.T @ inverse @ K + SETTINGS.emmet_ridge * torch.eye(FACTS, dtype=torch.float64)
    wanted = residuals.T @ torch.linalg.inv(middle) @ K.T @ inverse
    assert close(emmet(Keys.of(keys), residuals, moment, SETTINGS).dense, wanted)


def test_emmet_with_one_fact_is_r_rome(moment):
    keys, residuals = Keys.of(draw(1, IN)), draw(1, OUT, seed=3)
    assert close(
        emmet(keys, residuals, moment, SETTINGS).dense, r_rome(keys, residuals, moment, SETTINGS).dense
    )


@pytest.mark.parametrize("earlier", [0, 3])
def test_alphaedit_is_the_papers_projected_solution(moment, earlier):
    keys, residuals, before = draw(FACTS, IN), draw(FACTS, OUT, seed=3), draw(earlier, IN, seed=4)
    values, vectors = torch.linalg.eigh(moment.matrix)
    free = vectors[:, values < SETTINGS.null_threshold]
    P, K, Kp = free @ free.T, keys.T, before.T
    system = P @ (K @ K.T + Kp @ Kp.T) + SETTINGS.null_ridge * torch.eye(IN, dtype=torch.float64)
    wanted = torch.linalg.solve(system, P @ K @ residuals).T
    change = alphaedit(Keys.of(keys, earlier=before), residuals, moment, SETTINGS)
    assert close(change.dense, wanted) and torch.equal(change.keys, keys)


def test_every_method_is_found_by_name_and_others_are_not():
    assert all(find_method(name) is method for name, method in EDITING_METHODS.items())
    with pytest.raises(ArgumentError, match="there are rome, r-rome, memit"):
        find_method("mend")
