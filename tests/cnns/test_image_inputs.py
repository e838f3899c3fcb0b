"""Photographs and batches as methods are given them, and where the methods are found."""

import pkgutil

import pytest
import torch

import toumei.cnns
from toumei.cnns.inputs import as_image, as_images, as_input, images_in
from toumei.core.errors import ShapeError


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_pictures_become_a_batch_in_float32_that_is_a_copy(dtype):
    given = torch.rand(1, 5, 7).to(dtype).requires_grad_()
    batch = as_images(given)
    assert batch.shape == (1, 1, 5, 7) and batch.dtype == torch.float32 and not batch.requires_grad
    batch.zero_()
    assert given.any()


def test_what_resizing_leaves_beyond_black_and_white_is_clamped():
    batch = as_images(torch.tensor([[[-5e-4, 1 + 5e-4]]]))
    assert batch.min() == 0 and batch.max() == 1


def test_a_batch_axis_can_be_asked_for():
    with pytest.raises(ShapeError, match=r"photo must be a tensor \(N, C, H, W\), got \(3, 5, 7\)"):
        as_images(torch.rand(3, 5, 7), "photo", single=False)
    with pytest.raises(ShapeError, match="photo must be one picture"):
        as_image(torch.rand(2, 3, 5, 7), "photo")


def test_a_network_is_given_its_own_precision_and_no_bytes():
    model = torch.nn.Linear(2, 2).double()
    pictures = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert torch.equal(as_input(pictures, model, lambda x: x / 255), torch.tensor([[[[0.0, 1.0]]]]).double())
    with pytest.raises(ShapeError, match=r"got torch.uint8: divide bytes by 255"):
        as_input(pictures, model)


@pytest.mark.parametrize("wrapped", [lambda x: x, lambda x: (x, 1), lambda x: {"y": 1, "pixel_values": x}])
def test_images_are_found_in_what_loaders_give(wrapped):
    images = torch.rand(2, 3, 5, 7)
    assert images_in(wrapped(images)) is images


@pytest.mark.parametrize("batch", [(), [], {}, {"image": torch.zeros(1)}, "x", None, (1, torch.zeros(1))])
def test_batches_without_images_are_errors(batch):
    with pytest.raises(ShapeError, match="expected images"):
        images_in(batch)


def test_no_name_of_the_room_hides_a_module():
    modules = {module.name for module in pkgutil.iter_modules(toumei.cnns.__path__)}
    rooms = {"objectives", "parameterization", "robustness"}
    assert set(toumei.cnns.__all__) & modules == rooms
    assert all(hasattr(toumei.cnns, name) for name in toumei.cnns.__all__)
    for name in ("caricature", "deep_dream", "sanity_check"):
        assert callable(getattr(toumei.cnns, name)) and f"`{name}`" in toumei.cnns.__doc__
