"""Pictures as numbers: beside each other in one, cut to [0, 1], as images of Pillow."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.checks import check_counts, checked
from ..core.errors import ShapeError
from ..core.user_warnings import warn

GAP = 4  # white pixels between pictures
OUTSIDE = 0.05  # how far numbers of a picture may leave [0, 1], such as by rounding or bicubic resizing
_CHECK = 8  # pixels of a field of the checkerboard


@checked
def montage(images: Tensor, columns: int | None = None, gap: int = GAP) -> Tensor:
    """Returns the pictures of a batch beside each other on white, as one picture (3, H, W) on the CPU.

    What is transparent shows a checkerboard.

    Args:
        images: (N, C, H, W) in [0, 1], with one channel, three, or four; the fourth is alpha.
        columns: Pictures in a row; by default as many as make the whole about square, at most 8.
        gap: White pixels between pictures.

    Raises:
        ShapeError: The pictures are not (N, 1, 3 or 4, H, W), or there are none.

    Example:
        >>> montage(torch.zeros(4, 3, 10, 20), columns=2, gap=1).shape
        torch.Size([3, 21, 41])
    """
    usual = columns_of(images)
    check_counts(1, columns=columns)
    columns = columns or usual
    images = _opaque(in_range(images)).expand(-1, 3, -1, -1)
    rows = -(-len(images) // columns)
    height, width = images.shape[2] + gap, images.shape[3] + gap
    canvas = torch.ones(3, rows * height - gap, columns * width - gap)
    for index, image in enumerate(images):
        y, x = index // columns * height, index % columns * width
        canvas[:, y : y + image.shape[1], x : x + image.shape[2]] = image
    return canvas


def in_range(images: Tensor) -> Tensor:
    """Returns pictures on the CPU, with what is outside [0, 1] cut off, and warns of more than rounding.

    Args:
        images: Of any shape.

    Example:
        >>> in_range(torch.tensor([-0.01, 0.5]))
        tensor([0.0000, 0.5000])
    """
    images = images.detach().float().cpu()
    if images.numel():
        low, high = float(images.min()), float(images.max())
        if low < -OUTSIDE or high > 1 + OUTSIDE:
            warn(
                f"pictures have values in [0, 1], got {low:.3g} to {high:.3g}: what is outside is cut off. "
                "Give the pictures before normalization"
            )
    return images.clamp(0, 1)


@checked
def check_overlay(maps: Sequence[int], pictures: Sequence[int]) -> None:
    """Checks that maps (height, width) can lie over pictures (height, width) without being stretched.

    A map of a layer may be a pixel smaller or larger than the proportions of the picture say.

    Raises:
        ShapeError: The proportions differ.

    Example:
        >>> check_overlay((7, 7), (224, 224))
        >>> check_overlay((7, 7), (224, 448))
        Traceback (most recent call last):
        ...
        toumei.core.errors.ShapeError: maps of 7 x 7 do not have the proportions of pictures of 224 x 448...
    """
    for size in (maps, pictures):
        if len(size) != 2 or min(size) < 1:
            raise ShapeError(f"expected a height and a width from 1 on, got {tuple(size)}")
    (height, width), (tall, wide) = maps, pictures
    least, most = tall / (height + 1), tall / max(height - 1, 0.5)
    if not (wide / (width + 1) <= most and least <= wide / max(width - 1, 0.5)):
        raise ShapeError(
            f"maps of {height} x {width} do not have the proportions of pictures of {tall} x {wide}: "
            "give the pictures as the network saw them, resized and cropped"
        )


def _opaque(images: Tensor) -> Tensor:
    """Pictures with an alpha channel before a checkerboard, others as they are."""
    if images.shape[1] != 4:
        return images
    y, x = (torch.arange(pixels) // _CHECK for pixels in images.shape[2:])
    board = 1 - 0.2 * ((y[:, None] + x[None, :]) % 2)
    return torch.lerp(board, images[:, :3], images[:, 3:])


def columns_of(images: Tensor) -> int:
    """Returns how many pictures of a batch stand in a row.

    Raises:
        ShapeError: It is no batch of pictures.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3, 4) or len(images) == 0:
        raise ShapeError(f"expected pictures (N, 1, 3 or 4, H, W), got {tuple(images.shape)}")
    if not images.numel():
        raise ShapeError(f"the pictures have no pixels: {tuple(images.shape)}")
    count, _, height, width = images.shape
    return int(min(count, 8, max(1, round((count * height / width) ** 0.5 + 0.49))))


@checked
def to_pil(image: Tensor) -> Any:
    """Returns one picture (3 or 4, H, W) in [0, 1] as a PIL image; warns of what is cut off.

    Example:
        >>> to_pil(torch.rand(3, 8, 6)).size
        (6, 8)
    """
    from PIL import Image

    if image.dim() != 3 or image.shape[0] not in (3, 4) or not image.numel() or image.is_complex():
        raise ShapeError(f"expected a picture (3 or 4, H, W), got {tuple(image.shape)} of {image.dtype}")
    return Image.fromarray((in_range(image) * 255).round().byte().permute(1, 2, 0).numpy())
