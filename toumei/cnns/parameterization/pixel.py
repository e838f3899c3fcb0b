"""Pictures whose pixels are optimized directly."""

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.seeding import make_generator
from .color import ColorSpace
from .generator import Generator, check_size


class PixelImage(Generator):
    """Pictures whose pixels are the parameters (lucid's `pixel_image`).

    Args:
        images: How many pictures.
        channels: Colour channels, three for RGB.
        height: Height in pixels.
        width: Width in pixels.
        sd: Standard deviation of the noise to start from, before the colours.
        decorrelate: See `ColorSpace`.
        sigmoid: See `ColorSpace`.
        seed: Seed of the noise.

    Raises:
        ShapeError: A size that is not a positive whole number, or a colour matrix that is not 3x3.

    Example:
        >>> PixelImage(2, 3, 9, 16, seed=0).get_image().shape
        torch.Size([2, 3, 9, 16])
    """

    def __init__(
        self,
        images: int,
        channels: int,
        height: int,
        width: int,
        *,
        sd: float = 0.01,
        decorrelate: bool | Tensor = True,
        sigmoid: bool = True,
        seed: int | None = None,
    ) -> None:
        check_size("PixelImage", images, channels, height, width)
        noise = torch.randn(images, channels, height, width, generator=make_generator(seed))
        self.pixels = (noise * sd).requires_grad_()
        self.colors = ColorSpace(decorrelate, sigmoid, channels)

    @property
    def parameters(self) -> list[Tensor]:
        """The pixels (N, C, H, W)."""
        return [self.pixels]

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]."""
        return self.colors(self.pixels)

    def to(self, device: torch.device | str) -> Self:
        """Moves the pixels and the colour matrix."""
        self.pixels = self.pixels.detach().to(device).requires_grad_()
        self.colors.to(device)
        return self
