"""Inputs (N,), one number a row: an age, a length, a time step."""

import inspect

import pytest
import torch
from matplotlib import pyplot
from torch import nn

from toumei import attribution as ta
from toumei.attribution import FromData
from toumei.core.errors import ToumeiError


class Bent(nn.Module):
    """Zero at zero, so that all of f(x) is the contribution of the one number."""

    def forward(self, x):
        return torch.relu(3 * x - 1.5)


class Square(nn.Module):
    def forward(self, x):
        return x * x.reshape(-1)[: len(x)].reshape(x.shape)


X = torch.tensor([1.0, 2.0, -3.0, 0.25])
WANTED = Bent()(X)
COMPLETE = [
    ta.IntegratedGradients,
    ta.DeepLift,
    ta.DeepLiftShap,
    ta.ExactShapley,
    ta.KernelShap,
    ta.ShapleySampling,
    ta.PartitionShap,
]
METHODS = [
    one
    for name in ta.__all__
    for one in [getattr(ta, name)]
    if inspect.isclass(one) and issubclass(one, ta.Method) and not inspect.isabstract(one)
]
OF_INPUTS = [
    one for one in METHODS if one is not ta.LRP and inspect.signature(one).parameters["layer"].default is None
]


def baseline_of(method):
    return FromData(torch.zeros(4)) if method in (ta.DeepLiftShap, ta.ExpectedGradients) else None


@pytest.mark.parametrize("method", COMPLETE, ids=lambda one: one.__name__)
def test_the_only_number_gets_the_whole_difference(method):
    result = method(Bent())(X, None, baseline_of(method))
    assert result.values.shape == X.shape and result.gap.shape == X.shape
    assert torch.allclose(result.values, WANTED, atol=0.05)
    column = method(Bent())(
        X[:, None], 0, None if baseline_of(method) is None else FromData(torch.zeros(4, 1))
    )
    assert torch.allclose(column.values[:, 0], result.values, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("method", OF_INPUTS, ids=lambda one: one.__name__)
def test_every_method_takes_one_number_a_row(method, rows, tmp_path):
    options = {"samples": 40} if "samples" in inspect.signature(method).parameters else {}
    result = method(Bent(), **options)(X[:rows], None, baseline_of(method))
    assert result.values.shape == (rows,) and result.sums.shape == (rows,)
    assert len(repr(result)) < 200 and "<p" in result._repr_html_()
    pyplot.close(result.plot().figure)
    result.save(tmp_path / "kept.safetensors")
    assert torch.equal(ta.Attribution.load(tmp_path / "kept.safetensors").values, result.values)
    several = method(Bent(), **options)(X[:rows], [None, lambda out: 2 * out], baseline_of(method))
    assert several.values.shape == (2, rows) and several[1].values.shape == (rows,)
    if method not in (ta.Lime, ta.SmoothGrad, ta.VarGrad):
        assert torch.allclose(several[1].values, 2 * result.values, atol=1e-4)


@pytest.mark.parametrize("method", [one for one in OF_INPUTS if one is not ta.GuidedBackprop])
def test_a_layer_of_one_number_a_row(method):
    class Layered(nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.bent = nn.Linear(2, 1, bias=False), Bent()

        def forward(self, x):
            return self.bent(self.squeezed(x))

        def squeezed(self, x):
            return self.first(self.line(x)[:, 0])

    torch.manual_seed(0)
    net = Layered()
    net.first = nn.Identity()
    options = {"samples": 40} if "samples" in inspect.signature(method).parameters else {}
    result = method(net, layer="first", **options)(3 * torch.randn(6, 2))
    assert result.values.shape == (6,)


def test_smoothed_gradients_have_noise():
    result = ta.SmoothGrad(Square(), absolute=True, samples=30)(X)
    assert torch.allclose(result.values, 2 * X.abs(), rtol=0.2) and (result.standard_error > 0).all()
    column = ta.VarGrad(Square(), samples=30)(X[:, None], lambda out: out[:, 0])
    assert (column.values > 0).all()


class Scaled(nn.Module):
    def forward(self, x, t):
        return x.sum(1) * t


@pytest.mark.parametrize("as_dict", [False, True], ids=["tuple", "dict"])
@pytest.mark.parametrize(
    "method", [ta.ExactShapley, ta.KernelShap, ta.ShapleySampling, ta.IntegratedGradients, ta.DeepLift]
)
def test_one_number_beside_a_table(method, as_dict):
    x, t = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]), torch.tensor([2.0, -4.0])
    result = method(Scaled())({"x": x, "t": t} if as_dict else (x, t))
    first, second = result.values.values() if as_dict else result.values
    assert torch.allclose(first, x * t[:, None] / 2, atol=1e-3)
    assert torch.allclose(second, x.sum(1) * t / 2, atol=1e-3)


@pytest.mark.parametrize("method", OF_INPUTS, ids=lambda one: one.__name__)
def test_every_method_takes_one_number_beside_a_table(method):
    options = {"samples": 40} if "samples" in inspect.signature(method).parameters else {}
    x, t = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]), torch.tensor([2.0, -4.0])
    result = method(Scaled(), **options)((x, t))
    assert [part.shape for part in result.values] == [x.shape, t.shape]


def test_baselines_and_features_of_one_number():
    for given in (0.5, torch.tensor(0.5), torch.full((4,), 0.5), FromData(torch.full((3,), 0.5))):
        result = ta.ExactShapley(Square())(X, None, given)
        assert torch.allclose(result.values, X.square() - 0.25, atol=1e-6)
    for given in (ta.Uniform(), ta.Gaussian(), ta.MaxDistance()):
        assert ta.KernelShap(Square())(X, None, given).values.shape == X.shape
    for given in (ta.Mean(), ta.Blur(), ta.Inpaint(), torch.zeros(3), FromData(torch.zeros(3, 2))):
        with pytest.raises(ToumeiError):
            ta.ExactShapley(Square())(X, None, given)
    together = ta.ExactShapley(Scaled(), features=(torch.zeros(3).long(), torch.tensor(1)))(
        (torch.ones(1, 3), torch.tensor([2.0]))
    )
    assert torch.allclose(together.features, torch.tensor([[3.0, 3.0]]))
    per_row = ta.KernelShap(Scaled(), features=(torch.zeros(1, 3).long(), torch.ones(2).long()))(
        (torch.ones(2, 3), torch.tensor([2.0, 4.0]))
    )
    assert torch.allclose(per_row.features, torch.tensor([[3.0, 3.0], [6.0, 6.0]]))


def test_whole_numbers_one_a_row():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(9, 3)

        def forward(self, x, t):
            return (x * self.embed(t)).sum(1)

    net, x, t = Step(), torch.rand(2, 3), torch.tensor([4, 8])
    result = ta.ExactShapley(net)((x, t), baselines=(0.0, 2))
    assert result.values[1].shape == (2,) and result.gap.abs().max() < 1e-5
    at_layer = ta.IntegratedGradients(net, "embed")((x, t), baselines=(None, 2))
    assert torch.allclose(
        at_layer.sums.float(), (net(x, t) - net(x, torch.tensor([2, 2]))).detach(), atol=1e-4
    )


def test_measures_take_one_number_a_row():
    values = ta.InputXGradient(Bent())(X).values
    assert ta.insertion(Bent(), X, values, steps=1).scores.shape == (4, 2)
    assert ta.deletion(Bent(), X, values, steps=1).scores.shape == (4, 2)
    assert ta.removals(Bent(), X, values, size=1, samples=3).lost.shape == (4, 3)
    assert ta.max_sensitivity(ta.Saliency(Bent()), X, samples=2).shape == (4,)
    net = Bent()
    assert "gap" in repr(ta.compare([ta.Saliency(net), ta.KernelShap(net)], X, steps=1, samples=2))
