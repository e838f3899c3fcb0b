"""The base of parameterizations: a picture as a function of parameters."""

from abc import ABC, abstractmethod
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import check_memory, checked
from ...core.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


class Generator(ABC):
    """A batch of pictures as a differentiable function of parameters that an optimizer changes.

    A new parameterization is a subclass with `parameters`, `get_image` and `to`.

    Example:
        >>> from toumei.cnns.parameterization import PixelImage
        >>> image = PixelImage(2, 3, 16, 16, seed=0)
        >>> isinstance(image, Generator), image.get_image().shape
        (True, torch.Size([2, 3, 16, 16]))
    """

    @property
    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The leaf tensors that an optimizer changes."""

    @abstractmethod
    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W), RGB in [0, 1]."""

    @abstractmethod
    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the parameters and constants to a device; returns the generator itself."""

    def view(self, image: Tensor) -> Tensor:
        """Returns what the network sees: the pictures themselves, unless they are transformed.

        With several `views` of each picture, the first views of all pictures come first, then the second.
        """
        return image

    @property
    def views(self) -> int:
        """How many views of each picture `view` returns; the score is the mean over them."""
        return 1

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.parameters[0].device

    def numpy(self) -> "np.ndarray[Any, Any]":
        """Returns the pictures as an array (N, H, W, C), without the graph."""
        with torch.no_grad():
            return self.get_image().permute(0, 2, 3, 1).cpu().numpy()

    @checked
    def plot_image(self, ax: "Axes | None" = None) -> "Axes":
        """Returns matplotlib axes that show the pictures as a grid."""
        from ...plots.images import image_grid

        with torch.no_grad():
            return image_grid(self.get_image(), ax=ax)


def check_size(name: str, images: int, channels: int, height: int, width: int) -> None:
    """Raises a `ShapeError` unless all four are positive whole numbers, for pictures that memory holds."""
    size = (images, channels, height, width)
    if not all(type(number) is int and number > 0 for number in size):
        raise ShapeError(
            f"{name} takes four positive whole numbers (images, channels, height, width), got {size}"
        )
    check_memory(f"{name} of {size}", prod(size), "give a smaller size", itemsize=16)


def check_deviation(sd: float) -> None:
    """Raises an `ArgumentError` unless the deviation of first pictures is a finite number from 0 on."""
    if not 0 <= sd < torch.finfo(torch.float16).max:
        raise ArgumentError(f"sd is a finite number from 0 on, got {sd}")
