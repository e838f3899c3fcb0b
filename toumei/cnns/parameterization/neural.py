"""Pictures that are painted by a small network from the coordinates of their pixels."""

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.seeding import make_generator
from ...models.cppn import CPPN
from .generator import Generator, check_size


@checked
class Neural(Generator):
    """Pictures painted by compositional pattern-producing networks, one network a picture (lucid's `cppn`).

    They are smooth, so they are usually optimized without transforms, at a learning rate of 0.005. Pixels are
    square for any height and width.

    Args:
        images: How many pictures.
        channels: Colour channels, three for RGB.
        height: Height in pixels.
        width: Width in pixels.
        hidden: Units of a hidden layer.
        layers: Number of hidden layers.
        seed: Seed of the weights.

    Raises:
        ShapeError: A size that is not a positive whole number.

    Example:
        >>> Neural(1, 3, 20, 31, seed=0).get_image().shape
        torch.Size([1, 3, 20, 31])
    """

    def __init__(
        self,
        images: int,
        channels: int,
        height: int,
        width: int,
        *,
        hidden: int = 24,
        layers: int = 8,
        seed: int | None = None,
    ) -> None:
        check_size("Neural", images, channels, height, width)
        self.network = CPPN(hidden, layers, channels, images, generator=make_generator(seed))
        self.coordinates = CPPN.coordinates(height, width)

    @property
    def parameters(self) -> list[Tensor]:
        """The weights and biases of the networks."""
        return list(self.network.parameters())

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]."""
        image: Tensor = self.network(self.coordinates).sigmoid()
        return image

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the networks and the coordinates."""
        self.network.to(device)
        self.coordinates = self.coordinates.to(device)
        return self
