"""A network that draws random numbers, or counts its passes, is noticed, and its draws can be fixed."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import toumei.attribution as attribution
from toumei.attribution import (
    Attribution,
    DeepLift,
    DeepLiftShap,
    ExactShapley,
    ExpectedGradients,
    FromData,
    GradCam,
    GradCamPlusPlus,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerCam,
    LayerConductance,
    Lime,
    Method,
    Occlusion,
    PartitionShap,
    Rise,
    Saliency,
    ShapleySampling,
    SmoothGrad,
    VarGrad,
    deletion,
    infidelity,
    insertion,
    max_sensitivity,
    randomization,
    removals,
)
from toumei.core import hooked, seeded_passes
from toumei.core.errors import ToumeiError
from toumei.misc import hessian_trace, neural_tangent_kernel, perturbation_sharpness, top_eigenvalue

SAYS = "two passes of the same row differ|the first row is another one when it passes alone"


class Drawing(nn.Module):
    """Draws or counts in its forward pass, whatever mode it is in."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last, self.change = nn.Linear(5, 24), nn.Linear(24, 3), change
        self.passes, self.generator = 0, torch.Generator().manual_seed(1)

    def forward(self, x):
        self.passes += 1
        return self.last(self.change(self, F.relu(self.first(x))))


CHANGES = {
    "dropout": lambda net, x: F.dropout(x),
    "noise": lambda net, x: x + 1e-3 * torch.randn_like(x),
    "generator of its own": lambda net, x: x * torch.rand(x.shape, generator=net.generator),
    "numpy": lambda net, x: x * float(np.random.rand()),
    "random": lambda net, x: x * random.random(),
    "counter": lambda net, x: x * (1 + 0.1 * net.passes),
    "every other pass": lambda net, x: x * (1 + net.passes % 2),
}


def drawing(change="dropout"):
    return Drawing(CHANGES[change]).eval(), torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


def pictures():
    class Dropping(nn.Sequential):
        def forward(self, x):
            return F.dropout(super().forward(x))

    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return Dropping(*layers).eval(), torch.rand(2, 3, 8, 8)


METHODS = {
    Saliency: {},
    InputXGradient: {},
    GuidedBackprop: {},
    SmoothGrad: {"samples": 4},
    VarGrad: {"samples": 4},
    IntegratedGradients: {"steps": 4},
    ExpectedGradients: {"samples": 4},
    DeepLiftShap: {"samples": 4},
    LayerConductance: {"layer": "first", "steps": 4},
    ExactShapley: {},
    KernelShap: {},
    ShapleySampling: {"samples": 16},
    PartitionShap: {"samples": 8},
    Lime: {"samples": 20},
    Occlusion: {},
    Rise: {"samples": 20},
}
OF_PICTURES = {GradCam: {}, GradCamPlusPlus: {}, LayerCam: {}, GuidedGradCam: {}}


def test_these_are_all_methods():
    every = {
        one for one in vars(attribution).values() if isinstance(one, type) and issubclass(one, Method)
    } - {Method, DeepLift, attribution.LRP}
    assert every == {*METHODS, *OF_PICTURES}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:contributions of")
def test_every_method_notices(method):
    net, x = drawing("random" if method is DeepLiftShap else "dropout")
    baseline = FromData(torch.randn(6, 5)) if method in (ExpectedGradients, DeepLiftShap) else None
    with pytest.warns(UserWarning, match=SAYS):
        result = method(net, **METHODS[method])(x, 1, baseline)
    assert result.repeat_gap > 0 and "passes differ by" in repr(result)


@pytest.mark.parametrize("method", OF_PICTURES)
def test_maps_notice(method):
    net, x = pictures()
    with pytest.warns(UserWarning, match=SAYS):
        assert method(net, "0")(x, 1).repeat_gap > 0


@pytest.mark.filterwarnings("ignore:contributions of DeepLift")
def test_deep_lift_notices():
    with pytest.raises(ToumeiError, match="no rule for 'dropout' at work"):
        DeepLift(drawing()[0])(torch.randn(3, 5), 1)
    net, x = drawing("random")
    with pytest.warns(UserWarning, match=SAYS):
        assert DeepLift(net)(x, 1).repeat_gap > 0


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_draws_or_counts_is_noticed(change, rows):
    net, x = drawing(change)
    with pytest.warns(UserWarning, match=SAYS):
        result = Saliency(net)(x[:rows], [0, 1])
    assert result.repeat_gap > 0 and result[1].repeat_gap == result.repeat_gap


@pytest.mark.parametrize("layer", ["first", "last"])
def test_draws_before_and_after_a_layer_are_noticed(layer):
    net, x = drawing()
    with pytest.warns(UserWarning, match=SAYS):
        Saliency(net, layer)(x, 1)
    with pytest.warns(UserWarning, match=SAYS):
        KernelShap(net, layer, samples=60)(x, "last:1")


def test_rows_that_depend_on_each_other_are_noticed():
    class Batch(nn.Module):
        def forward(self, x):
            return (x - x.mean(0)) / (1 + x.std(0, correction=0))

    x = torch.randn(4, 5)
    with pytest.warns(UserWarning, match="rows of a batch depend on each other"):
        Occlusion(Batch())(x, 1)


def test_metrics_notice():
    net, x = drawing()
    values = torch.randn(3, 5)
    calls = (
        lambda: insertion(net, x, values, 1, steps=3),
        lambda: deletion(net, x, values, 1, steps=3),
        lambda: removals(net, x, values, 1, samples=4),
        lambda: infidelity(net, x, values, 1, samples=4),
        lambda: max_sensitivity(Saliency(net), x, 1, samples=2),
        lambda: randomization(Saliency(net), x, 1),
    )
    for call in calls:
        with pytest.warns(UserWarning, match=SAYS):
            call()


def test_curvature_notices():
    net, x = drawing()
    given = (net, F.cross_entropy, x, torch.tensor([0, 1, 2]))
    with pytest.warns(UserWarning, match=SAYS):
        perturbation_sharpness(*given, samples=2)
    for function, options in ((hessian_trace, {"samples": 2}), (top_eigenvalue, {"steps": 2})):
        counting = Drawing(CHANGES["counter"]).eval()
        with pytest.warns(UserWarning, match=SAYS):
            function(counting, *given[1:], **options)
    with pytest.warns(UserWarning, match=SAYS):
        neural_tangent_kernel(Drawing(CHANGES["counter"]).eval(), x)


@pytest.mark.parametrize("change", ["dropout", "noise", "numpy", "random"])
@pytest.mark.parametrize("method", [Saliency, Occlusion])
def test_passes_with_a_seed_repeat(change, method, watched):
    net, x = drawing(change)
    state, of_numpy, of_python = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with seeded_passes(watched(net), seed=3) as same, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same is net
        first, second = (method(net, batch_size=1)(x, 1) for _ in range(2))
    assert torch.equal(first.values, second.values) and first.repeat_gap == 0
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == of_python
    assert (np.random.get_state()[1] == of_numpy).all()


def test_seeded_passes_are_those_of_the_seed():
    net, x = drawing()
    torch.manual_seed(9)
    expected = net(x)
    with seeded_passes(net, seed=9):
        assert torch.equal(net(x), expected)
        copied = copy.deepcopy(net)
        nn.init.zeros_(copied.last.weight)
        assert torch.equal(copied(x), copied.last.bias.expand(3, 3))
        with hooked(net, ["first"]) as activations:
            assert torch.equal(net(x), expected)
        assert torch.equal(activations["first"], net.first(x))
        with pytest.raises(RuntimeError):
            net(x[:, :2])
        assert torch.equal(net(x), expected)
        with seeded_passes(net, seed=8):
            assert not torch.equal(net(x), expected)
    assert not torch.equal(net(x), net(x))


def test_networks_that_do_not_draw_are_not_warned_of(tmp_path, small_cnn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Saliency(small_cnn)(torch.rand(5, 3, 12, 9), 1)
        Saliency(small_cnn.double())(1e6 * torch.rand(5, 3, 12, 9).double(), 1)
    small_cnn.float()
    assert result.repeat_gap == 0 and "passes" not in repr(result)
    net, x = drawing()
    with pytest.warns(UserWarning, match=SAYS):
        result = Saliency(net)(x, 1)
    result.save(tmp_path / "drawn.safetensors")
    assert Attribution.load(tmp_path / "drawn.safetensors").repeat_gap == result.repeat_gap
