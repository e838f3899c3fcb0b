"""Activations that are sums of known features: the ground truth of dictionaries."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.summaries import counted
from .activation_source import Block


class SyntheticFeatures:
    """A generator of activations that are sums of a few features with known directions.

    Each feature is active with the same probability, independently of the others, with a magnitude that is
    even between 0.5 and 1.5. The directions are random, of length 1. It can be trained on like activations of
    a model.

    Args:
        features: How many features there are.
        width: How many numbers an activation has.
        active: How many features are active on average.
        noise: Standard deviation of the noise on each number.
        tokens: How many activations a pass over them has.
        seed: Draws directions and activations.

    Attributes:
        directions: (features, width).

    Raises:
        ArgumentError: A count that makes no sense.

    Example:
        >>> world = SyntheticFeatures(features=40, width=16, active=2)
        >>> values, magnitudes = world.sample(5, seed=1)
        >>> torch.allclose(values, magnitudes @ world.directions)
        True
    """

    names, fingerprint = ("activations",), ""

    @checked
    def __init__(
        self,
        features: int,
        width: int,
        active: float = 3.0,
        *,
        noise: float = 0.0,
        tokens: int = 2**16,
        seed: int = 0,
    ) -> None:
        check_counts(1, features=features, width=width, tokens=tokens)
        if not 0 < active <= features or not 0 <= noise < float("inf"):
            raise ArgumentError(
                f"active is above 0 and at most {features}, noise is from 0 on, got {active} and {noise}"
            )
        self.active, self.noise, self.tokens, self.seed = active, noise, tokens, seed
        generator = torch.Generator().manual_seed(seed)
        self.directions = F.normalize(torch.randn(features, width, generator=generator), dim=1)

    @checked
    def sample(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Returns activations (count, width) and the magnitudes of their features (count, features)."""
        check_counts(1, count=count)
        generator = torch.Generator().manual_seed(seed)
        shape = count, len(self.directions)
        there = torch.rand(shape, generator=generator) < self.active / len(self.directions)
        magnitudes = there * (0.5 + torch.rand(shape, generator=generator))
        values = magnitudes @ self.directions
        if self.noise:
            values = values + self.noise * torch.randn(values.shape, generator=generator)
        return values, magnitudes

    @checked
    def blocks(self, seed: int = 0) -> Iterator[Block]:
        """Yields a pass of activations; another seed gives others."""
        size = 2**13
        for start in range(0, self.tokens, size):
            count = min(size, self.tokens - start)
            yield {"activations": self.sample(count, seed=hash((self.seed, seed, start)) % 2**62)[0]}

    def __repr__(self) -> str:
        features, width = self.directions.shape
        return f"SyntheticFeatures({counted(features, 'feature')} of width {width}, {self.active:g} active)"
