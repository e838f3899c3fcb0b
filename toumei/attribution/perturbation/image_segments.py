"""Segments of pictures as features: superpixels by SLIC, or a grid."""

from math import inf

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, NonFiniteError, ShapeError


@checked
def superpixels(images: Tensor, count: int = 50, compactness: float = 10.0, sigma: float = 1.0) -> Tensor:
    """Returns the superpixels of pictures by SLIC (Achanta et al., 2012), (N, 1, H, W), each from 0 on.

    Args:
        images: (N, 1 or 3, H, W), in any range.
        count: How many, approximately.
        compactness: Weight of distance against colour: higher values give squarer superpixels.
        sigma: Standard deviation of a blur before, in pixels.

    Raises:
        ShapeError: The images are not (N, 1 or 3, H, W).
        ArgumentError: Fewer than one superpixel.

    Example:
        >>> superpixels(torch.rand(2, 3, 32, 32), count=9).shape
        torch.Size([2, 1, 32, 32])
    """
    from skimage.segmentation import slic

    _check(images, count)
    if not 0 < compactness < inf or not 0 <= sigma < inf:
        raise ArgumentError(
            f"compactness is above 0, sigma at least 0, and both are finite: got {compactness} and {sigma}"
        )
    pictures = images.detach().permute(0, 2, 3, 1).double().cpu().numpy()
    found = [
        torch.from_numpy(
            slic(
                picture,
                n_segments=count,
                compactness=compactness,
                sigma=sigma,
                start_label=0,
                channel_axis=-1,
            )
        )
        for picture in pictures
    ]
    return torch.stack(found).long()[:, None]


@checked
def grid(images: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """Returns the cells of a grid over pictures as features, (1, H, W).

    Args:
        images: (N, C, H, W).
        rows: Cells from top to bottom.
        columns: Cells from left to right, as many as rows by default.

    Raises:
        ShapeError: The images have no height and width.
        ArgumentError: Fewer than one cell.

    Example:
        >>> grid(torch.rand(1, 3, 4, 6), 2, 3)[0]
        tensor([[0, 0, 1, 1, 2, 2],
                [0, 0, 1, 1, 2, 2],
                [3, 3, 4, 4, 5, 5],
                [3, 3, 4, 4, 5, 5]])
    """
    columns = rows if columns is None else columns
    _check(images, min(rows, columns), channels=False)
    height, width = images.shape[2:]
    across, down = torch.arange(width) * columns // width, torch.arange(height) * rows // height
    return (down[:, None] * columns + across)[None]


def _check(images: Tensor, count: int, channels: bool = True) -> None:
    if images.dim() != 4 or (channels and images.shape[1] not in (1, 3)):
        raise ShapeError(f"pictures are (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if not images.numel():
        raise ShapeError(f"the pictures have no pixels: {tuple(images.shape)}")
    if channels and not images.isfinite().all():
        raise NonFiniteError("the pictures have NaN or infinite numbers")
    if count < 1:
        raise ArgumentError(f"at least one segment, got {count}")
