"""Gradients, as they are, times the input, smoothed and guided."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.attribution import (
    DeepLift,
    DeepLiftShap,
    ExpectedGradients,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
    VarGrad,
)
from toumei.core.errors import ArgumentError

METHODS = [Saliency, InputXGradient, GuidedBackprop, SmoothGrad, VarGrad]
FROM_BASELINES = [IntegratedGradients, ExpectedGradients, DeepLift, DeepLiftShap]


class Functional(nn.Module):
    """One ReLU module used twice, a functional one, one in place, a method, and a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        hidden = self.relu(self.first(x))
        branch = F.relu(self.second(hidden), inplace=True)
        hidden = self.relu(hidden - branch)
        other = self.second(hidden)
        other.relu_()
        return self.third(hidden.relu() + other)


@pytest.fixture
def mlp(watched):
    torch.manual_seed(0)
    return watched(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)))


@pytest.fixture
def inputs():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_the_gradient_of_a_linear_map_is_its_weights(inputs):
    linear = nn.Linear(6, 3)
    result = Saliency(linear, absolute=False)(inputs, target=1)
    assert torch.equal(result.values, linear.weight[1].detach().expand(5, 6))
    assert torch.equal(Saliency(linear)(inputs, target=1).values, result.values.abs())


def test_input_x_gradient_adds_up_without_biases(inputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    result = InputXGradient(model)(inputs, target=1)
    assert torch.allclose(result.sums.float(), model(inputs)[:, 1], atol=1e-6)


@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "GuidedBackprop"])
@pytest.mark.filterwarnings("ignore::UserWarning:captum")
def test_the_same_as_captum(small_cnn, name):
    for module in small_cnn:
        if isinstance(module, nn.ReLU):
            module.inplace = False  # captum's hooks need it
    images = torch.randn(2, 3, 9, 7)
    values = globals()[name](small_cnn)(images, target=2).values
    theirs = getattr(captum.attr, name)(small_cnn.eval()).attribute(images.clone().requires_grad_(), target=2)
    small_cnn.train()
    for module in small_cnn:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    assert torch.allclose(values, theirs.detach(), atol=1e-6)


def test_guided_gradients_pass_every_kind_of_relu(inputs):
    torch.manual_seed(0)
    model = Functional()
    result = GuidedBackprop(model)(inputs, target=2)
    expected = []
    for x in inputs:
        w1, w2, w3 = (layer.weight.detach() for layer in (model.first, model.second, model.third))
        a = model.first(x)
        h1 = a.relu()
        b = model.second(h1)
        c = h1 - b.relu()
        h2 = c.relu()
        d = model.second(h2)
        out = w3[2]
        at_h2 = out.clamp(min=0) * (h2 > 0) + (out.clamp(min=0) * (d > 0)) @ w2
        at_c = at_h2.clamp(min=0) * (c > 0)
        at_h1 = at_c + ((-at_c).clamp(min=0) * (b > 0)) @ w2
        expected.append((at_h1.clamp(min=0) * (a > 0)) @ w1)
    assert torch.allclose(result.values, torch.stack(expected), atol=1e-6)


def test_guided_gradients_of_smooth_activations_are_not_the_plain_ones(inputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 1))
    x = inputs.clone().requires_grad_()
    hidden = model[0](x)
    positive = model[2].weight.clamp(min=0)
    (slopes,) = torch.autograd.grad(F.gelu(hidden).sum(), hidden, retain_graph=True)
    expected = (positive * slopes) @ model[0].weight
    assert torch.allclose(GuidedBackprop(model)(inputs).values, expected.detach(), atol=1e-6)


RELUS = {
    "torch": torch.relu,
    "by name": lambda x: torch.relu(input=x),
    "clamp": lambda x: x.clamp(min=0),
    "clip": lambda x: torch.clip(x, 0),
    "clip in place": lambda x: (x * 1).clip_(0.0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "hardtanh": nn.Hardtanh(0, 1e9),
    "operator": torch.ops.aten.relu,
}


@pytest.mark.parametrize("name", RELUS)
def test_guided_gradients_pass_a_relu_under_any_name(inputs, name):
    torch.manual_seed(0)

    class Called(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.first, self.second, self.function = *layers, function

        def forward(self, x):
            return self.second(self.function(self.first(x)))

    layers = nn.Linear(6, 8), nn.Linear(8, 2)
    result = GuidedBackprop(Called(RELUS[name]))(inputs, target=1).values
    assert torch.equal(result, GuidedBackprop(Called(F.relu))(inputs, target=1).values)
    assert not torch.equal(result, Saliency(Called(F.relu), absolute=False)(inputs, target=1).values)


def test_guided_gradients_pass_relu6(inputs):
    torch.manual_seed(0)
    linear = nn.Linear(6, 6)
    with torch.no_grad():
        linear.weight.copy_(-torch.eye(6))
    assert not GuidedBackprop(nn.Sequential(nn.ReLU6(), linear))(inputs, target=2).values.any()


def test_smoothed_gradients_of_a_linear_map_are_its_gradients(inputs):
    linear = nn.Linear(6, 3)
    result = SmoothGrad(linear, samples=5)(inputs, target=0)
    assert torch.allclose(result.values, linear.weight[0].detach().expand(5, 6))
    assert result.standard_error.abs().max() == 0
    assert VarGrad(linear)(inputs, target=0).values.abs().max() == 0


def test_smoothed_gradients_of_a_square_have_known_moments():
    inputs = torch.tensor([[1.0, -3.0]])  # its range is 4
    result = SmoothGrad(Square(), samples=4000, noise=0.25, batch_size=1000)(inputs)
    error = result.standard_error
    # the gradient is 2 (x + noise) with noise of standard deviation 1
    assert torch.allclose(error, torch.full((1, 2), 2 / 4000**0.5), rtol=0.1)
    assert ((result.values - 2 * inputs).abs() < 4 * error).all()
    variance = VarGrad(Square(), samples=4000, noise=0.25)(inputs).values
    assert torch.allclose(variance, torch.full((1, 2), 4.0), rtol=0.1)


class Square(nn.Module):
    def forward(self, x):
        return x.square().sum(1)


def test_noise_goes_under_other_methods(mlp, inputs):
    still = SmoothGrad(mlp, of=InputXGradient, noise=0.0, samples=2)(inputs, target=1)
    assert torch.allclose(still.values, InputXGradient(mlp)(inputs, target=1).values, atol=1e-6)
    still = SmoothGrad(mlp, of=GuidedBackprop, noise=0.0, samples=2)(inputs, target=1)
    assert torch.allclose(still.values, GuidedBackprop(mlp)(inputs, target=1).values, atol=1e-6)
    absolute = SmoothGrad(mlp, noise=0.0, samples=2, absolute=True)(inputs, target=1)
    assert torch.allclose(absolute.values, Saliency(mlp)(inputs, target=1).values, atol=1e-6)


def test_one_seed_one_result_in_any_batches(mlp, inputs):
    first, second = (SmoothGrad(mlp, seed=3, batch_size=size)(inputs, target=1) for size in (2, 64))
    assert torch.allclose(first.values, second.values, atol=1e-6)
    assert torch.equal(first.values, SmoothGrad(mlp, seed=3, batch_size=2)(inputs, target=1).values)
    assert not torch.equal(first.values, SmoothGrad(mlp, seed=4)(inputs, target=1).values)


@pytest.mark.parametrize("method", METHODS)
def test_an_input_does_not_depend_on_the_others(mlp, inputs, method):
    together = method(mlp)(inputs, target=torch.tensor([0, 1, 2, 0, 1]))
    for index, target in enumerate([0, 1, 2, 0, 1]):
        alone = method(mlp)(inputs[index : index + 1], target=target)
        assert torch.allclose(together.values[index], alone.values[0], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_are_what_each_is_alone(mlp, inputs, method):
    targets = [2, torch.tensor([0, 1, 2, 0, 1]), lambda output: output[:, 0] - output[:, 1], "0:3"]
    together = method(mlp)(inputs, target=targets)
    assert together.values.shape == (4, 5, 6) and together.output.shape == (4, 5)
    for index, target in enumerate(targets):
        alone = method(mlp)(inputs, target=target)
        assert torch.allclose(together[index].values, alone.values, atol=1e-6)


@pytest.mark.parametrize("method", [*METHODS, *FROM_BASELINES])
def test_a_layer_before_a_relu_in_place(small_cnn, method):
    images = torch.randn(2, 3, 9, 7)
    result = method(small_cnn, layer="conv2")(images, target=1)
    assert result.values.shape == (2, 5, 5, 4)


@pytest.mark.parametrize("method", [*METHODS, *FROM_BASELINES])
def test_dropout_is_off_and_on_again(watched, inputs, method):
    torch.manual_seed(0)
    model = watched(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)).train())
    first, second = (method(model)(inputs, target=0).values for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, method(model.eval())(inputs, target=0).values)
    model.train()


@pytest.mark.parametrize("method", [*METHODS, *FROM_BASELINES])
def test_a_constant_output_has_no_contributions(inputs, method):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 2)

    assert method(Constant())(inputs, target=1).values.abs().max() == 0


@pytest.mark.parametrize("method", [*METHODS, *FROM_BASELINES])
def test_whole_numbers_are_told_to_go_to_a_layer(method):
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    tokens = torch.tensor([[1, 5, 2]])
    for wrong in (tokens, tokens + 0j):
        with pytest.raises(ArgumentError, match=r"inputs of torch.\w+ have no gradient: .* layer="):
            method(model)(wrong, target=0)
    assert method(model, layer="0")(tokens, target=0).values.shape == (1, 3, 4)


def test_bad_settings():
    model = nn.Linear(2, 1)
    for method in (Saliency, InputXGradient):
        with pytest.raises(TypeError, match="'steps'"):
            method(model, steps=3)
        with pytest.raises(TypeError, match="'steps'"):
            method(model)(torch.ones(1, 2), steps=3)
    with pytest.raises(ArgumentError, match="samples is a whole number from 2 on, got 1"):
        SmoothGrad(model, samples=1)
    with pytest.raises(ArgumentError, match="noise is a number from 0 on, got -1"):
        SmoothGrad(model, noise=-1)
    with pytest.raises(ArgumentError, match="noise is for"):
        SmoothGrad(model, of=SmoothGrad)
