"""Shapley values by sampling orders in which features are shown, until their standard errors are small."""

import torch
from torch import Tensor

from ...core.checks import check_counts, check_memory
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from .coalitions import CoalitionMethod, Game, Solution
from .features import FeaturesLike

_FEWEST = 8  # pairs of orders before the standard error of their mean is used


class ShapleySampling(CoalitionMethod):
    """Shapley values as means over random orders (Castro et al., 2009), each with its reverse.

    An order and its reverse are a pair, as their errors cancel in part (Mitchell et al., 2022). The values
    add up after any number of samples.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        samples: Most orders of the features, reversed ones included, each of M - 1 passes; but each sample of
            a random baseline is used.
        tolerance: An input is finished once the largest standard error among its features is at most this
            share of its largest value, for all targets; 0 to take all samples.
        features: Which numbers belong together, as for every `CoalitionMethod`: whole numbers in the shape of
            the inputs, or a function from the inputs to them. By default superpixels of pictures, else each
            position, token or column.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: Samples of a random baseline, with which pairs of orders take turns.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of the orders, which all inputs share, and of a random baseline.
        verbose: Show progress after two seconds.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(20, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> result = ShapleySampling(model, tolerance=0.1)(torch.randn(5, 20), target=1)
        >>> bool(result.gap.abs().max() < 1e-5), result.standard_error.shape
        (True, torch.Size([5, 20]))
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        samples: int = 200,
        tolerance: float = 0.05,
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
        check_counts(2 * _FEWEST, samples=samples)
        if not tolerance >= 0:
            raise ArgumentError(f"tolerance is a number from 0 on, got {tolerance}")
        self.samples = samples
        self.tolerance = tolerance

    def solve(self, game: Game) -> Solution:
        """Returns the values and their standard errors."""
        check_memory(
            f"an order of {game.count:,} features and its reverse, each with {2 * game.count:,} coalitions,",
            2 * _FEWEST * game.count**2,
            "give fewer features=..., such as superpixels",
            itemsize=1,
        )
        generator, pairs, count = make_generator(self.seed), self.samples // 2, game.baseline_samples
        # each baseline sample equally often, so that values add up to the mean over the samples
        first = -(-_FEWEST // count) * count
        mean = torch.zeros(len(game.rows), game.count, game.targets, dtype=torch.float64)
        squares, error, done = torch.zeros_like(mean), torch.zeros_like(mean), 0
        active = torch.arange(len(mean))
        while len(active) and done < pairs:
            left = max(1, (pairs - done) // count) * count
            turn = min(left, first if not done else count * max(1, first // (2 * count)))
            for added in marginals(game, turn, active, generator):
                done += 1
                step = added - mean[active]
                mean[active] += step / done
                squares[active] += step * (added - mean[active])
            error[active] = (squares[active] / (done * (done - 1))).sqrt()
            wrong = error[active].amax(1) > self.tolerance * mean[active].abs().amax(1)
            active = active[wrong.any(1)]
        return Solution(mean, error)


def marginals(game: Game, pairs: int, rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Returns how much the score rises when features are shown, the mean over an order and its reverse.

    Args:
        game: The scores of coalitions.
        pairs: How many orders.
        rows: (R,) the inputs of the game that are explained.
        generator: Where randomness comes from.

    Returns:
        (pairs, R, M, T).
    """
    count = game.count
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(pairs)])
    ranks = torch.stack([orders, orders.flip(1)], 1).argsort(2)
    keep = ranks[:, :, None] < torch.arange(1, count)[:, None]
    shape = (*keep.shape[:3], len(rows))
    pair, reverse, step, row = (
        index.flatten() for index in torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    )
    which = (pair * 2 + reverse) * (count - 1) + step
    samples = pair % game.baseline_samples
    scores = game.scores(keep.flatten(0, 2), which, rows[row], samples).reshape(*shape, game.targets)
    empty = game.empties[rows][:, torch.arange(pairs) % game.baseline_samples].movedim(1, 0)
    ends = [end[:, None, None].expand(-1, 2, 1, -1, -1) for end in (empty, game.full[rows].expand_as(empty))]
    added = torch.cat([ends[0], scores, ends[1]], 2).diff(dim=2)
    of_features = added.gather(2, ranks[..., None, None].expand_as(added)).mean(1)
    return of_features.transpose(1, 2)
