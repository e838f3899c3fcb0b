"""Class activation maps against closed forms, and on the layouts of other networks."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.attribution import (
    GradCam,
    GradCamPlusPlus,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    LayerCam,
    Saliency,
)
from toumei.core.errors import LayerError, ShapeError

CAMS = [GradCam, GradCamPlusPlus, LayerCam]


@pytest.fixture
def images():
    return torch.rand(3, 3, 10, 14, generator=torch.Generator().manual_seed(1))


def test_with_pooling_and_a_linear_head_it_is_the_class_activation_map(small_cnn, images):
    result = GradCam(small_cnn, "relu2", upsample=False)(images, target=2)
    with torch.no_grad():
        activation = small_cnn[:4](images)
        cam = torch.einsum("c,nchw->nhw", small_cnn.head.weight[2], activation)
    assert result.values.shape == (3, 1, 5, 7)
    assert torch.allclose(result.values[:, 0], cam.relu() / 35, atol=1e-6)


def test_the_other_maps_by_their_formulas(small_cnn, images):
    with torch.no_grad():
        activation = small_cnn[:4](images)
    gradient = Saliency(small_cnn, "relu2", absolute=False)(images, target=2).values
    products = InputXGradient(small_cnn, "relu2")(images, target=2).values
    layer_cam = LayerCam(small_cnn, "relu2", upsample=False)(images, target=2).values
    positive = torch.where(gradient > 0, products, 0).sum(1, keepdim=True)
    assert torch.allclose(layer_cam, positive.relu(), atol=1e-7)
    plus = GradCamPlusPlus(small_cnn, "relu2", upsample=False)(images, target=2).values
    total = activation.sum((2, 3), keepdim=True)
    alpha = 1 / (2 + total * gradient)  # of a gradient that is not 0
    weights = (alpha * gradient.relu()).sum((2, 3), keepdim=True)
    assert torch.allclose(plus, (weights * activation).sum(1, keepdim=True).relu(), atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning:captum")
def test_the_same_as_captum(watched, images):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()
    model = watched(nn.Sequential(*layers, nn.Linear(40, 4)).eval())
    values = GradCam(model, "2", upsample=False)(images, target=1).values
    theirs = captum.attr.LayerGradCam(model, model[2]).attribute(images, 1, relu_attributions=True)
    assert torch.allclose(values, theirs.detach(), atol=1e-6)
    values = GradCam(model, "2")(images, target=1).values
    scaled = F.interpolate(theirs, (10, 14), mode="bilinear", align_corners=False).detach()
    assert torch.allclose(values, scaled, atol=1e-6)


def test_guided_grad_cam_is_the_product(small_cnn, images):
    result = GuidedGradCam(small_cnn, "conv2")(images, target=[1, 3])
    for index, target in enumerate([1, 3]):
        product = (
            GuidedBackprop(small_cnn)(images, target=target).values
            * GradCam(small_cnn, "conv2")(images, target=target).values
        )
        assert torch.allclose(result.values[index], product, atol=1e-7)


@pytest.mark.parametrize("cam", CAMS)
def test_an_input_does_not_depend_on_the_others(small_cnn, images, cam):
    together = cam(small_cnn, "conv1")(images, target=[0, 1])
    assert together.values.shape == (2, 3, 1, 10, 14)
    for index in range(3):
        alone = cam(small_cnn, "conv1")(images[index : index + 1], target=1)
        assert torch.allclose(together.values[1, index], alone.values[0], atol=1e-6)


class Tokens(nn.Module):
    """A class token and 5 x 5 patches, then a linear map of each: (N, 3, 10, 10) -> (N, 26, 4) -> (N, 2)."""

    def __init__(self):
        super().__init__()
        self.patches, self.block, self.head = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.new_ones(len(x), 1, 4), tokens], 1)
        return self.head(self.block(tokens).mean(1))


@pytest.mark.parametrize("cam", CAMS)
def test_tokens_are_a_square_grid_behind_the_class_token(images, cam):
    torch.manual_seed(0)
    model, square = Tokens(), images[..., :10]
    values = cam(model, "block", upsample=False)(square, target=1).values
    assert values.shape == (3, 1, 5, 5)
    same = square.clone()
    same[..., :2, 8:] = 0.3
    changed = cam(model, "block", upsample=False)(same, target=1).values != values
    if cam is LayerCam:  # its weights differ by position
        assert not changed[..., 1:, :].any() and not changed[..., :4].any()
    assert cam(model, "block")(square, target=1).values.shape == (3, 1, 10, 10)


def test_channels_may_be_last(small_cnn, images):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.permuted = nn.Identity()

        def forward(self, x):
            last = self.permuted(small_cnn.conv1(x).permute(0, 2, 3, 1))
            return small_cnn[1:](last.permute(0, 3, 1, 2).clone())

    values = GradCam(Last(), "permuted", channel_axis=3)(images, target=1).values
    assert torch.allclose(values, GradCam(small_cnn, "conv1")(images, target=1).values, atol=1e-6)


def test_the_maps_of_a_unit(small_cnn, images):
    result = GradCam(small_cnn, "conv1", upsample=False)(images, target="conv2:3:2:1")
    # the unit at 2:1 sees the rows 3 to 5 and the columns 1 to 3 of conv1, so its gradient is elsewhere 0
    seen = LayerCam(small_cnn, "conv1", upsample=False)(images, target="conv2:3:2:1").values
    outside = torch.ones(10, 14, dtype=torch.bool)
    outside[3:6, 1:4] = False
    assert seen[:, 0, outside].abs().max() == 0 and seen.max() > 0
    assert result.values.shape == (3, 1, 10, 14)


def test_bad_input(small_cnn, images):
    with pytest.raises(LayerError, match="no layer 'conv3'"):
        GradCam(small_cnn, "conv3")
    with pytest.raises(ShapeError, match="expected maps .* or tokens"):
        GradCam(small_cnn, "head")(images, target=1)
    with pytest.raises(TypeError, match="'noise'"):
        GradCam(small_cnn, "conv1", noise=1)
    with pytest.raises(ShapeError, match="for pictures"):
        GuidedGradCam(nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Flatten()), "0")(torch.ones(1, 4), 0)
