"""Exact Shapley values and pairwise interactions from the scores of all coalitions."""

from functools import cache
from math import comb

import torch
from torch import Tensor

from ...core.errors import ArgumentError, ShapeError
from .coalitions import CoalitionMethod, Game, Solution

LARGEST = 16


class ExactShapley(CoalitionMethod):
    """Shapley values (Shapley, 1953) by enumeration of all 2^M coalitions of up to 16 features.

    A feature gets the mean, over all orders in which features can be shown, of how much the score rises when
    it is shown. With draws of a random baseline, the values are exact for the mean over these draws.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = ExactShapley(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, interactions=True)
        >>> bool(result.gap.abs().max() < 1e-5), result.interactions.shape
        (True, torch.Size([5, 4, 4]))
    """

    def solve(self, game: Game, *, seed: int | None, interactions: bool = False) -> Solution:
        """Returns the values, and the interactions if asked for.

        Args:
            game: The scores of coalitions.
            seed: Not needed.
            interactions: Also fill `Attribution.interactions`.

        Raises:
            ArgumentError: More than 16 features.
        """
        if game.count > LARGEST:
            raise ArgumentError(
                f"exact Shapley values of {game.count} features take 2^{game.count} = {2**game.count:,} "
                f"passes for each input and baseline, at most {LARGEST} features are enumerated: use "
                f"KernelShap, ShapleySampling or PartitionShap, or fewer features=..."
            )
        table = game.values(coalitions(game.count))
        values = shapley_values(table).movedim(0, 1)
        if not interactions:
            return Solution(values)
        return Solution(values, interactions=shapley_interactions(table).movedim(2, 0))


def coalitions(count: int) -> Tensor:
    """Returns all coalitions of players, (2^count, count) bool; feature i is in those with bit i.

    Example:
        >>> coalitions(2).int()
        tensor([[0, 0],
                [1, 0],
                [0, 1],
                [1, 1]], dtype=torch.int32)
    """
    return torch.arange(2**count)[:, None].bitwise_right_shift(torch.arange(count)).bitwise_and(1).bool()


def shapley_values(table: Tensor) -> Tensor:
    """Returns the Shapley values (M, ...) of games.

    Args:
        table: (2^M, ...) values of the coalitions in the order of `coalitions`.

    Example:
        A pair of gloves is worth 1, and only the first player has a left one:

        >>> table = torch.tensor([0., 0., 0., 1., 0., 1., 0., 1.])
        >>> shapley_values(table)
        tensor([0.6667, 0.1667, 0.1667], dtype=torch.float64)

    Raises:
        ShapeError: The number of rows is no power of two.
    """
    return torch.tensordot(_weights(_players(table)), table.double(), 1)


def shapley_interactions(table: Tensor) -> Tensor:
    """Returns the interaction values (M, M, ...) of games (Lundberg et al., 2018).

    A pair's is half of its Shapley interaction index, for each of both; the diagonal holds what is left of a
    player's Shapley value, so that rows sum to Shapley values and everything to the score's difference.

    Args:
        table: (2^M, ...) values of the coalitions in the order of `coalitions`.

    Example:
        >>> shapley_interactions(torch.tensor([0., 1., 2., 7.]))
        tensor([[1., 2.],
                [2., 2.]], dtype=torch.float64)
    """
    count = _players(table)
    table, members = table.double(), coalitions(count)
    result = table.new_zeros(count, count, *table.shape[1:])
    for one in range(count):
        without = [player for player in range(count) if player != one]
        if without:
            # how much the others are worth more to each other when this one is there
            difference = table[members[:, one]] - table[~members[:, one]]
            result[one, without] = shapley_values(difference) / 2
    own = torch.arange(count)
    result[own, own] = shapley_values(table) - result.sum(1)
    return result


def _players(table: Tensor) -> int:
    count = len(table).bit_length() - 1
    if len(table) != 2**count or count < 1:
        raise ShapeError(f"a table of all coalitions has 2, 4, 8, ... rows, got {len(table)}")
    return count


@cache
def _weights(count: int) -> Tensor:
    """What each coalition's value counts for each player's Shapley value, (count, 2^count)."""
    members = coalitions(count)
    sizes = members.sum(1)
    # the share of orders in which exactly these others come first, by how many they are; 0 for all players
    shares = [1 / (count * comb(count - 1, size)) for size in range(count)] + [0.0]
    first = torch.tensor(shares, dtype=torch.float64)
    return torch.where(members.T, first[sizes - 1], -first[sizes])
