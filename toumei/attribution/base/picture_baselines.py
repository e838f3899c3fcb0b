"""Baselines of pictures: a blur, and parts filled from their surroundings."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ShapeError
from .baselines import Baseline, Mean, check_floating, mixed


@checked
@dataclass(frozen=True)
class Blur(Baseline):
    """A Gaussian blur of the picture, without small details; contributions favour high frequencies.

    Args:
        sigma: Standard deviation in pixels.

    Example:
        >>> spot = torch.zeros(1, 1, 5, 5)
        >>> spot[0, 0, 2, 2] = 1.0
        >>> Blur(1.0).draw(spot, 1).amax() < 0.25
        tensor(True)
    """

    sigma: float = 20.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, C, H, W) blurred copies.

        Raises:
            ArgumentError: Whole numbers.
            ShapeError: The inputs are not pictures (N, C, H, W).
        """
        _check_pictures(self, inputs)
        return _blurred(inputs, self.sigma).expand(count, *inputs.shape)


@checked
@dataclass(frozen=True)
class Inpaint(Baseline):
    """Parts that are removed are filled from their surroundings, with a blur of what is kept.

    As a whole baseline, with nothing kept, it is the mean colour.

    Args:
        sigma: Standard deviation of the blur in pixels.

    Example:
        >>> image = torch.full((1, 3, 8, 8), 0.7)
        >>> keep = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        >>> keep[..., 2:6, 2:6] = False
        >>> torch.allclose(Inpaint().fill(image, keep), image, atol=1e-5)
        True
    """

    sigma: float = 5.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, C, H, W) of the means.

        Raises:
            ArgumentError: Whole numbers.
            ShapeError: The inputs are not pictures (N, C, H, W).
        """
        _check_pictures(self, inputs)
        return Mean().draw(inputs, count)

    def fill(self, inputs: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns pictures (B, C, H, W) with the parts filled that are not kept."""
        weight = keep.to(inputs.dtype).expand(inputs.shape)
        # a little of the mean colour, so that the middle of a large hole has a colour
        known = _blurred(weight, self.sigma) + 1e-4
        around = (_blurred(inputs * weight, self.sigma) + 1e-4 * Mean().draw(inputs, 1)[0]) / known
        return mixed(keep, inputs, around)


def _check_pictures(baseline: Baseline, inputs: Tensor) -> None:
    check_floating(baseline, inputs)
    if inputs.dim() != 4:
        name = type(baseline).__name__
        raise ShapeError(f"a {name} baseline is for pictures (N, C, H, W), got {tuple(inputs.shape)}")


def _blurred(images: Tensor, sigma: float) -> Tensor:
    from kornia.filters import gaussian_blur2d

    size = [2 * min(int(4 * sigma + 0.5), side - 1) + 1 for side in images.shape[2:]]
    blurred: Tensor = gaussian_blur2d(images, (size[0], size[1]), (sigma, sigma), border_type="reflect")
    return blurred
