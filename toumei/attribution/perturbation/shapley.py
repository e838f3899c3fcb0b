"""Exact Shapley values and pairwise interactions from the scores of all coalitions."""

from functools import cache
from math import comb

import torch
from torch import Tensor

from ...core.errors import ArgumentError, ShapeError
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from .coalitions import CoalitionMethod, Game, Solution
from .features import FeaturesLike

LARGEST = 16


class ExactShapley(CoalitionMethod):
    """Shapley values (Shapley, 1953) by enumeration of all 2^M coalitions of up to 16 features.

    A feature gets the mean, over all orders in which features can be shown, of how much the score rises when
    it is shown. For a random baseline the values are exact for the mean over its samples.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        interactions: Also fill `Attribution.interactions`.
        features: Which numbers belong together, as for every `CoalitionMethod`: whole numbers in the shape of
            the inputs, or a function from the inputs to them. By default superpixels of pictures, else each
            position, token or column.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: A score is the mean over so many samples of a random baseline, such as `FromData`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of a random baseline.
        verbose: Show progress after two seconds.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> result = ExactShapley(model, interactions=True)(torch.randn(5, 4), target=1)
        >>> bool(result.gap.abs().max() < 1e-5), result.interactions.shape
        (True, torch.Size([5, 4, 4]))
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        interactions: bool = False,
        features: FeaturesLike = None,
        channel_axis: int | None = None,
        baseline_samples: int = 10,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            model,
            layer,
            preprocess,
            features=features,
            channel_axis=channel_axis,
            baseline_samples=baseline_samples,
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
        )
        self.interactions = interactions

    def solve(self, game: Game) -> Solution:
        """Returns the values, and the interactions if asked for.

        Raises:
            ArgumentError: More than 16 features.
        """
        if game.count > LARGEST:
            passes = f" = {2**game.count:,}" if game.count <= 64 else ""
            raise ArgumentError(
                f"exact Shapley values of {game.count} features take 2^{game.count}{passes} "
                f"passes for each input and baseline, at most {LARGEST} features are enumerated: use "
                f"KernelShap, ShapleySampling or PartitionShap, or fewer features=..."
            )
        worth = game.values(coalitions(game.count))
        values = shapley_values(worth).movedim(0, 1)
        if not self.interactions:
            return Solution(values)
        return Solution(values, interactions=shapley_interactions(worth).movedim(2, 0))


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


def shapley_values(worth: Tensor) -> Tensor:
    """Returns the Shapley values (M, ...) of games.

    Args:
        worth: (2^M, ...) values of the coalitions in the order of `coalitions`.

    Example:
        A pair of gloves is worth 1, and only the first player has a left one:

        >>> worth = torch.tensor([0., 0., 0., 1., 0., 1., 0., 1.])
        >>> shapley_values(worth)
        tensor([0.6667, 0.1667, 0.1667], dtype=torch.float64)

    Raises:
        ShapeError: The number of rows is no power of two.
    """
    result: Tensor = torch.tensordot(_weights(_players(worth)), worth.double(), 1)
    return result


def shapley_interactions(worth: Tensor) -> Tensor:
    """Returns the interaction values (M, M, ...) of games (Lundberg et al., 2018).

    Each entry of a pair is half of its Shapley interaction index. The diagonal holds the rest of a player's
    Shapley value, so that rows sum to Shapley values and everything to the difference of the scores.

    Args:
        worth: (2^M, ...) values of the coalitions in the order of `coalitions`.

    Example:
        >>> shapley_interactions(torch.tensor([0., 1., 2., 7.]))
        tensor([[1., 2.],
                [2., 2.]], dtype=torch.float64)
    """
    count = _players(worth)
    worth, members = worth.double(), coalitions(count)
    result = worth.new_zeros(count, count, *worth.shape[1:])
    for one in range(count):
        without = [player for player in range(count) if player != one]
        if without:
            # how much more the others are worth to each other when this one is present
            difference = worth[members[:, one]] - worth[~members[:, one]]
            result[one, without] = shapley_values(difference) / 2
    diagonal = torch.arange(count)
    result[diagonal, diagonal] = shapley_values(worth) - result.sum(1)
    return result


def _players(worth: Tensor) -> int:
    count = len(worth).bit_length() - 1
    if len(worth) != 2**count or count < 1:
        raise ShapeError(f"the values of all coalitions have 2, 4, 8, ... rows, got {len(worth)}")
    return count


@cache
def _weights(count: int) -> Tensor:
    """The weight of each coalition's value in each player's Shapley value, (count, 2^count)."""
    members = coalitions(count)
    sizes = members.sum(1)
    # the share of orders in which exactly these players come first, by their number; 0 for all players
    shares = [1 / (count * comb(count - 1, size)) for size in range(count)] + [0.0]
    first = torch.tensor(shares, dtype=torch.float64)
    return torch.where(members.T, first[sizes - 1], -first[sizes])
