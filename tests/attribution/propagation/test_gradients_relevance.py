"""Layer-wise relevance propagation through captum."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import Normalize

from toumei.attribution import LRP, InputXGradient
from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.models import ShapesCNN


def chain(bias=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=bias),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 5, 3, bias=bias),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(5, 4, bias=bias),
    )


@pytest.fixture
def images():
    return torch.rand(3, 3, 10, 14, generator=torch.Generator().manual_seed(1))


def test_without_biases_it_is_the_gradient_times_the_input(watched, images):
    model = watched(chain())
    result = LRP(model)(images, target=[1, torch.tensor([0, 3, 2])])
    expected = InputXGradient(model)(images, target=[1, torch.tensor([0, 3, 2])])
    assert torch.allclose(result.values, expected.values, atol=1e-5)
    assert torch.allclose(result.sums.float(), result.output, atol=1e-5)
    alone = LRP(model)(images[1:2], target=1)
    assert torch.allclose(alone.values[0], result[0].values[1], atol=1e-6)
    assert not hasattr(model[0], "rule")


def test_the_same_as_captum_and_as_the_rule_by_hand(watched):
    torch.manual_seed(0)
    model = watched(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval())
    x = torch.randn(4, 6)
    values = LRP(model, epsilon=0.1)(x, target=1).values
    with torch.no_grad():
        hidden = model[0](x)
        score = hidden.relu() @ model[2].weight[1] + model[2].bias[1]
        weights = model[2].weight[1] * hidden.relu()
        relevance = weights / (score + 0.1 * score.sign())[:, None] * score[:, None]
        shares = relevance / (hidden + 0.1 * hidden.sign())
        expected = x * (shares @ model[0].weight)
    assert torch.allclose(values, expected, atol=1e-5)
    theirs = captum.attr.LRP(model).attribute(x.requires_grad_(), target=1)
    assert torch.allclose(LRP(model)(x, target=1).values, theirs.detach(), atol=1e-6)


class Functional(nn.Module):
    def __init__(self, model, activation):
        super().__init__()
        self.conv1, self.conv2, self.head = model[0], model[3], model[8]
        self.pool, self.last, self.activation = nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), activation

    def forward(self, x):
        x = self.conv2(self.pool(self.activation(self.conv1(x))))
        return self.head(self.last(self.activation(x)).flatten(1))


@pytest.mark.parametrize("activation", [F.relu, nn.ReLU(inplace=True), torch.relu_])
def test_functional_and_shared_relus(images, activation):
    model = chain(bias=True)
    expected = LRP(model)(images, target=1).values
    assert torch.allclose(LRP(Functional(model, activation))(images, target=1).values, expected, atol=1e-6)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.second(self.first(x))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        return self.first(self.first(x).relu())


def test_what_captum_would_get_wrong_is_an_error():
    x = torch.ones(1, 4)
    with pytest.raises(ArchitectureError, match=r"no rule for 'add' outside of a module"):
        LRP(Residual())(x, target=0)
    with pytest.raises(ArchitectureError, match=r"'model.first' runs again|'first' runs again"):
        LRP(Shared())(x, target=0)
    with pytest.raises(ArchitectureError, match=r"no rule for the layer '1', a GELU"):
        LRP(nn.Sequential(nn.Linear(4, 4), nn.GELU()))(x, target=0)
    with pytest.raises(ArchitectureError, match=r"no rule for 'tanh' outside"):
        LRP(Functional(chain(), torch.tanh))(torch.rand(1, 3, 8, 8), target=0)
    with pytest.raises(ArgumentError, match="index of an output"):
        LRP(nn.Linear(4, 2))(x, target=lambda output: output[:, 0])
    with pytest.raises(ArgumentError, match="index of an output"):
        LRP(nn.Sequential(nn.Linear(4, 2)))(x, target="0:1")
    with pytest.raises(ArgumentError, match="a tensor or a tuple"):
        LRP(nn.Linear(4, 2))({"input": x}, target=0)
    assert LRP(nn.Linear(4, 2))(x, target=0).values.shape == (1, 4)


class Affine(nn.Module):
    """A scale for each channel, and a shift."""

    def __init__(self, in_place=False):
        super().__init__()
        self.scale, self.in_place = nn.Parameter(torch.tensor([[[2.0]], [[-1.0]], [[0.5]]])), in_place

    def forward(self, x):
        return x.mul_(self.scale).sub_(0.3) if self.in_place else 1 + x * self.scale / 3


@pytest.mark.parametrize("affine", [Affine(), Affine(in_place=True), Normalize((0.4,) * 3, (0.2,) * 3)])
def test_layers_that_scale_and_shift_each_number_hand_all_relevance_on(watched, images, affine):
    body = chain()
    result = LRP(watched(nn.Sequential(affine, *body)))(images, target=1)
    with torch.no_grad():
        scaled = affine(images.clone())
    assert torch.allclose(result.values, LRP(body)(scaled, target=1).values, atol=1e-6)
    assert torch.allclose(result.sums.float(), result.output, atol=1e-5)
    before = LRP(body, preprocess=watched(affine))(images, target=1)
    assert torch.allclose(before.values, result.values, atol=1e-6)
    assert torch.allclose(before.output, result.output)


def test_scaled_scores_have_scaled_relevance(images):
    cold = nn.Sequential(*chain(bias=True), Of(lambda x: -(x / -4)))
    expected = LRP(chain(bias=True))(images, target=1).values / 4
    assert torch.allclose(LRP(cold)(images, target=1).values, expected, atol=1e-6)


def test_the_scale_of_the_shapes_network_hands_relevance_on(images):
    model = ShapesCNN(pretrained=True).eval()
    result = LRP(model)(images[..., :10], target=3)
    body = nn.Sequential(*list(model.children())[1:])
    assert torch.allclose(result.values, LRP(body)(4 * images[..., :10] - 2, target=3).values, atol=1e-5)


class Beside(nn.Module):
    """What is scaled passes the scale too."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.first, self.second = layer, nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return torch.cat([self.first(self.layer(x)), self.second(x)], 1)


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2 / (x + 3),
        lambda x: torch.div(torch.ones(4), x),
        lambda x: x * x,
        lambda x: x.exp() - 1,
        lambda x: x * torch.ones(2, 4),
        lambda x: (x > 0).float(),
        lambda x: x.sum(1, keepdim=True) + torch.zeros(4),
    ],
)
def test_what_is_no_scale_by_constants_has_no_rule(function):
    with pytest.raises(ArchitectureError, match=r"no rule for the layer '0', a Of: .* only scale and shift"):
        LRP(nn.Sequential(Of(function), nn.Linear(4, 2)))(torch.ones(1, 4), target=0)


def test_a_scale_whose_input_passes_it_too_is_an_error():
    scale = Of(lambda x: 2 * x)
    with pytest.raises(ArchitectureError, match=r"'layer', which scales, to be alone with its input"):
        LRP(Beside(scale))(torch.ones(1, 4), target=0)
    twice = nn.Sequential(scale, nn.Linear(4, 4, bias=False), scale, nn.Linear(4, 2, bias=False))
    result = LRP(twice)(torch.randn(3, 4), target=1)
    assert torch.allclose(result.sums.float(), result.output, atol=1e-5)


def test_a_layer_that_is_called_by_keyword_has_no_rule():
    class Halved(nn.Module):
        def forward(self, x):
            return x / 2

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.scaled, self.head = Halved(), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.scaled(x=x))

    with pytest.raises(ArchitectureError, match="no rule for the layer 'scaled', a Halved"):
        LRP(Named())(torch.rand(2, 4), 1)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def test_what_is_no_function_of_torch_has_no_rule():
    class Squared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, x):
            return Square.apply(self.first(x))

    x = torch.ones(1, 4)
    for model in (nn.Sequential(Of(Square.apply), nn.Linear(4, 2)), Squared()):
        with pytest.raises(ArchitectureError, match=r"no rule for 'Square' \(of TorchScript, or a custom"):
            LRP(model)(x, target=0)


def test_scales_and_layouts_have_any_name():
    model = nn.Sequential(
        Of(lambda x: torch.multiply(x.subtract(0), 2).true_divide(4)), nn.Linear(4, 2, False)
    )
    laid_out = nn.Sequential(nn.Linear(4, 4, False), Of(lambda x: x), nn.Linear(4, 2, False))
    result = LRP(model)(torch.randn(3, 4), target=1)
    assert torch.allclose(result.sums.float(), result.output, atol=1e-5)
    x = torch.randn(3, 4)
    expected = LRP(laid_out)(x, target=1).values

    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = laid_out[0], laid_out[2]

        def forward(self, x):
            return self.last(torch.concatenate([self.first(x).swapaxes(0, 1).mT.view_as(x)], 1))

    assert torch.allclose(LRP(Swapped())(x, target=1).values, expected, atol=1e-6)
