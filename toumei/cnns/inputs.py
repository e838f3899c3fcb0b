"""Checks of the photographs, batches and layers that users give, and their conversion to one form."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.conversions import as_tensor, has_values
from ..core.errors import ArgumentError, ShapeError
from ..core.kinds import shown
from ..core.modules import device_and_dtype

_SLACK = 1e-3
_AT_ONCE = 64  # images of a tensor in a batch


def as_images(image: Tensor, name: str = "image", *, single: bool = True) -> Tensor:
    """Returns a copy of given pictures as a float32 batch (N, 3 or other C, H, W), without graph.

    Args:
        image: (N, C, H, W), or one picture (C, H, W), RGB in [0, 1].
        name: What the pictures are called in messages.
        single: Whether one picture without a batch axis is accepted.

    Raises:
        ShapeError: Another shape, no pixels, whole numbers, or values outside of [0, 1].

    Example:
        >>> import torch
        >>> as_images(torch.zeros(3, 5, 4)).shape
        torch.Size([1, 3, 5, 4])
    """
    ranks = (3, 4) if single else (4,)
    usable = has_values(image)
    if not usable or image.dim() not in ranks or image.numel() == 0:
        got = tuple(image.shape) if usable else type(image).__name__
        shapes = "(C, H, W) or (N, C, H, W)" if single else "(N, C, H, W)"
        raise ShapeError(f"{name} must be a tensor {shapes}, got {got}")
    low, high = image.min().item(), image.max().item()
    # Resizing can leave values a little outside. NaN fails every comparison.
    if not image.is_floating_point() or not -_SLACK <= low <= high <= 1 + _SLACK:
        raise ShapeError(
            f"{name} must be RGB in [0, 1], got values from {low:g} to {high:g} of {image.dtype}: give "
            f"floating-point numbers, and divide bytes by 255"
        )
    batch = image if image.dim() == 4 else image[None]
    return batch.detach().float().clamp(0, 1)


def as_image(image: Tensor, name: str = "image") -> Tensor:
    """Returns a given picture as a batch of one (1, C, H, W); as `as_images`, but refuses several."""
    batch = as_images(image, name)
    if len(batch) > 1:
        raise ShapeError(f"{name} must be one picture, (C, H, W) or (1, C, H, W), got {tuple(image.shape)}")
    return batch


def batches_of(loader: Iterable[Any]) -> Iterable[Any]:
    """Returns what gives batches of images; images (N, C, H, W) in one tensor give a batch after another.

    Raises:
        ShapeError: A tensor or an array without numbers, a sparse one, or one that is no images.
    """
    if not isinstance(loader, Tensor | np.ndarray):
        return loader
    images: Any = as_tensor(loader)
    if not has_values(images) or images.dim() not in (4, 5):
        raise ShapeError(f"expected batches of images (N, C, H, W), got {shown(loader)}")
    batches: Iterable[Any] = images if images.dim() == 5 else images.split(_AT_ONCE)
    return batches


def images_by_index(loader: Any) -> Tensor | None:
    """Returns the images (N, C, H, W) that were given in one tensor or array, None for other loaders.

    Example:
        >>> images_by_index(np.zeros((2, 3, 5, 4))).shape, images_by_index([1])
        (torch.Size([2, 3, 5, 4]), None)
    """
    images: Any = as_tensor(loader) if isinstance(loader, Tensor | np.ndarray) else None
    if not has_values(images) or images.dim() not in (4, 5):
        return None
    whole: Tensor = images if images.dim() == 4 else images.flatten(0, 1)
    return whole


def batch_in(batch: Any) -> Tensor:
    """Returns the images (N, C, H, W) of a batch of a loader; see `images_in`.

    Raises:
        ShapeError: It holds no images, or a single one, as the items of a dataset do.
    """
    images = images_in(batch)
    if images.dim() == 3:
        raise ShapeError(
            f"expected a loader of images (N, C, H, W), got an image {tuple(images.shape)}: give a dataset "
            f"as DataLoader(dataset, batch_size=64)"
        )
    return images


def images_in(batch: Any) -> Tensor:
    """Returns the images in a loader's batch, or in a dataset's item.

    Args:
        batch: A tensor; a tuple or list that begins with one; or a mapping, as of Hugging Face, with
            ``"pixel_values"``.

    Raises:
        ShapeError: It is none of these.

    Example:
        >>> import torch
        >>> images_in({"labels": torch.zeros(2), "pixel_values": torch.zeros(2, 3, 5, 4)}).shape
        torch.Size([2, 3, 5, 4])
    """
    images = batch.get("pixel_values") if isinstance(batch, Mapping) else batch
    images = images[0] if isinstance(images, (tuple, list)) and len(images) else images
    if not isinstance(images, Tensor) or images.is_meta:
        raise ShapeError(
            f"expected images: a tensor, a tuple that begins with one, or a mapping with 'pixel_values'; "
            f"got {type(batch).__name__}"
        )
    return images


def as_input(
    images: Tensor, model: nn.Module, preprocess: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Returns images as a model takes them: on its device, preprocessed, in its precision.

    Args:
        images: (N, C, H, W).
        model: The network.
        preprocess: The preprocessing of the network, such as a normalization.

    Raises:
        ShapeError: They are whole numbers, or the preprocessing returns no tensor.
    """
    device, dtype = device_and_dtype(model)
    images = images.to(device, non_blocking=True)
    images = prepared(images, preprocess)
    if not images.is_floating_point():
        raise ShapeError(
            f"expected images as floating-point numbers, got {images.dtype}: divide bytes by 255"
        )
    return images.to(dtype)


def prepared(images: Tensor, preprocess: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Returns images after the preprocessing of the network.

    Args:
        images: (N, C, H, W).
        preprocess: The preprocessing, None for none.

    Raises:
        ShapeError: It returns no tensor.
    """
    images = images if preprocess is None else preprocess(images)
    if not isinstance(images, Tensor):
        raise ShapeError(f"preprocess returns pictures (N, C, H, W), got {shown(images)}")
    return images


def as_layers(layer: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of one or several layers; raises an `ArgumentError` if there are none."""
    layers = (layer,) if isinstance(layer, str) else tuple(layer)
    if not layers:
        raise ArgumentError("expected the name of a layer, or of at least one layer, got none")
    return layers
