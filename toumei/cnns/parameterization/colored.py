"""Pictures that are numbers turned into colours."""

from abc import abstractmethod

from torch import Tensor

from .color import ColorSpace
from .generator import Generator


class Colored(Generator):
    """Pictures whose colours are made by a `ColorSpace` from optimized numbers.

    A new one is a subclass with `parameters`, `numbers`, `to`, and the attribute `colors`.
    """

    colors: ColorSpace

    @abstractmethod
    def numbers(self) -> Tensor:
        """Returns what the colours are made from, (N, C, H, W); zero is gray."""

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]."""
        return self.colors(self.numbers())
