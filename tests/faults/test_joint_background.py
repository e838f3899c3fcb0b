"""Rows of the data of several inputs belong together, in every method that takes distributions."""

import pytest
import torch
from torch import nn

from toumei import attribution as ta
from toumei.attribution import AtLayer, FromData
from toumei.core.errors import ArgumentError, ShapeError
from toumei.misc import CircuitDetector


class Product(nn.Module):
    def forward(self, a, b):
        return a * b


ROWS = torch.tensor([[4.0], [-2.0], [0.5], [-0.25], [1.0]])
OTHERS = 2 / ROWS  # a * b is 2 in every row, so the mean of f over rows is 2 however rows are drawn
GIVEN = torch.tensor([[3.0], [1.0]]), torch.tensor([[5.0], [-1.0]])


def as_given(tensors, as_dict):
    return {"a": tensors[0], "b": tensors[1]} if as_dict else tuple(tensors)


@pytest.fixture(params=[False, True], ids=["tuple", "dict"])
def as_dict(request):
    return request.param


METHODS = {
    ta.ExactShapley: {"baseline_samples": 5},
    ta.KernelShap: {"baseline_samples": 5},
    ta.ShapleySampling: {"baseline_samples": 5},
    ta.PartitionShap: {"baseline_samples": 5},
    ta.Lime: {"baseline_samples": 5},
    ta.DeepLiftShap: {"samples": 5},
    ta.ExpectedGradients: {"samples": 600},
}


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__)
def test_the_mean_over_baselines_is_that_of_rows(method, replace, as_dict):
    rows = as_given((FromData(ROWS, replace=replace), FromData(OTHERS, replace=replace)), as_dict)
    for seed in (0, 1):
        result = method(Product(), **METHODS[method], seed=seed)(as_given(GIVEN, as_dict), 0, rows)
        assert torch.allclose(result.baseline_output, torch.full((2,), 2.0), atol=1e-4)
        if result.complete:
            slack = 0.6 if method is ta.ExpectedGradients else 1e-3
            assert (result.sums - torch.tensor([13.0, -3.0])).abs().max() < slack


def test_shapley_values_by_hand(as_dict):
    rows = as_given((FromData(ROWS, replace=False), FromData(OTHERS, replace=False)), as_dict)
    result = ta.ExactShapley(Product(), baseline_samples=5)(as_given(GIVEN, as_dict), 0, rows)
    alone = GIVEN[0][:, 0] * OTHERS.mean(), GIVEN[1][:, 0] * ROWS.mean()
    both = (GIVEN[0] * GIVEN[1])[:, 0]
    first, second = (values[:, 0] for values in (result.values.values() if as_dict else result.values))
    assert torch.allclose(first, (alone[0] - 2 + both - alone[1]) / 2, atol=1e-4)
    assert torch.allclose(second, (alone[1] - 2 + both - alone[0]) / 2, atol=1e-4)


class SeenTogether(nn.Module):
    """Notes rows in which neither input is the one that was given."""

    def __init__(self):
        super().__init__()
        self.pairs = set()

    def forward(self, a, b):
        hidden = (a != 3) & (b != 5)
        self.pairs |= set(zip(a[hidden].tolist(), b[hidden].tolist(), strict=True))
        return a + b


@pytest.mark.parametrize(
    "method", [ta.Occlusion, ta.Rise, ta.KernelShap, ta.Lime, ta.PartitionShap, ta.ShapleySampling]
)
def test_no_baseline_mixes_two_rows(method):
    net = SeenTogether()
    options = {"samples": 60} if method in (ta.Rise, ta.Lime) else {}
    if method is ta.Occlusion:
        options = {"features": (torch.zeros(1).long(), torch.zeros(1).long())}
    inputs = tuple(given[:1] for given in GIVEN)
    method(net, baseline_samples=8, **options)(inputs, 0, (FromData(ROWS), FromData(OTHERS)))
    assert net.pairs and net.pairs <= set(
        zip(ROWS.flatten().tolist(), OTHERS.flatten().tolist(), strict=True)
    )


def test_rows_are_joint_beside_other_baselines_and_noise(as_dict):
    class Three(nn.Module):
        def forward(self, a, b, c):
            return a * b + 0 * c

    data = FromData(ROWS, replace=False), FromData(OTHERS, replace=False)
    names = ("a", "b", "c")
    for third in (0.5, None, ta.Uniform(), ta.Gaussian(), FromData(torch.ones(1, 1))):
        inputs, rows = (*GIVEN, GIVEN[0]), (*data, third)
        if as_dict:
            inputs, rows = dict(zip(names, inputs, strict=True)), dict(zip(names, rows, strict=True))
        result = ta.DeepLiftShap(Three(), samples=5)(inputs, 0, rows)
        assert torch.allclose(result.baseline_output, torch.full((2,), 2.0), atol=1e-4)


def test_whole_numbers_and_numbers_have_the_same_row():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding.from_pretrained(ROWS)

        def forward(self, category, number):
            return self.embed(category) * number

    given = torch.tensor([1, 0]), torch.tensor([[5.0], [-1.0]])
    rows = FromData(torch.arange(5), replace=False), FromData(OTHERS, replace=False)
    result = ta.ExactShapley(Table(), baseline_samples=5)(given, 0, rows)
    assert torch.allclose(result.baseline_output, torch.full((2,), 2.0), atol=1e-4)
    at_layer = ta.DeepLiftShap(Table(), "embed", samples=5)(given, 0, rows)
    assert torch.allclose(at_layer.baseline_output, ROWS.mean() * given[1][:, 0], atol=1e-5)


def test_rows_of_the_tensors_of_layers_are_joint():
    class Layered(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Identity(), nn.Identity()

        def forward(self, a, b):
            return self.a(a) * self.b(b)

    rows = {"a": AtLayer(FromData(ROWS, replace=False)), "b": AtLayer(FromData(OTHERS, replace=False))}
    result = ta.ExactShapley(Layered(), ["a", "b"], baseline_samples=5)(GIVEN, 0, rows)
    assert torch.allclose(result.baseline_output, torch.full((2,), 2.0), atol=1e-4)
    of_inputs = FromData(ROWS, replace=False), FromData(OTHERS, replace=False)
    result = ta.DeepLiftShap(Layered(), ["a", "b"], samples=5)(GIVEN, 0, of_inputs)
    assert torch.allclose(result.baseline_output, torch.full((2,), 2.0), atol=1e-4)


@pytest.mark.parametrize("given", [FromData(ROWS), ta.Gaussian(), ta.Uniform()])
def test_a_circuit_has_one_baseline_and_no_distribution(given):
    """A closed node has one value; rows that were drawn for each input alone would not belong together."""

    class Layered(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = Product()

        def forward(self, a, b):
            return self.both(a, b)

    detector = CircuitDetector(Layered(), ["both"])
    for baselines in ((given, 1.0), (1.0, given), AtLayer(given)):
        with pytest.raises(ArgumentError, match=f"{type(given).__name__} is a distribution: give rows"):
            detector(GIVEN, baselines, 0)
    rows = (ROWS[:2], OTHERS[:2])
    torch.testing.assert_close(detector(GIVEN, rows, 0).empty, torch.full((2,), 2.0))


def test_batches_of_many_inputs_have_joint_rows():
    rows = FromData(ROWS, replace=False), FromData(OTHERS, replace=False)
    method = ta.ExactShapley(Product(), baseline_samples=5)
    result = ta.attribute_many(method, GIVEN, 0, rows, batch_size=1, verbose=False)
    assert torch.allclose(result.baseline_output, torch.full((2,), 2.0), atol=1e-4)


def test_data_of_different_lengths_is_refused():
    for method in (ta.ExactShapley, ta.DeepLiftShap, ta.ExpectedGradients, ta.Occlusion):
        with pytest.raises(ShapeError, match=r"belong together, got FromData of \[3, 5\] rows"):
            method(Product())(GIVEN, 0, (FromData(ROWS), FromData(OTHERS[:3])))


def test_rows_are_used_equally_often_without_replacement():
    drawn = FromData(ROWS, replace=False).numbers(12)
    assert sorted(drawn.bincount(minlength=5).tolist()) == [2, 2, 2, 3, 3]
    result = ta.ExpectedGradients(Product(), samples=25)(GIVEN, 0, (FromData(ROWS, replace=False), 1.0))
    assert torch.allclose(result.baseline_output, ROWS.mean().expand(2), atol=1e-6)
