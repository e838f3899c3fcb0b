"""Affine maps from the pixels of a picture to those of its view."""

from collections.abc import Sequence

import torch
from torch import Tensor

Size = tuple[int, int]


def shift_maps(x: Tensor, y: Tensor) -> Tensor:
    """Returns maps (N, 3, 3) that shift by x and y pixels, each (N,)."""
    maps = torch.eye(3).repeat(len(x), 1, 1)
    maps[:, 0, 2], maps[:, 1, 2] = x, y
    return maps


def maps_about_centre(cosine: Tensor, sine: Tensor, size: Size) -> Tensor:
    """Returns maps that rotate and zoom about the centre; `cosine` and `sine` are multiplied by the zoom."""
    centre_y, centre_x = ((pixels - 1) / 2 for pixels in size)
    maps = torch.eye(3).repeat(len(cosine), 1, 1)
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1] = cosine, sine, -sine, cosine
    maps[:, 0, 2] = centre_x - cosine * centre_x - sine * centre_y
    maps[:, 1, 2] = centre_y + sine * centre_x - cosine * centre_y
    return maps


def grid_from_pixels(size: Sequence[int]) -> Tensor:
    """Returns the map from pixels to the coordinates of `grid_sample`, in which the picture spans -1 to 1."""
    height, width = size
    return torch.tensor([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])


def pixels_from_grid(size: Sequence[int]) -> Tensor:
    """Returns the inverse of `grid_from_pixels`."""
    height, width = size
    return torch.tensor([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]])
