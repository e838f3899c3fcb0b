"""Pictures with transparent regions."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.kinds import shown
from .fft import FFTImage
from .generator import Generator


@checked
class AlphaImage(Generator):
    """Pictures with an alpha channel, which the network sees in front of random backgrounds.

    With a cost on alpha, regions that do not matter to the network become transparent: subtract the mean of
    the last channel (lucid's `alpha=True` with `collapse_alpha_random`). `get_image` returns the colours and
    alpha, (N, C + 1, H, W), and so do results, which are plotted over a checkerboard; `view` returns the
    colours in front of a new background. Transforms go around it: ``Transform(AlphaImage(...), ...)``.

    Args:
        colors: Makes the colours.
        alpha: Makes the alpha, 0 for transparent: as many pictures of the same size with one channel.
        background: From colours (N, C, H, W) to as many backgrounds; `random_background` by default.

    Raises:
        ShapeError: The two make pictures that do not fit together.

    Example:
        >>> from toumei.cnns.parameterization import FFTImage
        >>> picture = AlphaImage(FFTImage(2, 3, 31, 20, seed=0), FFTImage(2, 1, 31, 20, seed=1))
        >>> picture.get_image().shape, picture.view(picture.get_image()).shape
        (torch.Size([2, 4, 31, 20]), torch.Size([2, 3, 31, 20]))
    """

    def __init__(
        self,
        colors: Generator,
        alpha: Generator,
        background: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        with torch.no_grad():
            (images, _, *size), alphas = colors.get_image().shape, tuple(alpha.get_image().shape)
        if alphas != (images, 1, *size):
            raise ShapeError(f"alpha must be {(images, 1, *size)} for these colours, got {alphas}")
        self.colors, self.alpha = colors, alpha
        self.background = background or random_background

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of the colours, then of the alpha."""
        return [*self.colors.parameters, *self.alpha.parameters]

    def get_image(self) -> Tensor:
        """Returns the colours and the alpha, (N, C + 1, H, W) in [0, 1]."""
        return torch.cat([self.colors.get_image(), self.alpha.get_image()], dim=1)

    def view(self, image: Tensor) -> Tensor:
        """Returns the colours in front of new backgrounds, (N, C, H, W)."""
        colors, alpha = image[:, :-1], image[:, -1:]
        behind = self.background(colors.detach())
        if not isinstance(behind, Tensor) or behind.shape != colors.shape:
            raise ShapeError(f"a background of {tuple(colors.shape)} is of that shape, got {shown(behind)}")
        return torch.lerp(behind, colors, alpha)

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the colours and the alpha."""
        self.colors.to(device)
        self.alpha.to(device)
        return self


@checked
def random_background(colors: Tensor) -> Tensor:
    """Returns random pictures of this size with natural spectra (lucid's `image_sample`).

    Args:
        colors: Pictures (N, C, H, W) of the size.

    Example:
        >>> random_background(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """
    if colors.dim() != 4:
        raise ShapeError(f"expected pictures (N, C, H, W), got {tuple(colors.shape)}")
    with torch.no_grad():
        return FFTImage(*colors.shape, sd=0.5).to(colors.device).get_image()
