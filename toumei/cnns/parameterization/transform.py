"""Pictures that the network sees transformed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.errors import ShapeError
from .generator import Generator


class Transform(Generator):
    """The pictures of another generator, shown to the network through transforms.

    `get_image` still returns the pictures themselves; `view` is what the network is shown.

    Args:
        generator: Makes the pictures.
        *transforms: Callables from (N, C, H, W) to (N, C, H', W'), applied in this order: those of
            `toumei.cnns.robustness`, torchvision's, kornia's, or any function.

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

    def view(self, image: Tensor) -> Tensor:
        """Returns the transformed pictures.

        Raises:
            ShapeError: A transform returned something else than a batch (N, C, H, W) of as many pictures.
        """
        image = self.generator.view(image)
        for transform in self.transforms:
            seen = transform(image)
            if not isinstance(seen, Tensor) or seen.dim() != 4 or len(seen) != len(image):
                got = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
                raise ShapeError(
                    f"{transform!r} must return {len(image)} pictures as (N, C, H, W), got {got}"
                )
            image = seen
        return image

    def to(self, device: torch.device | str) -> Self:
        """Moves the generator and those transforms that are modules."""
        self.generator.to(device)
        for transform in self.transforms:
            if isinstance(transform, nn.Module):
                transform.to(device)
        return self
