"""Baseline samples made a batch at a time: their memory, their passes, and their values."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toumei.attribution import (
    AtLayer,
    DeepLiftShap,
    ExpectedGradients,
    FromData,
    Gaussian,
    IntegratedGradients,
    Uniform,
)
from toumei.attribution.base.baseline_samples import BaselineSamples
from toumei.attribution.base.problem_arguments import make_problem
from toumei.attribution.perturbation.masking import Masking
from toumei.core.errors import ArgumentError

METHODS = [ExpectedGradients, DeepLiftShap]


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sizes = [
            tensor.untyped_storage().nbytes() // 4
            for tensor in tree_leaves(made)
            if isinstance(tensor, torch.Tensor)
        ]
        self.size = max(self.size, *sizes, 0)
        return made


class Noting(nn.Module):
    """A small network that notes how many rows pass, with and without gradients."""

    def __init__(self, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(width, 4), nn.Linear(4, 3)
        self.with_gradients, self.without = [], []

    def forward(self, x):
        (self.with_gradients if torch.is_grad_enabled() else self.without).append(len(x))
        return self.last(self.first(x).tanh())


@pytest.fixture
def model(watched):
    return watched(Noting())


@pytest.fixture
def inputs():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def data():
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "baseline",
    [FromData(torch.randn(20, 3000)), Uniform(), Gaussian()],
    ids=lambda baseline: type(baseline).__name__,
)
def test_memory_is_that_of_a_batch(method, baseline):
    inputs, model = torch.randn(6, 3000), Noting(3000)
    with Largest() as largest:
        method(model, samples=40, batch_size=4)(inputs, 1, baseline)
    # no more than the data; all samples would be 40 x 6 x 3000 numbers
    assert largest.size <= 20 * 3000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", [None, "first"])
@pytest.mark.parametrize(
    "baseline", [None, Uniform(-1.0, 1.0), Gaussian(0.5), Gaussian(mean=0.0), "data"], ids=str
)
def test_samples_depend_neither_on_batches_nor_on_other_inputs(method, layer, baseline, model, inputs, data):
    chosen = FromData(data) if baseline == "data" else baseline
    targets = torch.tensor([0, 2, 1, 1])
    results = [
        method(model, layer=layer, samples=9, batch_size=b)(inputs, targets, chosen) for b in (1, 7, 100)
    ]
    alone = [
        method(model, layer=layer, samples=9)(inputs[i : i + 1], t, chosen)
        for i, t in enumerate(targets.tolist())
    ]
    for result in results:
        assert torch.allclose(result.values, torch.cat([one.values for one in alone]), atol=1e-6)
        assert torch.allclose(
            result.baseline_output, torch.cat([one.baseline_output for one in alone]), atol=1e-6
        )


@pytest.mark.parametrize("layer", [None, "first"])
def test_scores_at_baselines_are_the_means_for_each_target(model, inputs, data, layer):
    rows, targets = FromData(data, replace=False), [1, torch.tensor([0, 2, 1, 1]), lambda out: out.sum(1)]
    result = ExpectedGradients(model, layer=layer, samples=10, batch_size=3)(inputs, targets, rows)
    mean = model(data).mean(0).detach()
    assert torch.allclose(result.baseline_output[0], mean[1].expand(4), atol=1e-6)
    assert torch.allclose(result.baseline_output[1], mean[[0, 2, 1, 1]], atol=1e-6)
    assert torch.allclose(result.baseline_output[2], mean.sum().expand(4), atol=1e-6)


@pytest.mark.parametrize(
    "baseline", [None, FromData(torch.randn(10, 6)), torch.randn(4, 6)], ids=["0", "data", "each"]
)
def test_each_different_baseline_is_scored_once(model, inputs, baseline):
    ExpectedGradients(model, samples=50, batch_size=8)(inputs, torch.tensor([0, 2, 1, 1]), baseline)
    assert sum(model.with_gradients) == 4 * 50 and max(model.with_gradients + model.without) <= 8
    # the inputs, and the first of them again
    assert sum(model.without) - 5 <= (
        10 if isinstance(baseline, FromData) else 4 if baseline is not None else 1
    )


def test_scores_with_another_input_that_stays_are_those_of_pairs(data):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Linear(6, 3)

        def forward(self, x, mask):
            return (self.left(x) * mask).sum(1)

    torch.manual_seed(0)
    model, mask = Both(), torch.tensor([[1, 0, 1], [1, 1, 1]])
    given = (torch.randn(2, 6), mask), None, (FromData(data, replace=False), None)
    for layer in (None, "left"):
        result = ExpectedGradients(model, layer, samples=10, batch_size=3)(*given)
        expected = [model(data, row.expand(10, 3)).mean() for row in mask]
        assert torch.allclose(result.baseline_output, torch.stack(expected).detach(), atol=1e-6)


def test_activations_at_shared_samples_are_made_once(model, inputs, data):
    drawn = BaselineSamples(
        make_problem(model, inputs, 1, layer="first"), FromData(data), 5, torch.Generator().manual_seed(0)
    )
    model.without.clear()
    rows, samples = torch.arange(4).repeat(2), torch.tensor([3] * 4 + [1] * 4)
    (made,) = drawn(rows, samples)
    assert sum(model.without) == 2 and torch.equal(made[0], made[3])
    assert torch.allclose(made[4], model.first(data[drawn.numbers[1]])[0].detach(), atol=1e-6)


def test_masking_keeps_a_shared_sample_once(model, inputs, data):
    masking = Masking(make_problem(model, inputs, 1), FromData(data), baseline_samples=7)
    assert masking._absent[0].shape == (7, 4, 6)
    assert masking._absent[0].untyped_storage().nbytes() == 7 * 6 * 4


@pytest.mark.parametrize(
    "number", [0.5, torch.full((4,), 0.5), torch.full((4, 4), 0.5).numpy()], ids=["0", "1", "2"]
)
def test_a_baseline_at_the_layer_is_whatever_stands_for_one(model, inputs, number):
    result = IntegratedGradients(model, "first")(inputs, 1, AtLayer(number))
    assert torch.allclose(
        result.baseline_output, model.last(torch.full((4,), 0.5).tanh())[1].detach().expand(4)
    )
    drawn = ExpectedGradients(model, "first", samples=5)(inputs, 1, AtLayer(Uniform()))
    assert drawn.values.shape == (4, 4) and drawn.standard_error.min() > 0
    with pytest.raises(ArgumentError, match="a baseline is a number"):
        AtLayer("black")


def test_dictionaries_name_the_inputs_that_they_are_for(data):
    class Named(nn.Module):
        def forward(self, first, second):
            return (first * second).sum(1)

    inputs = {"first": data, "second": data + 1}
    result = IntegratedGradients(Named())(inputs, baselines={"second": 1.0})
    assert torch.allclose(result.values["first"], data * (data + 2) / 2, atol=1e-4)  # from 0 and 1
    with pytest.raises(
        ArgumentError, match=r"baselines for \['third'\], the inputs have \['first', 'second'\]"
    ):
        IntegratedGradients(Named())(inputs, baselines={"third": 1.0})
    with pytest.raises(ArgumentError, match="the inputs have no names"):
        IntegratedGradients(Named())((data, data), baselines={"first": 1.0})
