"""Pictures with one region that is optimized."""

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ShapeError
from ..inputs import as_images
from .generator import Generator


@checked
class Masked(Generator):
    """Given pictures in which a generator makes one region; the rest is not changed.

    Args:
        generator: Makes the pictures inside the mask, such as ``FFTImage.from_image(image)``.
        image: The pictures outside of the mask, (N, C, H, W) in [0, 1], or one for all.
        mask: 1 or True inside, 0 outside, numbers between them for soft edges: (H, W), or any shape that
            broadcasts to the pictures.

    Raises:
        ShapeError: Pictures or a mask of another size or range, or a mask that is empty.

    Example:
        >>> from toumei.cnns.parameterization import FFTImage
        >>> photograph, mask = torch.rand(1, 3, 31, 20), torch.zeros(31, 20)
        >>> mask[10:20, 5:15] = 1
        >>> made = Masked(FFTImage(1, 3, 31, 20), photograph, mask).get_image()
        >>> bool((made == photograph)[..., mask == 0].all())
        True
    """

    def __init__(self, generator: Generator, image: Tensor, mask: Tensor) -> None:
        self.generator = generator
        self.image = as_images(image, "image", single=False).to(generator.device)
        with torch.no_grad():
            size = tuple(generator.get_image().shape)
        for name, given in (("image", image), ("mask", mask)):
            if not _fits(tuple(given.shape), size):
                raise ShapeError(f"the {name} must fit pictures of {size}, got {tuple(given.shape)}")
        self.mask = mask.detach().to(generator.device, torch.float32)
        low, high = self.mask.min().item(), self.mask.max().item()
        if not (low >= 0 and high <= 1):
            raise ShapeError(f"a mask has numbers from 0 to 1, got {low:g} to {high:g}")
        if high == 0:
            raise ShapeError("the mask is empty: nothing would be optimized")

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of the generator."""
        return self.generator.parameters

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]."""
        return torch.lerp(self.image, self.generator.get_image(), self.mask)

    def view(self, image: Tensor) -> Tensor:
        """Returns what the generator shows to the network."""
        return self.generator.view(image)

    @property
    def views(self) -> int:
        """The views that the generator makes."""
        return self.generator.views

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the generator, the pictures and the mask."""
        self.generator.to(device)
        self.image, self.mask = self.image.to(device), self.mask.to(device)
        return self


def _fits(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to a size, with the full height and width."""
    if not 2 <= len(shape) <= 4 or shape[-2:] != size[-2:]:
        return False
    return all(mine in (1, theirs) for mine, theirs in zip(shape[::-1], size[::-1], strict=False))
