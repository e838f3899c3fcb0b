"""Pictures that the network sees transformed."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.summaries import counted
from .generator import Generator


@checked
class Transform(Generator):
    """The pictures of another generator, which the network sees transformed.

    `get_image` returns the pictures themselves, `view` what the network sees.

    Args:
        generator: Makes the pictures.
        *transforms: Callables from (N, C, H, W) to (N, C, H', W'), applied in this order: those of
            `toumei.cnns.robustness`, torchvision's, kornia's, or any function. One with an attribute
            `views`, such as `robustness.Crops`, returns that many views of each picture, (views * N, C, H',
            W'): the first views of all pictures come first.

    Example:
        >>> from toumei.cnns import robustness
        >>> from toumei.cnns.parameterization import FFTImage
        >>> shown = Transform(FFTImage(1, 3, 32, 32), robustness.light(), robustness.preprocess("imagenet"))
        >>> shown.view(shown.get_image()).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(self, generator: Generator, *transforms: Callable[[Tensor], Tensor]) -> None:
        self.generator = generator
        self.transforms = transforms

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of the generator."""
        return self.generator.parameters

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) as the generator makes them."""
        return self.generator.get_image()

    @property
    def views(self) -> int:
        """The product of the views that the generator and the transforms make of a picture."""
        return self.generator.views * prod(map(_views, self.transforms))

    def view(self, image: Tensor) -> Tensor:
        """Returns the transformed pictures, (views * N, C, H', W').

        Raises:
            ShapeError: A transform returned no batch of the expected number of pictures.
        """
        image = self.generator.view(image)
        for transform in self.transforms:
            seen, count = transform(image), _views(transform) * len(image)
            if not isinstance(seen, Tensor) or seen.dim() != 4 or len(seen) != count:
                got = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
                raise ShapeError(
                    f"{transform!r} must return {counted(count, 'picture')} as (N, C, H, W), got {got}"
                )
            image = seen
        return image

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the generator and those transforms that are modules."""
        self.generator.to(device)
        for transform in self.transforms:
            if isinstance(transform, nn.Module):
                transform.to(device)
        return self


def _views(transform: Callable[[Tensor], Tensor]) -> int:
    """How many views of each picture a transform returns."""
    if isinstance(transform, nn.Sequential):
        return prod(map(_views, transform))
    return getattr(transform, "views", 1)
