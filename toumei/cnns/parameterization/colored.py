"""Pictures whose colours are made from optimized numbers."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from ..inputs import as_images
from .color import ColorSpace
from .generator import Generator


class Colored(Generator):
    """Pictures whose colours are made by a `ColorSpace` from optimized numbers.

    A new one is a subclass with `parameters`, `numbers`, `to`, and the attribute `colors`.

    Example:
        >>> from toumei.cnns.parameterization import FFTImage
        >>> issubclass(FFTImage, Colored)
        True
    """

    colors: ColorSpace

    @abstractmethod
    def numbers(self) -> Tensor:
        """Returns the numbers that the colours are made from, (N, C, H, W); zero is gray."""

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]."""
        return self.colors(self.numbers())


Made = TypeVar("Made", bound=Colored)


def gray_like(make: Callable[..., Made], image: Tensor, margin: float, **options: Any) -> tuple[Made, Tensor]:
    """Returns gray pictures of the shape and on the device of given ones, and the numbers of the given ones.

    Args:
        make: Makes pictures of a size (images, channels, height, width), from noise of a deviation `sd`.
        image: (N, C, H, W) in [0, 1].
        margin: See `ColorSpace.inverse`.
        **options: For `make`.

    Raises:
        ShapeError: Pictures of another rank or range, or a colour matrix without an inverse.
    """
    image = as_images(image, "image", single=False)
    made = make(*image.shape, sd=0.0, seed=0, **options).to(image.device)
    return made, made.colors.inverse(image, margin)
