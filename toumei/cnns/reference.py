"""Photographs and layers as methods are given them: checked, and in one form."""

from collections.abc import Sequence

from torch import Tensor

from ..core.errors import ArgumentError, ShapeError

_SLACK = 1e-3


def as_images(image: Tensor, name: str = "image") -> Tensor:
    """Returns a given picture or batch of pictures as a float32 batch (N, 3 or other C, H, W), without graph.

    Args:
        image: (C, H, W) or (N, C, H, W), RGB in [0, 1].
        name: What the picture is called in messages.

    Raises:
        ShapeError: Another shape, no pixels, whole numbers, or values outside of [0, 1].

    Example:
        >>> import torch
        >>> as_images(torch.zeros(3, 5, 4)).shape
        torch.Size([1, 3, 5, 4])
    """
    if not isinstance(image, Tensor) or image.dim() not in (3, 4) or image.numel() == 0:
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ShapeError(f"{name} must be a tensor (C, H, W) or (N, C, H, W), got {got}")
    low, high = image.min().item(), image.max().item()
    # A little more is what resizing leaves. NaN fails every comparison.
    if not image.is_floating_point() or not -_SLACK <= low <= high <= 1 + _SLACK:
        raise ShapeError(
            f"{name} must be RGB in [0, 1], got {image.dtype} from {low:g} to {high:g}: divide bytes by 255"
        )
    batch = image if image.dim() == 4 else image[None]
    return batch.detach().float().clamp(0, 1)


def as_image(image: Tensor, name: str = "image") -> Tensor:
    """Returns a given picture as a batch of one (1, C, H, W); as `as_images`, but refuses several."""
    batch = as_images(image, name)
    if len(batch) > 1:
        raise ShapeError(f"{name} must be one picture, (C, H, W) or (1, C, H, W), got {tuple(image.shape)}")
    return batch


def as_layers(layer: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of one or several layers; raises an `ArgumentError` if there are none."""
    layers = (layer,) if isinstance(layer, str) else tuple(layer)
    if not layers:
        raise ArgumentError("expected the name of a layer, or of at least one layer, got none")
    return layers
