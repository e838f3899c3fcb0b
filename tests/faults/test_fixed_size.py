"""Networks that take pictures of one size, and networks that compute without gradients."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import accentuate, caricature, dataset_examples, deep_dream, invert, render_icons, robustness
from toumei.core.errors import ForwardError, ShapeError, ToumeiError

LAYER = "encoder.layers.encoder_layer_0"
QUICK = {"steps": 2, "seed": 0, "verbose": False}


@pytest.fixture
def vit(watched):
    torch.manual_seed(0)
    sizes = {"hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    return watched(VisionTransformer(32, 8, num_layers=1, num_heads=2, **sizes).eval())


def test_transforms_that_end_in_another_size_name_the_size(vit):
    shown = param.Transform(param.FFTImage(1, 3, 32, 32, seed=0), robustness.lucid())
    with pytest.raises(ShapeError, match=r"32 by 32 pixels.*CropOrPad\(32, 32\)"):
        obj.Pipeline(shown, f"{LAYER}:3").attach(vit)
    fitted = param.Transform(shown, robustness.CropOrPad(32, 32))
    assert obj.Pipeline(fitted, f"{LAYER}:3").attach(vit).optimize(1, verbose=False).ended == "finished"


def test_default_transforms_fit_themselves(vit):
    picture = torch.rand(3, 32, 32)
    assert accentuate(vit, picture, f"{LAYER}:3", **QUICK).images.shape == (1, 3, 32, 32)
    assert caricature(vit, picture, LAYER, **QUICK).images.shape == (1, 3, 32, 32)
    assert invert(vit, picture, LAYER, **QUICK).images.shape == (1, 3, 32, 32)


def test_transforms_of_the_user_are_not_changed(vit):
    with pytest.raises(ShapeError, match="32 by 32"):
        accentuate(vit, torch.rand(3, 32, 32), f"{LAYER}:3", views=robustness.lucid(), **QUICK)


def test_octaves_of_other_sizes_are_refused_with_the_way_out(vit):
    picture = torch.rand(3, 32, 32)
    with pytest.raises(ShapeError, match="32 by 32.*octaves=1"):
        deep_dream(vit, picture, LAYER, **QUICK)
    assert deep_dream(vit, picture, LAYER, octaves=1, **QUICK).images.shape == (1, 3, 32, 32)


def test_a_picture_of_another_size_is_named_at_once(vit):
    with pytest.raises(ShapeError, match="32 by 32 pixels, and the pictures are 40 by 40"):
        obj.Pipeline(param.FFTImage(1, 3, 40, 40, seed=0), f"{LAYER}:3").attach(vit)
    with pytest.raises(ShapeError, match="32 by 32"):
        caricature(vit, torch.rand(3, 40, 40), LAYER, **QUICK)
    with pytest.raises(ToumeiError, match="32 by 32"):
        render_icons(vit, LAYER, torch.eye(16)[:1], size=24, steps=1, verbose=False)
    with pytest.raises(ForwardError, match="32 by 32"):
        dataset_examples(vit, LAYER, [torch.rand(2, 3, 40, 40)], k=1, verbose=False)


def test_a_classifier_of_one_size_that_declares_none_is_found_by_trying():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    shown = param.Transform(param.FFTImage(1, 3, 8, 8, seed=0), robustness.Pad(2))
    with pytest.raises(ShapeError, match="8 by 8 pixels, and the transforms show it 12 by 12"):
        obj.Pipeline(shown, obj.ClassLogit(1, layer="2")).attach(network)


class Deployed(nn.Module):
    """A network without gradients, as exported ones are."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    @torch.no_grad()
    def forward(self, x):
        return self.net(x)


def small():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_examples_need_no_gradients(mode):
    images = torch.rand(6, 3, 8, 8)
    with mode():
        found = dataset_examples(Deployed(small()), "net.0", [images], k=2, verbose=False)
    wanted = small()[0](images).amax((2, 3)).T.topk(2, dim=1)
    assert torch.equal(found.highest["net.0"].indices, wanted.indices)
    torch.testing.assert_close(found.highest["net.0"].values, wanted.values)
    assert found.fields["net.0"] == (1.0, 1.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_examples_of_a_quantized_layer():
    quantized = torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)
    images = torch.rand(6, 3, 8, 8)
    found = dataset_examples(quantized, "4", [images], k=2, verbose=False)
    assert torch.equal(found.highest["4"].indices, quantized(images).T.topk(2, dim=1).indices)
