"""The colours of given images, for pictures in a basis in which these are uncorrelated."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ..inputs import as_images, images_in


@checked
def color_matrix(loader: Iterable[Any]) -> Tensor:
    """Returns the square root of the colour covariance of images, (3, 3), as `ColorSpace` takes it.

    The columns are the principal colours, each as long as its standard deviation, all divided by the longest
    (the Karhunen-Loeve transform that lucid measured on ImageNet). It takes one pass and keeps only sums.

    Args:
        loader: Batches (N, 3, H, W) or single images (3, H, W) in [0, 1]; of tuples the first entry.

    Raises:
        ArgumentError: The loader is empty, or all its pixels have one colour.
        ShapeError: Images of another rank, range or number of channels.

    Example:
        >>> color_matrix([torch.rand(4, 3, 8, 8)]).shape
        torch.Size([3, 3])
    """
    count, total, products = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for batch in loader:
        images = as_images(images_in(batch), "images")
        if images.shape[1] != 3:
            raise ShapeError(f"a colour matrix is measured on images of 3 channels, got {images.shape[1]}")
        pixels = images.double().cpu().movedim(1, 3).reshape(-1, 3)
        count, total, products = count + len(pixels), total + pixels.sum(0), products + pixels.T @ pixels
    if count == 0:
        raise ArgumentError("no images to measure the colours of: the loader is empty")
    mean = total / count
    variances, directions = torch.linalg.eigh(products / count - mean[:, None] * mean)
    if variances[-1] <= 1e-12:
        raise ArgumentError("all pixels have one colour: there is no covariance to decorrelate")
    root = (directions * variances.clamp(min=0).sqrt()).flip(1)
    result: Tensor = (root / torch.linalg.vector_norm(root, dim=0).max()).float()
    return result
