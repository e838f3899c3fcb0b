"""Attributions of many inputs: those of their batches, whatever inputs, targets and baselines are."""

import pandas
import pytest
import torch
from torch import nn

from toumei.attribution import (
    AtLayer,
    DeepLift,
    ExactShapley,
    ExpectedGradients,
    FromData,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
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


class Pair(nn.Module):
    """A network with a layer of two tensors of different shapes."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x):
        steps, (last, _) = self.lstm(x.unflatten(1, (2, 2)))
        return steps.sum(1) * last[0]


def test_baselines_of_a_layer_are_cut_where_they_have_a_row_for_each_input(network, tmp_path):
    count = X[:5]  # as many inputs as the layer has units
    rows, unit = torch.rand(5, 5, generator=torch.Generator().manual_seed(1)), torch.arange(5.0)
    for baseline in (AtLayer(rows), [AtLayer(rows.numpy())], AtLayer(unit), AtLayer(rows[:1]), AtLayer(0.5)):
        found = many(DeepLift(network, layer="1"), count, 1, baseline)
        whole = DeepLift(network, layer="1")(count, 1, baseline)
        assert torch.allclose(found.values, whole.values, atol=1e-6)
        assert torch.allclose(found.baseline_output, whole.baseline_output, atol=1e-6)
    with pytest.raises(ShapeError, match="3 rows of .* for 5 inputs"):
        many(DeepLift(network, layer="1"), count, 1, AtLayer(rows[:3]))
    method, steps, last = (
        IntegratedGradients(Pair(), "lstm", steps=4),
        torch.rand(7, 2, 3),
        torch.rand(7, 1, 3),
    )
    named = {"lstm[0]": AtLayer(steps), "lstm[1][0]": AtLayer(last), "lstm[1][1]": AtLayer(0.0)}
    found, whole = many(method, X, 1, named, folder=tmp_path), method(X, 1, named)
    assert all(torch.allclose(found.values[name], whole.values[name], atol=1e-6) for name in named)
    named["lstm[0]"] = AtLayer(torch.cat([steps[:3], steps[:4]]))  # the first batch is that before
    many(method, X, 1, named, folder=tmp_path)
    assert len(list(tmp_path.glob("*.result"))) == 5


@pytest.mark.parametrize("layer", [None, "1"])
def test_features_are_cut_where_they_differ_by_input(network, layer, tmp_path):
    width = 4 if layer is None else 5
    each = torch.arange(width) // 2 + torch.arange(7)[:, None] % 3  # no batch has all the labels
    for features in (each, [each], each[0], each[:1], lambda tensor: torch.arange(width) // 2):
        method = ExactShapley(network, layer, features=features, interactions=True, verbose=False)
        found, whole = many(method, X, INDICES, batch_size=2, folder=tmp_path), method(X, INDICES)
        for name in ("values", "features", "interactions", "output"):
            assert torch.allclose(getattr(found, name), getattr(whole, name), atol=1e-6), name
    assert method.features is features
    with pytest.raises(ShapeError, match="3 rows of .* for 7 inputs"):
        many(ExactShapley(network, layer, features=each[:3]), X, 1)


def test_pictures_with_other_numbers_of_superpixels_are_one_result():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    pictures = torch.rand(4, 3, 16, 16)
    pictures[2:, :, :, 9:] = 0
    method = Lime(network, samples=100, verbose=False)
    found, whole = many(method, pictures, [0, 1], batch_size=2), method(pictures, [0, 1])
    counts = {many(method, one, 1).features.shape[1] for one in pictures.split(1)}
    assert len(counts) > 1 and found.features.shape == (2, 4, max(counts))
    assert torch.allclose(found.features, whole.features) and torch.allclose(found.values, whole.values)


def test_rows_of_another_number_than_that_of_the_inputs_never_fit_a_batch(network):
    with pytest.raises(ShapeError, match="3 rows of .* for 6 inputs"):
        many(IntegratedGradients(network), X[:6], 1, X[:3])


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
    with pytest.raises(ShapeError, match="row_names has 2 names for 7 inputs"):
        many(method, X, 1, row_names=["a", "b"])
    with pytest.raises(ArgumentError):
        many(method, "a text", 1)
    with pytest.raises(ArgumentError, match="jobs"):
        many(method, X, 1, jobs=0)
