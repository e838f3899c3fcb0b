"""Pictures for the tests of transforms."""

import pytest
import torch

SIZES = [(24, 24), (31, 20), (20, 33)]
every_size = pytest.mark.parametrize("size", SIZES)


def ramps(images, height, width):
    """Pictures whose channels are the x and the y coordinate of each pixel, and one."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).float().expand(images, -1, -1, -1)


def pictures(images, *size):
    return torch.rand(images, 3, *size, generator=torch.Generator().manual_seed(1))
