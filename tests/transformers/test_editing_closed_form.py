"""The closed form of low-rank editing against each paper's own formula, solved densely in float64."""

import pytest
import torch

from toumei.core.errors import ArgumentError, NonFiniteError, ShapeError
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
from toumei.transformers.rome.editing.settings import EditSettings, settings_for
from toumei.transformers.rome.statistics import IdentityMoment, SecondMoment
from toumei.transformers.rome.weight_edits.low_rank import LowRank, closed_form

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
    with pytest.raises(NonFiniteError, match="no solution"):
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


def test_too_few_keys_for_an_inverse_say_so():
    keys = draw(3, IN)
    with pytest.raises(NonFiniteError, match="over more texts"):
        SecondMoment(keys.T @ keys, 3).whiten(keys)


def test_the_identity_leaves_keys_as_they_are():
    keys = draw(3, IN)
    assert close(IdentityMoment(IN).whiten(keys), keys) and close(
        IdentityMoment(IN).matrix, torch.eye(IN).double()
    )
    with pytest.raises(ArgumentError, match="needs key statistics"):
        IdentityMoment(IN).project(keys, 0.5)


def test_every_method_is_found_by_name_and_others_are_not():
    assert all(find_method(name) is method for name, method in EDITING_METHODS.items())
    with pytest.raises(ArgumentError, match="there are rome, r-rome, memit"):
        find_method("mend")


def test_settings_are_the_papers_where_there_are_some():
    assert settings_for("rome", "gpt2", 48) == EditSettings(layers=(17,))
    memit_xl = settings_for("memit", "gpt2", 48)
    assert (memit_xl.layers, memit_xl.clamp, memit_xl.ridge) == ((13, 14, 15, 16, 17), 0.75, 20000.0)
    assert settings_for("rome", "gpt2", 48, [3], lr=0.1) == EditSettings(layers=(3,), lr=0.1)
    second, third = (settings_for("memit", "llama", 32, vocabulary=size) for size in (32000, 128256))
    assert (second.lr, second.clamp, third.lr, third.clamp) == (0.5, 4.0, 0.1, 0.75)
    assert settings_for("memit", "llama", 32, [1], prefixes=[[2, 3]]).prefixes == ((2, 3),)


@pytest.mark.parametrize(
    ("layers", "given", "message"),
    [
        (None, {}, "give the layer"),
        ([1], {"speed": 1}, "no setting 'speed'"),
        ([1], {"lr": 0}, "lr must be a number above 0"),
        ([1], {"ridge": -1}, "ridge must be a number at least 0"),
        ([1], {"lr": "0.5"}, "lr must be a number above 0, got '0.5'"),
        ([1], {"steps": 2.5}, "steps must be a whole number"),
        ([1], {"clamp": float("nan")}, "clamp must be a number above 0"),
        ([1], {"prefixes": ((3,),)}, "pairs"),
        ([1], {"prefixes": ((0, 5),)}, "pairs"),
        ([1], {"prefixes": 5}, "pairs .* got 5"),
        ([2, 1], {}, "ascending"),
        ([], {}, "ascending"),
    ],
)
def test_settings_that_make_no_sense(layers, given, message):
    with pytest.raises(ArgumentError, match=message):
        settings_for("memit", "bloom", 5, layers, **given)
