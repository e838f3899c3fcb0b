"""Guided backpropagation finds rectifiers under any name, and names what may be one that it did not find."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.attribution import GuidedBackprop, GuidedGradCam, Saliency


class Rectified(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last, self.function = nn.Linear(4, 12), nn.Linear(12, 3), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))

    def guided(self, x, target):
        """The gradient that stops where it is negative, and where the rectifier is off."""
        passing = self.last.weight[target].relu() * (self.first(x) > 0)
        return (passing @ self.first.weight).detach()


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


@torch.jit.ignore
def scripted():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(Inner(), torch.ones(2, 12))


def overwritten(x):
    y = x * 1
    y[y < 0] = 0
    return y


FOUND = {
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum with 0 in front": lambda x: torch.maximum(torch.tensor(0.0), x),
    "max of two": lambda x: torch.max(x, torch.zeros(1)),
    "fmax": lambda x: torch.fmax(x, torch.zeros(12)),
    "relu in place": lambda x: F.relu_(x * 1),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1e6),
}
MISSED = {
    "mul": lambda x: x * (x > 0),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(~x.gt(0.0), 0),
    "setitem": overwritten,
    "OwnReLU": OwnReLU.apply,
    "ReluBackward0": scripted(),
    "abs": lambda x: (x + x.abs()) / 2,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", FOUND)
def test_rectifiers_are_found(name):
    net, x = Rectified(FOUND[name]).eval(), torch.randn(5, 4)
    result = GuidedBackprop(net)(x, 1).values
    assert torch.allclose(result, net.guided(x, 1), atol=1e-6)


@pytest.mark.parametrize("name", MISSED)
def test_what_may_be_a_rectifier_is_named(name):
    net, x = Rectified(MISSED[name]).eval(), torch.randn(5, 4)
    with pytest.warns(UserWarning, match=f"guided backpropagation found no ReLU, and passes '{name}'"):
        result = GuidedBackprop(net)(x, 1).values
    assert torch.allclose(result, Saliency(net, absolute=False)(x, 1).values)


def test_one_of_two_is_named():
    net, x = Rectified(lambda x: F.relu(x) + x * (x > 0).float()).eval(), torch.randn(5, 4)
    with pytest.warns(UserWarning, match="guided backpropagation passes 'mul' with a comparison with 0"):
        GuidedBackprop(net)(x, 1)


def test_a_picture_of_guided_grad_cam_names_them_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.warns(UserWarning, match="passes 'tanh' by the plain gradient"):
        GuidedGradCam(model, "0")(torch.rand(2, 3, 8, 8), 1)


@pytest.mark.parametrize(
    "function",
    [
        nn.Identity(),
        lambda x: x.masked_fill(torch.arange(12) > 5, 0),
        lambda x: F.relu(x).max(0, keepdim=True).values,
        lambda x: F.relu(x) * torch.sigmoid(x),
    ],
)
def test_other_functions_are_not_named(function):
    """A linear network, a fixed mask, a maximum over an axis, and a gate beside a ReLU."""
    net = Rectified(function).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GuidedBackprop(net)(torch.randn(1, 4), 1)
