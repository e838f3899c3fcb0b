"""Expanded weights: a convolution's own, composed kernels, and what lies between passed linearly."""

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toumei.cnns import ExpandedWeights, expanded_weights
from toumei.core.errors import ArgumentError, LayerError, ShapeError, UnitError

IMAGE = torch.zeros(1, 3, 31, 26)


def dilated(weight, dilation):
    """The kernel with zeros in between."""
    height, width = weight.shape[2:]
    spread = torch.zeros(*weight.shape[:2], dilation * (height - 1) + 1, dilation * (width - 1) + 1)
    spread[:, :, ::dilation, ::dilation] = weight
    return spread


def grouped(weight, groups):
    """The kernel of a grouped convolution over all input channels."""
    outputs, inputs = weight.shape[:2]
    full = torch.zeros(outputs, inputs * groups, *weight.shape[2:])
    for index in range(groups):
        rows = slice(index * outputs // groups, (index + 1) * outputs // groups)
        full[rows, index * inputs : (index + 1) * inputs] = weight[rows]
    return full


@pytest.mark.parametrize("kernel", [1, 3, (2, 5)])
@pytest.mark.parametrize("stride, dilation, groups, padding", [(1, 1, 1, 1), (2, 1, 2, 0), (3, 2, 1, 2)])
def test_between_neighbours_they_are_the_weights_of_the_convolution(
    watched, kernel, stride, dilation, groups, padding
):
    conv = nn.Conv2d(4, 6, kernel, stride=stride, dilation=dilation, groups=groups, padding=padding)
    model = watched(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), conv).train())
    weights = expanded_weights(model, "0", "2", IMAGE).weights
    assert torch.equal(weights, grouped(dilated(conv.weight.detach(), dilation), groups))


def test_through_linear_layers_they_are_the_composed_kernel():
    """Convolving a spike with both kernels, turned, shows the kernel of the whole."""
    first, second = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 2, (3, 5), padding=(1, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), first, nn.ReLU(), second)
    weights = expanded_weights(model, "1", "4", IMAGE).weights
    composed = torch.zeros(2, 4, 5, 7)
    for y in range(3):
        for x in range(5):
            step = torch.einsum("om,mihw->oihw", second.weight[:, :, y, x], first.weight)
            composed[:, :, y : y + 3, x : x + 3] += step
    assert torch.allclose(weights, composed, atol=1e-6)


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)])
def test_max_pools_count_as_averages(pool):
    conv = nn.Conv2d(4, 2, 3)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.Identity(), conv)
    weights = expanded_weights(model, "0", "3", torch.randn(IMAGE.shape)).weights
    wanted = conv.weight.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    assert torch.allclose(weights, wanted, atol=1e-7)


class Functional(nn.Module):
    """Rectifies and pools by functions and methods, with a batch normalization between."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(2, 3)

    def forward(self, images):
        maps = F.relu_(self.norm(self.first(images))).relu()
        maps = F.gelu(F.max_pool2d(F.leaky_relu(maps), kernel_size=2, stride=1))
        return self.head(self.second(torch.relu(input=maps)).mean((2, 3)))


def test_functions_and_normalizations_are_passed_too(watched):
    model = watched(Functional().train())
    weights = expanded_weights(model, "first", "second", torch.randn(IMAGE.shape)).weights
    scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    wanted = (model.second.weight * scale.view(1, 4, 1, 1) / 4).expand(2, 4, 2, 2)
    assert torch.allclose(weights, wanted, atol=1e-6)


def test_without_the_options_the_network_is_linearized_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    model[0].bias.data = torch.tensor([1.0, -1.0, 1.0, -1.0])
    weights = expanded_weights(model, "0", "3", IMAGE, linear_relu=False, average_pool=False).weights
    alive = model[3].weight[:, ::2].detach()
    assert torch.equal(weights[:, ::2].sum((2, 3), keepdim=True), alive)
    assert not weights[:, 1::2].any() and (weights[:, ::2] != 0).sum() == alive.numel()
    pooled = expanded_weights(model, "1", "3", IMAGE, average_pool=False).weights
    assert (pooled != 0).sum() == model[3].weight.numel()


def test_the_units_of_a_linear_layer_see_the_whole_map():
    model = Functional()
    weights = expanded_weights(model, "second", "head", IMAGE).weights
    assert weights.shape == (3, 2, 30, 25)
    assert torch.allclose(weights.sum((2, 3)), model.head.weight)


def test_units_can_be_chosen_and_the_field_does_not_depend_on_them(watched):
    conv = nn.Conv2d(4, 6, 3)
    conv.weight.data[2, :, 0] = 0.0  # this unit does not use the whole field
    model = watched(nn.Sequential(nn.Conv2d(3, 4, 3), conv))
    some = expanded_weights(model, "0", "1", IMAGE, [5, 2], batch_size=1)
    assert torch.equal(some.weights, conv.weight.detach()[[5, 2]])
    assert some.channels == (5, 2)
    norms = conv.weight[5].flatten(1).norm(dim=1)
    assert some.strongest(5, 2) == norms.topk(2).indices.tolist()


def test_tokens_are_positions_too():
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=3
    )
    layer = "encoder.layers.encoder_layer_0"
    weights = expanded_weights(model, "encoder.dropout", layer, torch.randn(1, 3, 32, 32), [0, 3]).weights
    assert weights.shape == (2, 8, 4, 4) and weights.abs().sum((0, 1)).argmax() == 2 * 4 + 2


def test_the_plot_shows_the_strongest_first_in_red_and_blue(tmp_path):
    weights = torch.zeros(1, 3, 2, 2)
    weights[0, 2], weights[0, 0, 0, 0] = 1.0, -1.0
    expanded = ExpandedWeights("conv1", "conv2", (7,), weights)
    axes = expanded.plot(2)
    assert [text.get_text() for text in axes.texts] == ["conv2:7", "conv1:2", "conv1:0"]
    shown = torch.from_numpy(axes.images[0].get_array())
    red, blue = shown[30, 64 + 30 + 11], shown[16 + 11, 2 * (64 + 11) + 10]
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]
    pictures = {"conv2:7": torch.rand(3, 30, 40), "conv1:2": torch.rand(3, 64, 64)}
    assert len(expanded.plot(2, pictures).texts) > 2
    expanded.save(tmp_path / "new" / "circuit.safetensors")
    loaded = ExpandedWeights.load(tmp_path / "new" / "circuit.safetensors")
    assert torch.equal(loaded.weights, weights) and repr(loaded) == repr(expanded) and loaded.channels == (7,)


def test_bad_input_says_what_is_wrong(small_cnn):
    with pytest.raises(ShapeError, match="one image"):
        expanded_weights(small_cnn, "conv1", "conv2", torch.zeros(2, 3, 20, 20))
    with pytest.raises(LayerError, match="did you mean"):
        expanded_weights(small_cnn, "conv", "conv2", IMAGE)
    for before, after in (("conv2", "conv1"), ("conv1", "conv1")):
        with pytest.raises(ArgumentError, match=f"'{after}' does not depend on '{before}'"):
            expanded_weights(small_cnn, before, after, IMAGE)
    with pytest.raises(UnitError, match="no channel 5 in layer 'conv2'"):
        expanded_weights(small_cnn, "conv1", "conv2", IMAGE, [5])
    with pytest.raises(ShapeError, match="expected maps"):
        expanded_weights(small_cnn, "flatten", "head", IMAGE)
    with pytest.raises(ArgumentError, match="were not computed"):
        expanded_weights(small_cnn, "conv1", "conv2", IMAGE, [1]).strongest(2)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.MaxPool2d(2, dilation=2), nn.Conv2d(2, 2, 1))
    with pytest.raises(ArgumentError, match="average_pool=False"):
        expanded_weights(model, "0", "2", IMAGE)


@pytest.mark.parametrize(
    "rectifier",
    [
        *(nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU()),
        *(nn.ELU(), nn.SELU(inplace=True), nn.CELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish()),
        nn.Softplus(),
    ],
    ids=str,
)
def test_all_rectifiers_are_passed_as_if_they_were_linear(rectifier):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), rectifier, nn.Conv2d(4, 5, 3))
    weights = expanded_weights(model, "0", "2", 9 * torch.randn(IMAGE.shape)).weights
    assert torch.allclose(weights, model[2].weight, atol=1e-6)


@pytest.mark.parametrize(
    "rectifier",
    [
        lambda x: x.clip(0),
        lambda x: x.clamp_(min=0),
        lambda x: F.threshold(x, 0, 0),
        torch.celu_,
        Tensor.prelu,
    ],
    ids=["clip", "clamp_", "threshold", "celu_", "prelu"],
)
def test_rectifiers_are_passed_under_any_name(rectifier):
    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            maps = self.first(x)
            arguments = (torch.full((1,), 0.3),) if rectifier is Tensor.prelu else ()
            return self.second(rectifier(maps, *arguments))

    model = Called()
    weights = expanded_weights(model, "first", "second", 9 * torch.randn(IMAGE.shape)).weights
    assert torch.allclose(weights, model.second.weight, atol=1e-6)


def test_what_follows_the_earlier_layer_may_overwrite_it():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm, self.conv = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            x = self.stem(x)
            y = self.norm(x)
            y += x
            return self.conv(y.relu_())

    torch.manual_seed(0)
    model = Residual()
    assert torch.allclose(expanded_weights(model, "norm", "conv", IMAGE).weights, model.conv.weight)
    at_zero = expanded_weights(model, "norm", "conv", IMAGE, linear_relu=False).weights
    assert at_zero.shape == model.conv.weight.shape


@pytest.mark.parametrize("channels", [[], [-1]])
def test_channels_that_cannot_be_are_refused(channels):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    with pytest.raises(UnitError, match="from 0 up, at least one"):
        expanded_weights(model, "0", "1", IMAGE, channels=channels)


def test_gradients_on_whole_maps_are_gone_before_the_next_batch(monkeypatch):
    model, alive, made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 9, 3)), [], []
    plain = torch.autograd.grad

    def watched_grad(*args, **options):
        alive.append(sum(one() is not None for one in made))
        gradient = plain(*args, **options)
        made.append(weakref.ref(gradient[0]))
        return gradient

    monkeypatch.setattr(torch.autograd, "grad", watched_grad)
    weights = expanded_weights(model, "0", "1", IMAGE, batch_size=2).weights
    assert torch.allclose(weights, model[1].weight, atol=1e-6)
    assert len(alive) >= 6 and max(alive) <= 1
