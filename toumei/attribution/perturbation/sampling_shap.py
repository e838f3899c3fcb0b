"""Shapley values by sampling orders in which features are shown, until their standard errors are small."""

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from .coalitions import CoalitionMethod, Game, Solution

_FEWEST = 8  # pairs, before their spread says how far their mean can be believed


class ShapleySampling(CoalitionMethod):
    """Shapley values as means over random orders (Castro et al., 2009), each with its reverse.

    An order and its reverse are one sample, as their errors cancel in part (Mitchell et al., 2022). Values
    add up whenever sampling stops. Pairs take turns at the draws of a random baseline.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = ShapleySampling(nn.Sequential(nn.Linear(20, 3), nn.Tanh(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 20), target=1, tolerance=0.1)
        >>> bool(result.gap.abs().max() < 1e-5), result.standard_error.shape
        (True, torch.Size([5, 20]))
    """

    def solve(
        self,
        game: Game,
        *,
        seed: int | None,
        samples: int = 200,
        tolerance: float = 0.05,
    ) -> Solution:
        """Returns the values and their standard errors.

        Args:
            game: The scores of coalitions.
            seed: Seed of the orders, which all inputs share.
            samples: At most so many orders, reversed ones included, each of M - 1 passes; but each draw of a
                random baseline is used.
            tolerance: An input is finished once the largest standard error among its features is at most this
                share of its largest value, for all targets; 0 to take all samples.

        Raises:
            ArgumentError: Fewer than 16 samples, or a negative tolerance.
        """
        if samples < 2 * _FEWEST or tolerance < 0:
            raise ArgumentError(
                f"at least {2 * _FEWEST} samples and a tolerance from 0 on, got {samples} and {tolerance}"
            )
        generator = make_generator(seed)
        draws = game.masking.draws
        # whole turns of the draws, so that values add up to the mean over them
        turns = -(-_FEWEST // draws) * draws
        mean = torch.zeros(len(game.rows), game.count, game.targets, dtype=torch.float64)
        squares, error, done = torch.zeros_like(mean), torch.zeros_like(mean), 0
        active = torch.arange(len(mean))
        while len(active) and done < samples // 2:
            left = max(1, (samples // 2 - done) // draws) * draws
            turn = min(left, turns if not done else draws * max(1, turns // (2 * draws)))
            for own in marginals(game, turn, active, generator):
                done += 1
                step = own - mean[active]
                mean[active] += step / done
                squares[active] += step * (own - mean[active])
            error[active] = (squares[active] / (done * (done - 1))).sqrt()
            wrong = error[active].amax(1) > tolerance * mean[active].abs().amax(1)
            active = active[wrong.any(1)]
        return Solution(mean, error)


def marginals(game: Game, pairs: int, rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Returns what features add when shown, the mean over an order and its reverse, (pairs, R, M, T).

    Args:
        game: The scores of coalitions.
        pairs: How many orders.
        rows: (R,) for which of the game's inputs.
        generator: Where randomness comes from.
    """
    count = game.count
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(pairs)])
    ranks = torch.stack([orders, orders.flip(1)], 1).argsort(2)
    keep = ranks[:, :, None] < torch.arange(1, count)[:, None]
    shape = (*keep.shape[:3], len(rows))
    places = [place.flatten() for place in torch.meshgrid(*map(torch.arange, shape), indexing="ij")]
    which = (places[0] * 2 + places[1]) * (count - 1) + places[2]
    draws = places[0] % game.masking.draws
    scores = game.scores(keep.flatten(0, 2), which, rows[places[3]], draws).reshape(*shape, -1)
    empty = game.empties[rows][:, torch.arange(pairs) % game.masking.draws].movedim(1, 0)
    ends = [end[:, None, None].expand(-1, 2, 1, -1, -1) for end in (empty, game.full[rows].expand_as(empty))]
    added = torch.cat([ends[0], scores, ends[1]], 2).diff(dim=2)
    own = added.gather(2, ranks[..., None, None].expand_as(added)).mean(1)
    return own.transpose(1, 2)
