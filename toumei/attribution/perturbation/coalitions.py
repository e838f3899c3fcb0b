"""Coalitions of features: their scores, and what every method that learns from them is."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ..base.baselines import BaselineLike
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution, Values
from .features import Features, Segments, features_of
from .masking import Masking, Masks


@dataclass(frozen=True, eq=False)
class Solution:
    """What the features of R inputs contribute to T targets; float64, on the CPU.

    Attributes:
        values: (R, M, T).
        standard_error: (R, M, T), where the method samples.
        r_squared: (R, T), where there is a surrogate.
        interactions: (R, M, M, T), where asked for.
    """

    values: Tensor
    standard_error: Tensor | None = None
    r_squared: Tensor | None = None
    interactions: Tensor | None = None


class Game:
    """The scores of R inputs of which coalitions of M features stay.

    Args:
        masking: The masking engine.
        segments: The features of all inputs.
        rows: (R,) which inputs.
        members: (R, M) which of the features each of them has.

    Attributes:
        count: M.
        rows: As given.
        targets: T.
        full: (R, T) scores of the inputs.
        empties: (R, K, T) scores with all features hidden, for each draw of the baseline.
        empty: (R, T), their mean.
        dtype: That of results: the scores', at least float32.
    """

    def __init__(self, masking: Masking, segments: Segments, rows: Tensor, members: Tensor) -> None:
        self.masking = masking
        self.segments = segments
        self.rows = rows
        self.members = members
        self.count = members.shape[1]
        self.targets = len(masking.problem.targets)
        self.dtype = torch.float32
        ends, own, draws = torch.tensor([[True], [False]]), torch.arange(len(rows)), masking.draws
        # each input as it is, then each with all features hidden for each draw
        hidden, drawn = own.repeat_interleave(draws), torch.arange(draws).repeat(len(rows))
        which = (torch.arange(len(rows) * (1 + draws)) >= len(rows)).long()
        scores = self.scores(
            ends.expand(2, self.count), which, torch.cat([own, hidden]), torch.cat([0 * own, drawn])
        )
        self.full = scores[: len(rows)]
        self.empties = scores[len(rows) :].reshape(len(rows), draws, self.targets)
        self.empty = self.empties.mean(1)

    def only(self, row: int) -> "Game":
        """Returns the game of one of the inputs."""
        game = object.__new__(Game)
        game.__dict__.update(self.__dict__)
        game.rows, game.members = self.rows[row : row + 1], self.members[row : row + 1]
        game.full, game.empty = self.full[row : row + 1], self.empty[row : row + 1]
        game.empties = self.empties[row : row + 1]
        return game

    def values(self, keep: Tensor) -> Tensor:
        """Returns the values of coalitions (C, M): scores (C, R, T), the mean over draws of the baseline."""
        return self.each(keep).mean(2)

    def each(self, keep: Tensor) -> Tensor:
        """Returns the scores (C, R, K, T) of coalitions (C, M) with each draw of the baseline."""
        shape = (len(keep), len(self.rows), self.masking.draws)
        places = torch.arange(shape[0] * shape[1] * shape[2])
        which, rest = places // (shape[1] * shape[2]), places % (shape[1] * shape[2])
        scores = self.scores(keep, which, rest // shape[2], rest % shape[2])
        return scores.reshape(*shape, self.targets)

    def scores(self, keep: Tensor, which: Tensor, rows: Tensor, draws: Tensor) -> Tensor:
        """Returns scores (B, T), float64 on the CPU, of masked inputs.

        Args:
            keep: (C, M) coalitions.
            which: (B,) the coalition of each.
            rows: (B,) which of the R inputs.
            draws: (B,) with which draw of the baseline.
        """
        result = torch.empty(len(which), self.targets, dtype=torch.float64)
        masks = self.masks(keep, which, rows)
        for positions, scores in self.masking.stream(masks, self.rows[rows], draws):
            result[positions.cpu()] = scores.double().cpu()
            self.dtype = torch.promote_types(scores.dtype, torch.float32)
        return result

    def masks(self, keep: Tensor, which: Tensor, rows: Tensor) -> Masks:
        """Returns the masks, for the engine, of coalitions; see `scores`."""
        device = self.masking.problem.tensors[0].device
        keep, which, rows = keep.to(device), which.to(device), rows.to(device)
        members, inputs = self.members.to(device), self.rows.to(device)

        def masks(positions: Tensor) -> tuple[Tensor, ...]:
            stay, own = keep[which[positions]], rows[positions]
            if self.count < self.segments.count:
                others = stay.new_ones(len(stay), self.segments.count)
                stay = others.scatter(1, members[own], stay)
            return self.segments.masks(stay, inputs[own])

        return masks


class CoalitionMethod(Method):
    """A method that learns from the scores of coalitions of features; a subclass says how."""

    complete = True

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        features: Features = None,
        channel_axis: int | None = None,
        background: int = 10,
        batch_size: int = 64,
        seed: int | None = 0,
        verbose: bool = True,
        **options: Any,
    ) -> Attribution:
        """Returns the contributions of features.

        Args:
            problem: The network and its inputs.
            baselines: What hidden features are replaced by.
            features: Whole numbers that say which parts belong together, a tensor that broadcasts to the
                inputs behind the batch axis or (N, ...); a tuple or dictionary of them for such inputs. By
                default superpixels of pictures, else each position, token or column.
            channel_axis: The axis of the channels, whose positions are features by default; axis 1 of maps
                (N, C, H, W) and films (N, C, T, H, W) and the last of tokens (N, T, C), unless it is given.
                For signals (N, C, L), the inputs of an nn.Conv1d, it is 1.
            background: How many draws of a random baseline, such as `FromData`, a score is the mean over.
            batch_size: How many inputs pass through the network at a time.
            seed: Seed of everything drawn.
            verbose: Show progress once it takes longer than two seconds.
            **options: Those of the method.

        Raises:
            ArgumentError: An argument that makes no sense.
            ShapeError: Features or baselines that do not fit the inputs.
        """
        self._check_options(options)
        segments = features_of(problem, features, channel_axis)
        masking = Masking(problem, baselines, background, batch_size, seed, verbose)
        solved = [(game, self.solve(game, seed=seed, **options)) for game in _games(masking, segments)]
        count = segments.count

        def gathered(name: str, *axes: int) -> Tensor | None:
            """One field of all solutions, (T, N, M, ...), zero where an input does not have a feature."""
            if getattr(solved[0][1], name) is None:
                return None
            result = torch.zeros(len(problem), *axes, len(problem.targets), dtype=torch.float64)
            for game, solution in solved:
                own = getattr(solution, name)
                rows, first = game.rows.reshape(-1, *(1,) * len(axes)), game.members
                places = (first[:, :, None], first[:, None]) if len(axes) == 2 else (first,)
                result[(rows, *places)[: 1 + len(axes)]] = own
            return result.movedim(-1, 0).to(solved[0][0].dtype)

        def ends(name: str) -> Tensor:
            scores = torch.empty(len(problem), len(problem.targets), dtype=solved[0][0].dtype)
            for game, _ in solved:
                scores[game.rows] = getattr(game, name).to(scores)
            return problem.per_input(scores)

        def for_targets(values: Tensor | None) -> Tensor | None:
            return values if values is None or problem.several else values[0]

        def spread(values: Tensor | None) -> Values | None:
            return None if values is None else problem.restore(segments.spread(values, problem.tensors))

        values = gathered("values", count)
        spread_values = spread(values)
        assert spread_values is not None
        return Attribution(
            spread_values,
            ends("full"),
            ends("empty"),
            spread(gathered("standard_error", count)),
            for_targets(gathered("r_squared")),
            for_targets(values),
            for_targets(gathered("interactions", count, count)),
            method=type(self).__name__,
            seed=seed,
            several=problem.several,
            complete=self.complete,
        )

    @abstractmethod
    def solve(self, *args: Any, **options: Any) -> Solution:
        """Returns what features contribute; called with a `Game`, ``seed=`` and the options of the method."""

    def _check_options(self, options: Mapping[str, Any]) -> None:
        known = [name for name in signature(self.solve).parameters if name not in ("game", "seed")]
        for name in options:
            if name not in known:
                raise ArgumentError(f"no option {name!r}: {type(self).__name__} has {', '.join(known)}")


def _games(masking: Masking, segments: Segments) -> Iterator[Game]:
    """One game for all inputs that have as many features."""
    members = segments.members(len(masking.problem))
    on_device = segments.to(masking.problem.tensors[0].device)
    for count in sorted({len(own) for own in members}):
        rows = [row for row, own in enumerate(members) if len(own) == count]
        yield Game(masking, on_device, torch.tensor(rows), torch.stack([members[row] for row in rows]))
