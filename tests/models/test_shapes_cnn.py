"""The network that ships with the package is small, deterministic, and has learned its world."""

from pathlib import Path

import pytest
import torch
from torch import nn

import toumei.models
from toumei.models.shapes_cnn import ShapesCNN
from toumei.models.shapes_world import CLASSES, ShapesDataset

WEIGHTS = Path(toumei.models.__file__).parent / "data" / "shapes_cnn.safetensors"
RELUS = [f"relu{number}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def model():
    return ShapesCNN(pretrained=True).eval()


@pytest.fixture(scope="module")
def images():
    return ShapesDataset(seed=77).batch(range(32))[0]


@torch.no_grad()
def test_the_shipped_weights_know_fresh_images(model):
    images, labels, _ = ShapesDataset(seed=123).batch(range(300))
    assert (model(images).argmax(1) == labels).float().mean() >= 0.97


@torch.no_grad()
def test_the_decision_rests_on_the_shape(model):
    """Without the shape the network is at a loss: its verdict on the background says nothing."""
    dataset = ShapesDataset(seed=124)
    labels = dataset.batch(range(200))[1]
    assert (model(dataset.backgrounds(range(200))).argmax(1) == labels).float().mean() < 0.25


@torch.no_grad()
def test_hardly_any_unit_is_dead(model):
    images = ShapesDataset(seed=125).batch(range(100))[0]
    for name, module in model.named_children():
        images = module(images)
        if name in RELUS:
            assert (images.amax((0, 2, 3)) == 0).float().mean() < 0.05


def test_the_weights_are_at_most_two_megabytes():
    assert WEIGHTS.stat().st_size <= 2_000_000


def test_weights_are_loaded_in_single_precision(model):
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    again = ShapesCNN(pretrained=True).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_every_step_has_a_name(model):
    names = [name for name, _ in model.named_children()]
    assert [name for name in names if name.startswith("conv")] == [f"conv{i}" for i in range(1, 7)]
    assert [name for name in names if name.startswith("relu")] == RELUS
    assert names[-1] == model.logits_layer == "head"
    assert model.categories == CLASSES and model.head.out_features == len(CLASSES)


def test_nothing_works_in_place_or_keeps_statistics(model):
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    assert not list(model.buffers())
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (47, 91), (128, 33)])
def test_any_size_from_32_on_will_do(model, size):
    assert model(torch.rand(2, 3, *size)).shape == (2, 8)


def test_a_unit_of_the_last_convolution_sees_a_whole_shape(model):
    image = torch.rand(1, 3, 96, 96, requires_grad=True)
    steps = dict(model.named_children())
    activation = image
    for name, step in steps.items():
        # Without the kinks every path counts, and the field does not depend on the image.
        activation = activation if name in RELUS else step(activation)
        if name == "conv6":
            break
    (gradient,) = torch.autograd.grad(activation[0, :, 6, 6].sum(), image)
    seen = gradient[0].abs().sum(0) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == 52


def test_the_result_is_the_same_for_every_batch(model, images):
    together = model(images)
    assert torch.allclose(together[3:4], model(images[3:4]), atol=1e-4)


def test_random_weights_follow_the_seed_and_keep_the_scale():
    torch.manual_seed(0)
    first = ShapesCNN()
    torch.manual_seed(0)
    second = ShapesCNN()
    assert torch.equal(first.conv3.weight, second.conv3.weight)
    assert 0.01 < first(torch.rand(8, 3, 64, 64)).std() < 10
