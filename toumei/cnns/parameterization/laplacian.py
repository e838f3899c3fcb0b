"""Pictures as sums of levels of growing resolution."""

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from .color import ColorSpace
from .colored import Colored
from .generator import check_deviation, check_size
from .shared import stretched


@checked
class LaplacianImage(Colored):
    """Pictures that are sums of levels, each half as large as the one before (lucid's laplacian pyramid).

    Coarse shapes have few parameters and move fast, as in `FFTImage`, but stay local.

    Args:
        images: How many pictures.
        channels: Colour channels, three for RGB.
        height: Height in pixels.
        width: Width in pixels.
        levels: Number of levels; the last has sides of at least one pixel.
        sd: Standard deviation of the noise to start from, at each level.
        decorrelate: See `ColorSpace`.
        sigmoid: See `ColorSpace`.
        seed: Seed of the noise.

    Raises:
        ShapeError: A size that is not a positive whole number, or a colour matrix that is not 3x3.
        ArgumentError: Less than one level.

    Example:
        >>> [level.shape[2:] for level in LaplacianImage(1, 3, 31, 20, levels=3, seed=0).parameters]
        [torch.Size([31, 20]), torch.Size([15, 10]), torch.Size([7, 5])]
    """

    def __init__(
        self,
        images: int,
        channels: int,
        height: int,
        width: int,
        *,
        levels: int = 4,
        sd: float = 0.01,
        decorrelate: bool | Tensor = True,
        sigmoid: bool = True,
        seed: int | None = None,
    ) -> None:
        check_size("LaplacianImage", images, channels, height, width)
        check_deviation(sd)
        if levels < 1:
            raise ArgumentError(f"a pyramid has at least 1 level, got {levels}")
        self.size = (height, width)
        generator = make_generator(seed)
        sizes = [(max(1, height >> level), max(1, width >> level)) for level in range(levels)]
        noise = [torch.randn(images, channels, *size, generator=generator) for size in sizes]
        self.levels = [(level * sd).requires_grad_() for level in noise]
        self.colors = ColorSpace(decorrelate, sigmoid, channels)

    @property
    def parameters(self) -> list[Tensor]:
        """The levels, from fine to coarse."""
        return self.levels

    def numbers(self) -> Tensor:
        """Returns the sum of the levels, each enlarged bilinearly, (N, C, H, W)."""
        finest, *coarser = self.levels
        return sum((stretched(level, len(level), self.size) for level in coarser), finest)

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the levels and the colour matrix."""
        self.levels = [level.detach().to(device).requires_grad_() for level in self.levels]
        self.colors.to(device)
        return self
