"""Pictures whose pixels are optimized directly."""

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.seeding import make_generator
from .color import MARGIN, ColorSpace
from .colored import Colored, gray_like
from .generator import check_deviation, check_size


@checked
class PixelImage(Colored):
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
        check_deviation(sd)
        noise = torch.randn(images, channels, height, width, generator=make_generator(seed))
        self.pixels = (noise * sd).requires_grad_()
        self.colors = ColorSpace(decorrelate, sigmoid, channels)

    @classmethod
    @checked
    def from_image(
        cls,
        image: Tensor,
        *,
        decorrelate: bool | Tensor = True,
        sigmoid: bool = True,
        margin: float = MARGIN,
    ) -> Self:
        """Returns a generator that starts from these pictures, on their device.

        Args:
            image: (N, C, H, W) in [0, 1].
            decorrelate: See `ColorSpace`.
            sigmoid: See `ColorSpace`. Pixels at 0 and 1 have next to no gradient under a sigmoid; without
                one they are exact and free to move.
            margin: See `ColorSpace.inverse`.

        Raises:
            ShapeError: Pictures of another rank or range, or a colour matrix without an inverse.

        Example:
            >>> photograph = torch.rand(1, 3, 9, 16)
            >>> torch.allclose(PixelImage.from_image(photograph).get_image(), photograph, atol=1e-5)
            True
        """
        made, numbers = gray_like(cls, image, margin, decorrelate=decorrelate, sigmoid=sigmoid)
        made.pixels = numbers.float().requires_grad_()
        return made

    @property
    def parameters(self) -> list[Tensor]:
        """The pixels (N, C, H, W)."""
        return [self.pixels]

    def numbers(self) -> Tensor:
        """Returns the pixels (N, C, H, W) before the colours."""
        return self.pixels

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the pixels and the colour matrix."""
        self.pixels = self.pixels.detach().to(device).requires_grad_()
        self.colors.to(device)
        return self
