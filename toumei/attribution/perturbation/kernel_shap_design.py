"""The coalitions that KernelSHAP scores, and their weights."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.summaries import counted


@dataclass(frozen=True, eq=False)
class Design:
    """Coalitions of M features, each followed by its complement.

    Attributes:
        keep: (C, M) bool, all different.
        weights: (C,) float64, with sum 1, in proportion to the Shapley kernel in expectation.
        sampled: (C,) whether a coalition was drawn, not enumerated with all others of its size.
    """

    keep: Tensor
    weights: Tensor
    sampled: Tensor

    @property
    def tells_errors(self) -> bool:
        """Whether residuals tell the error: all coalitions are there, or more than one pair was drawn."""
        return len(self.keep) == 2 ** self.keep.shape[1] - 2 or int(self.sampled.sum()) > 2


def kernel_design(count: int, samples: int, generator: torch.Generator | None = None) -> Design:
    """Returns the coalitions for a regression of that many samples.

    The smallest and largest coalitions have the largest weights; they are enumerated, for as many sizes as
    there are samples for. The rest are pairs of a coalition and its complement (Covert and Lee, 2021), drawn
    without replacement, equally many of each size, which is in proportion to their leverage in the regression
    (Musco and Witter, 2025), so that neither sizes nor duplicates add noise.

    Args:
        count: M, at least 2.
        samples: How many coalitions; at least 2 M, as fewer cannot determine M values.
        generator: Where randomness comes from.

    Raises:
        ArgumentError: Too few samples.

    Example:
        >>> kernel_design(3, 6).keep.int()
        tensor([[1, 0, 0],
                [0, 1, 1],
                [0, 1, 0],
                [1, 0, 1],
                [0, 0, 1],
                [1, 1, 0]], dtype=torch.int32)
    """
    least = min(2 * count, 2**count - 2)
    if samples < least:
        raise ArgumentError(
            f"{counted(samples, 'sample')} cannot determine the values of {counted(count, 'feature')}, it "
            f"takes at least {least}: give more samples=..., or fewer features=..., such as superpixels"
        )
    sizes = range(1, count // 2 + 1)
    pairs = [comb(count, size) // (1 + (2 * size == count)) for size in sizes]
    # of both sizes together: the kernel (M - 1) / (C(M, s) s (M - s)) times the number of coalitions
    masses = [(2 - (2 * size == count)) / (size * (count - size)) for size in sizes]
    keep, weights, sampled = [], [], []
    asked = _numbers(pairs, samples // 2, generator)
    for size, number, all_pairs, mass in zip(sizes, asked, pairs, masses, strict=True):
        if number:
            subsets = _subsets(count, size, number, all_pairs, generator)
            keep.append(torch.stack([subsets, ~subsets], 1).flatten(0, 1))
            weights.append(torch.full((2 * number,), mass / (2 * number), dtype=torch.float64))
            sampled.append(torch.full((2 * number,), number < all_pairs))
    weight = torch.cat(weights)
    return Design(torch.cat(keep), weight / weight.sum(), torch.cat(sampled))


def _numbers(pairs: list[int], left: int, generator: torch.Generator | None) -> list[int]:
    """How many pairs of each size, from the outside in: all of them, or an equal share of what is left."""
    asked = []
    for index, number in enumerate(pairs):
        # all of the first size, which make the values unique
        if index and number * (len(pairs) - index) > left:
            break
        asked.append(number)
        left -= number
    rest = pairs[len(asked) :]
    if rest:
        # rounded up or down at random, so that the expectation is exact
        start = torch.rand(1, generator=generator).double()
        ends = (start + torch.arange(len(rest) + 1) * left / len(rest)).floor().long()
        asked += [min(number, most) for number, most in zip(ends.diff().tolist(), rest, strict=True)]
    return asked


def _subsets(count: int, size: int, number: int, all_pairs: int, generator: torch.Generator | None) -> Tensor:
    """Different coalitions of one size, (number, count); of halves only those with the first feature."""
    half = 2 * size == count
    if number * 4 >= all_pairs:
        chosen = torch.tensor(list(combinations(range(count), size)))[:all_pairs]
        if number < all_pairs:
            chosen = chosen[torch.randperm(all_pairs, generator=generator)[:number]]
        return torch.zeros(number, count, dtype=torch.bool).scatter_(1, chosen, True)
    found = torch.zeros(0, count, dtype=torch.bool)
    while len(found) < number:
        order = torch.rand(number, count, generator=generator).argsort(1)
        subsets = order < size
        if half:
            subsets = subsets ^ ~subsets[:, :1]
        merged, first = torch.cat([found, subsets]).unique(dim=0, return_inverse=True)
        # in the order in which they were drawn: a cut of sorted ones would be biased
        drawn = torch.full((len(merged),), len(first)).scatter_reduce_(
            0, first, torch.arange(len(first)), "amin"
        )
        found = torch.cat([found, subsets])[drawn.sort().values][:number]
    return found
