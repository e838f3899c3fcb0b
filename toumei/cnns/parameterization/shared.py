"""Aligned families of pictures: their shared components are optimized together."""

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.summaries import counted
from .colored import Colored


@checked
class SharedImage(Colored):
    """Pictures that are sums of an individual component and of components that several pictures share.

    The shared components keep pictures of different objectives aligned, so that one can be blended into the
    next (Mordvintsev et al., Differentiable Image Parameterizations, 2018). They are enlarged to the family:
    a component of a single picture is the same in all; one of several pictures is interpolated from the first
    to the last; one with fewer pixels holds the coarse shapes (lucid's `lowres_tensor`).

    Args:
        individual: Makes the component of each picture, in the size of the family; its colours are used.
        *shared: Make the shared components, in any smaller or equal size; only their numbers are used.

    Raises:
        ShapeError: A component with other channels or more pictures than `individual`.

    Example:
        >>> from toumei.cnns.parameterization import FFTImage, PixelImage
        >>> each, same, coarse = FFTImage(5, 3, 31, 20), FFTImage(1, 3, 31, 20), PixelImage(2, 3, 8, 5)
        >>> family = SharedImage(each, same, coarse)
        >>> family.get_image().shape
        torch.Size([5, 3, 31, 20])
    """

    def __init__(self, individual: Colored, *shared: Colored) -> None:
        self.individual, self.shared, self.colors = individual, shared, individual.colors
        with torch.no_grad():
            images, channels = individual.numbers().shape[:2]
            for component in shared:
                count, wide = component.numbers().shape[:2]
                if wide != channels or count > images:
                    raise ShapeError(
                        f"{counted(images, 'picture')} of {counted(channels, 'channel')} cannot share a "
                        f"component of {counted(count, 'picture')} of {counted(wide, 'channel')}"
                    )

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of the individual components, then of the shared ones."""
        return [*self.individual.parameters, *(tensor for part in self.shared for tensor in part.parameters)]

    def numbers(self) -> Tensor:
        """Returns the sums (N, C, H, W) before the colours."""
        numbers = self.individual.numbers()
        for component in self.shared:
            numbers = numbers + stretched(component.numbers(), len(numbers), numbers.shape[2:])
        return numbers

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves all parts."""
        for part in (self.individual, *self.shared):
            part.to(device)
        return self


def stretched(numbers: Tensor, images: int, size: torch.Size | tuple[int, int]) -> Tensor:
    """Returns numbers (n, C, h, w) enlarged linearly to (images, C, *size); a single picture is repeated."""
    if numbers.shape[2:] != size:
        numbers = F.interpolate(numbers, size=tuple(size), mode="bilinear")
    if len(numbers) in (1, images):
        return numbers.expand(images, -1, -1, -1)
    along = numbers.flatten(1).T[None]  # the last axis, along which it is interpolated, has the pictures
    return F.interpolate(along, size=images, mode="linear")[0].T.reshape(images, *numbers.shape[1:])
