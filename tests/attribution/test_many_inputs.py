"""Attributions of many inputs: those of their batches, whatever inputs, targets and baselines are."""

import pandas
import pytest
import torch
from torch import nn

from toumei.attribution import (
    ExpectedGradients,
    FromData,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    attribute_many,
)
from toumei.core.errors import ArgumentError, ShapeError

X = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
INDICES = torch.tensor([0, 1, 2, 0, 1, 2, 0])


class Sum(nn.Module):
    """A network of two inputs."""

    def forward(self, one, two):
        return one * two.sum(1, keepdim=True)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def many(*given, **options):
    return attribute_many(*given, verbose=False, **{"batch_size": 3, **options})


@pytest.mark.parametrize("target", [1, INDICES, [0, INDICES, lambda output: output.sum(1)]])
@pytest.mark.parametrize("baseline", [None, 0.5, X.flip(0), X[0], X[:1], FromData(X)])
def test_contributions_are_those_of_one_call(network, target, baseline):
    method = IntegratedGradients if not isinstance(baseline, FromData) else ExpectedGradients
    configured = method(network, **({"steps": 4} if method is IntegratedGradients else {"samples": 3}))
    found = many(configured, X, target, baseline)
    if method is IntegratedGradients:
        assert torch.allclose(found.values, configured(X, target, baseline).values, atol=1e-6)
    rows = slice(3, 6)
    cut = [one[rows] if one is INDICES else one for one in (target if isinstance(target, list) else [target])]
    cut = cut if isinstance(target, list) else cut[0]
    baseline = baseline[rows] if getattr(baseline, "shape", None) == X.shape else baseline
    assert torch.equal(found[rows].values, configured(X[rows], cut, baseline).values)


@pytest.mark.parametrize("form", [tuple, lambda pair: dict(zip(("one", "two"), pair, strict=True))])
def test_several_inputs_keep_their_structure(form, tmp_path):
    method, pair = IntegratedGradients(Sum(), steps=4), form((X, X.flip(1)))
    baselines = form((X.flip(0), 0.25))
    found = many(method, pair, INDICES, baselines, folder=tmp_path)
    whole, again = method(pair, INDICES, baselines), many(method, pair, INDICES, baselines, folder=tmp_path)
    assert type(found.values) is type(pair) and len(list(tmp_path.glob("*.result"))) == 3
    for name in pair if isinstance(pair, dict) else range(2):
        assert torch.allclose(found.values[name], whole.values[name], atol=1e-6)
        assert torch.equal(found.values[name], again.values[name])


def test_tables_keep_their_names_and_arrays_the_precision_of_the_model(network):
    table = pandas.DataFrame(X.double().numpy(), columns=list("abcd"), index=list("tuvwxyz"))
    found = many(InputXGradient(network), table, "no", class_names=["yes", "no", "maybe"])
    whole = InputXGradient(network)(table, "no", class_names=["yes", "no", "maybe"])
    for name in ("feature_names", "row_names", "names", "method"):
        assert getattr(found, name) == getattr(whole, name)
    assert torch.equal(found.data, whole.data) and torch.allclose(found.values, whole.values)
    assert torch.equal(many(InputXGradient(network), X.double().numpy(), 1).values, found.values)


def test_finished_batches_are_found_and_those_of_another_question_are_not(network, tmp_path):
    def made(method=None, inputs=X, target=1, baseline=0.0):
        many(method or KernelShap(network, samples=20, seed=1), inputs, target, baseline, folder=tmp_path)
        return len(list(tmp_path.glob("*.result")))

    assert made() == 3 and made() == 3
    assert made(inputs=torch.cat([X, X])) == 6  # the first two batches are those before
    assert made(target=INDICES) == 9 and made(baseline=1.0) == 12
    assert made(KernelShap(network, samples=20, seed=2)) == 15
    with torch.no_grad():
        network[0].weight += 1
    assert made() == 18


def test_what_does_not_fit_is_refused_before_the_first_call(network):
    method = InputXGradient(network)
    with pytest.raises(ShapeError, match="3 targets for 7 inputs"):
        many(method, X, INDICES[:3])
    with pytest.raises(ShapeError, match="positive length"):
        many(method, X[:0], 1)
    with pytest.raises(ShapeError, match="2 row_names for 7 inputs"):
        many(method, X, 1, row_names=["a", "b"])
    with pytest.raises(ArgumentError):
        many(method, "a text", 1)
    with pytest.raises(ArgumentError, match="jobs"):
        many(method, X, 1, jobs=0)
