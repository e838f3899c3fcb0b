"""What is said of errors is true: standard errors, NaN, and the reasons of gaps."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.attribution import (
    DeepLift,
    DeepLiftShap,
    ExactShapley,
    ExpectedGradients,
    FromData,
    GradCam,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerConductance,
    Lime,
    Occlusion,
    PartitionShap,
    Rise,
    Saliency,
    ShapleySampling,
    SmoothGrad,
    balance_inside,
    deletion,
    infidelity,
    insertion,
    max_sensitivity,
    pointing_game,
    randomization,
    relevance_mass_accuracy,
    removals,
)
from toumei.attribution.metrics.sanity_checks import spearman
from toumei.core.errors import ArgumentError, NonFiniteError
from toumei.misc import (
    LesionTest,
    WeightGraph,
    correlation_graph,
    effective_rank,
    hessian_trace,
    kernel_distance,
    lesion_test,
    neural_tangent_kernel,
    participation_ratio,
    perturbation_sharpness,
    top_eigenvalue,
)
from toumei.models import SimpleMLP

NAN = float("nan")
METHODS = {
    Saliency: {},
    InputXGradient: {},
    GuidedBackprop: {},
    SmoothGrad: {"samples": 4},
    IntegratedGradients: {},
    ExpectedGradients: {"samples": 4},
    DeepLift: {},
    DeepLiftShap: {"samples": 4},
    LayerConductance: {"layer": "0"},
    ExactShapley: {},
    KernelShap: {},
    ShapleySampling: {"samples": 16},
    PartitionShap: {},
    Lime: {"samples": 20},
    Occlusion: {},
    Rise: {"samples": 20},
}


def bent(width=5):
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Linear(width, 20), nn.Tanh(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 2)
    ).eval()
    for layer in (0, 2):
        net[layer].weight.data.mul_(4)
    return net, torch.randn(3, width, generator=torch.Generator().manual_seed(6))


# standard errors


@pytest.mark.parametrize("samples", [20, 22, 26, 40, 120])
def test_standard_errors_of_kernel_shap_are_of_the_size_of_its_errors(samples):
    """Over seeds, the root of the mean square: at least half of the error, at most thrice it, or unknown."""
    net, x = bent(10)
    exact = ExactShapley(net)(x, 1).features
    errors, told = [], []
    for seed in range(16):
        result = KernelShap(net, samples=samples, seed=seed)(x, 1)
        errors.append((result.features - exact).square().mean())
        if result.standard_error is not None:
            told.append(result.standard_error.square().mean())
    true = torch.stack(errors).mean().sqrt()
    assert true > 1e-3
    if samples <= 22:  # no coalition was drawn, or one pair of them
        assert not told
    else:
        assert true / 2 < torch.stack(told).mean().sqrt() < 3 * true


def test_a_standard_error_of_0_is_that_of_all_coalitions():
    net, x = bent()
    result = KernelShap(net)(x, 1)
    assert result.standard_error.abs().max() == 0
    assert torch.allclose(result.features, ExactShapley(net)(x, 1).features, atol=1e-5)
    single = KernelShap(nn.Linear(1, 1))(torch.ones(2, 1))
    assert single.standard_error.abs().max() == 0


def test_inputs_with_other_numbers_of_features_have_unknown_errors_apart():
    net, x = bent(8)
    few, many = torch.arange(8) // 2, torch.arange(8)
    result = KernelShap(net, samples=16, features=torch.stack([few, many, many]))(x, 1)
    assert result.standard_error[0].abs().max() == 0  # all 14 coalitions of 4 features
    assert result.standard_error[1:].isnan().all()


def test_a_position_that_one_mask_shows_has_no_known_error():
    net, x = bent()
    result = Rise(net, samples=3, seed=1)(x, 1)
    shown = (torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) < 0.5).sum(0)
    assert (shown < 2).any() and torch.equal(result.standard_error[0].isinf(), shown < 2)
    assert not Rise(net, samples=60)(x, 1).standard_error.isinf().any()


# NaN


@pytest.mark.parametrize("method", METHODS)
def test_nan_in_an_input_is_named(method):
    net, x = bent()
    x[1, 2] = NAN
    baseline = FromData(torch.randn(6, 5)) if method in (ExpectedGradients, DeepLiftShap) else None
    with pytest.raises(NonFiniteError, match=r"inputs have NaN, and their scores are not finite.*\[1\]"):
        method(net, **METHODS[method])(x, 1, baseline)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_says_nan_is_named(method):
    net, x = bent()
    net[4].bias.data[1] = NAN
    baseline = FromData(torch.randn(6, 5)) if method in (ExpectedGradients, DeepLiftShap) else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NonFiniteError, match="scores of the inputs are not finite in 3 of 3 rows"):
            method(net, **METHODS[method])(x, 1, baseline)
        assert method(net, **METHODS[method])(x, 0, baseline).values.isfinite().all()


def test_nan_in_pictures_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 3, 8, 8)
    images[0, 0, 4, 4] = NAN
    for method in (
        GradCam(model, "0"),
        Occlusion(model),
        KernelShap(model, samples=200),
        Rise(model, samples=8),
    ):
        with pytest.raises(NonFiniteError, match="inputs have NaN"):
            method(images, 1)


def test_nan_in_a_baseline_is_named():
    net, x = bent()
    for method in (IntegratedGradients, DeepLift, ExactShapley, KernelShap, PartitionShap):
        with pytest.raises(NonFiniteError, match="scores of (the baselines|inputs with all features hidden)"):
            method(net)(x, 1, torch.full((5,), NAN))


def test_nan_may_stand_for_what_is_missing():
    """A network that replaces NaN has scores, and contributions to the numbers that are there."""

    class Filling(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = bent()[0]

        def forward(self, x):
            return self.net(x.nan_to_num(0.25))

    _, x = bent()
    filled, net = x.clone(), Filling().eval()
    x[1, 2], filled[1, 2] = NAN, 0.25
    for method in (Occlusion, ExactShapley):
        result, expected = method(net)(x, 1), method(net)(filled, 1)
        assert torch.allclose(result.values, expected.values, atol=1e-5)


def test_contributions_that_are_infinite_are_named():
    class Root(nn.Module):
        def forward(self, x):
            return x.abs().sqrt().sum(1)

    x = torch.tensor([[1.0, 4.0], [0.0, 1.0]])
    with pytest.warns(
        UserWarning, match=r"Saliency are not finite in 1 of 2 rows, \[1\], although the scores"
    ):
        result = Saliency(Root())(x)
    assert torch.allclose(result.values[0], torch.tensor([0.5, 0.25]))


def test_measures_do_not_hide_nan():
    net, x = bent()
    values = torch.randn(3, 5)
    values[0, 1] = NAN
    for measure in (insertion, deletion, removals, infidelity):
        with pytest.raises(NonFiniteError, match=r"contributions are not finite in 1 of 3 rows, \[0\]"):
            measure(net, x, values, 1)
        with pytest.raises(NonFiniteError, match="inputs have NaN"):
            measure(net, x * NAN, torch.randn(3, 5), 1)
    maps, masks = torch.rand(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    maps[1, 0, 0, 0] = NAN
    for measure in (pointing_game, relevance_mass_accuracy, balance_inside):
        with pytest.raises(NonFiniteError, match=r"\[1\]"):
            measure(maps, masks)
    relu = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    for call in (
        lambda: max_sensitivity(Saliency(relu), x * NAN, 1, samples=2),
        lambda: randomization(Saliency(relu), x * NAN, 1),
    ):
        with pytest.raises(NonFiniteError):
            call()
    rows = torch.tensor([[1.0, 2.0, 3.0], [1.0, NAN, 3.0]])
    found = spearman(rows, torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]))
    assert found[0] == 1 and found[1].isnan()


@pytest.mark.parametrize("bad", ["inputs", "targets", "weights"])
def test_curvature_does_not_hide_nan(bad):
    torch.manual_seed(0)
    net, x, y = (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)),
        torch.randn(8, 4),
        torch.randn(8, 1),
    )
    tensor = {"inputs": x, "targets": y, "weights": net[0].weight.data}[bad]
    tensor[0] = NAN
    for function in (perturbation_sharpness, hessian_trace, top_eigenvalue):
        with pytest.raises(NonFiniteError, match="the inputs, the targets or the weights have NaN"):
            function(net, F.mse_loss, x, y)
    if bad != "targets":
        with pytest.raises(NonFiniteError):
            neural_tangent_kernel(net, x)


def test_curvature_that_there_is_not_is_named():
    net, x, y = nn.Linear(2, 1, bias=False), torch.ones(1, 2), torch.zeros(1, 1)
    net.weight.data.zero_()

    def root(output, target):
        return (output - target).abs().sqrt().sum()

    for function in (hessian_trace, top_eigenvalue):
        with pytest.raises(NonFiniteError, match="no finite second derivative"):
            function(net, root, x, y)
    with pytest.raises(NonFiniteError, match="losses under noise are not finite.*smaller sigmas"):
        perturbation_sharpness(net, lambda output, _: output.mul(1e38).exp().sum(), x, y, [0.0, 5.0])


def test_kernels_and_ranks_do_not_hide_nan():
    for function in (effective_rank, participation_ratio):
        with pytest.raises(NonFiniteError, match="activations are not finite"):
            function(torch.full((3, 4), NAN))
    with pytest.raises(NonFiniteError):
        kernel_distance(torch.eye(3), torch.full((3, 3), NAN))
    with pytest.raises(ArgumentError, match="a kernel of zeros"):
        kernel_distance(torch.eye(3), torch.zeros(3, 3))


def test_modules_do_not_hide_nan(tmp_path):
    net, x = SimpleMLP(4, 6, 6, 2), torch.randn(20, 4)
    graph = WeightGraph.from_model(net)
    labels = torch.arange(len(graph)) % 2
    bad = x.clone()
    bad[3] = NAN
    with pytest.raises(NonFiniteError, match="outputs of the network are not finite in 1 of 20 rows"):
        lesion_test(net, graph, labels, bad, torch.zeros(20).long(), samples=2)
    with pytest.raises(NonFiniteError, match="activations of 'fc0' are not finite in 1 of 20 rows"):
        correlation_graph(net, ["fc0", "fc1"], bad)
    one = lesion_test(net, graph, labels, x, torch.zeros(20).long(), samples=1)
    assert math.isnan(one.lesions[0].random_deviation)
    one.save(tmp_path / "one.safetensors")
    assert math.isnan(LesionTest.load(tmp_path / "one.safetensors").lesions[0].random_deviation)


# reasons of gaps


def large():
    """Sums of positive numbers, whose softmax is a difference that float32 does not hold."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 6), nn.Softmax(1)
    )
    with torch.no_grad():
        for layer in (net[0], net[2], net[4]):
            layer.weight.fill_(1.0)
            layer.weight[0, 0] += 1e-6
    return net.eval(), torch.arange(60.0).reshape(2, 30)


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, " ".join(str(one.message) for one in caught)


@pytest.mark.parametrize(
    "method",
    [
        DeepLift,
        lambda net: IntegratedGradients(net, max_steps=32),
        lambda net: LayerConductance(net, "1", max_steps=32),
    ],
)
def test_rounding_is_named_as_such(method):
    net, x = large()
    result, words = said(lambda: method(net)(x, 0))
    wide = result.gap.abs() > 1e-2 * (result.output - result.baseline_output).abs().clamp(min=1e-3)
    assert not wide.any() or "it is rounding" in words
    for untrue in ("without a gradient", "random numbers", "raise max_steps", "bypasses"):
        assert untrue not in words
    exact, words = said(lambda: method(net.double())(x.double(), 0))
    assert not words and exact.gap.abs().max() < 1e-4


def test_sums_that_cancel_are_rounding():
    class Shifted(nn.Module):
        def forward(self, x):
            return (x + 1e7).tanh().sum(1) + ((x.square() + 3e7) - 3e7).sum(1)

    x = torch.linspace(0.1, 0.9, 4)[None]
    for method in (DeepLift, IntegratedGradients):
        result, words = said(lambda method=method: method(Shifted())(x))
        assert result.gap.abs().max() > 0.1 and "it is rounding" in words
        assert not said(lambda method=method: method(Shifted())(x.double()))[1]


def test_other_reasons_are_named_as_before():
    class Detached(nn.Module):
        def forward(self, x):
            return (x * x.detach().tanh()).sum(1)

    class Jump(nn.Module):
        def forward(self, x):
            return x.sum(1) + (x > 0.5).float().sum(1)

    x = torch.rand(2, 3) + 0.6
    assert "without a gradient" in said(lambda: DeepLift(Detached())(x, None, torch.rand(3)))[1]
    assert "raise max_steps" in said(lambda: IntegratedGradients(Jump(), max_steps=64)(x))[1]
    residual = Residual().eval()
    assert "bypasses it" in said(lambda: LayerConductance(residual, "layer")(torch.randn(2, 4), 1))[1]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x + self.layer(x).tanh())


def test_a_network_that_takes_no_float64_leaves_the_reason_open():
    class Single(nn.Module):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return (x * x.detach().tanh()).sum(1)

    words = said(lambda: DeepLift(Single())(torch.rand(2, 3), None, torch.rand(3)))[1]
    assert "without a gradient" in words and "in double() would tell" in words
