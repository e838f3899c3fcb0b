"""Coalitions of features: their scores, and the base class of the methods that learn from them."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..base.baselines import BaselineLike
from ..base.problem import Problem
from ..base.reliability import check_scores
from ..base.result import Attribution
from .features import Segments, segments_of, with_features
from .masking import Masking, Masks
from .method import PerturbationMethod


@dataclass(frozen=True, eq=False)
class Solution:
    """The contributions of the features of R inputs to T targets; float64, on the CPU.

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
    """The scores of R inputs that keep coalitions of M features.

    Args:
        masking: The masking engine.
        segments: The features of all inputs.
        rows: (R,) which inputs.
        members: (R, M) which features each of them has.

    Attributes:
        count: M.
        rows: As given.
        targets: T.
        baseline_samples: K.
        full: (R, T) scores of the inputs.
        empties: (R, K, T) scores with all features hidden, for each baseline sample.
        empty: (R, T), their mean.
        dtype: Of results: the dtype of the scores, at least float32.
    """

    def __init__(self, masking: Masking, segments: Segments, rows: Tensor, members: Tensor) -> None:
        self.masking = masking
        self.segments = segments
        self.rows = rows
        self.members = members
        self.count = members.shape[1]
        self.targets = len(masking.problem.targets)
        self.dtype = torch.float32
        self.baseline_samples = masking.baseline_samples
        ends, inputs, count = torch.tensor([[True], [False]]), torch.arange(len(rows)), self.baseline_samples
        # the full inputs, then each with all features hidden, for each baseline sample
        hidden, samples = inputs.repeat_interleave(count), torch.arange(count).repeat(len(rows))
        which = (torch.arange(len(rows) * (1 + count)) >= len(rows)).long()
        scores = self.scores(
            ends.expand(2, self.count), which, torch.cat([inputs, hidden]), torch.cat([0 * inputs, samples])
        )
        self.full = scores[: len(rows)]
        self.empties = scores[len(rows) :].reshape(len(rows), count, self.targets)
        check_scores(self.full, "the scores of the inputs", rows)
        check_scores(self.empties, "the scores of inputs with all features hidden", rows)
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
        """Returns the values of coalitions (C, M): scores (C, R, T), the mean over baseline samples."""
        return self.each(keep).mean(2)

    def each(self, keep: Tensor) -> Tensor:
        """Returns the scores (C, R, K, T) of coalitions (C, M) with each baseline sample."""
        shape = (len(keep), len(self.rows), self.baseline_samples)
        numbers = torch.arange(shape[0] * shape[1] * shape[2])
        which, rest = numbers // (shape[1] * shape[2]), numbers % (shape[1] * shape[2])
        scores = self.scores(keep, which, rest // shape[2], rest % shape[2])
        return scores.reshape(*shape, self.targets)

    def scores(self, keep: Tensor, which: Tensor, rows: Tensor, samples: Tensor) -> Tensor:
        """Returns scores (B, T), float64 on the CPU, of masked inputs.

        Args:
            keep: (C, M) coalitions.
            which: (B,) the coalition of each.
            rows: (B,) which of the R inputs.
            samples: (B,) the baseline sample of each.
        """
        result = torch.empty(len(which), self.targets, dtype=torch.float64)
        if not len(which):
            return result
        masks = self.masks(keep, which, rows)
        for positions, scores in self.masking.stream(masks, self.rows[rows], samples):
            result[positions.cpu()] = scores.double().cpu()
            self.dtype = torch.promote_types(scores.dtype, torch.float32)
        return result

    def masks(self, keep: Tensor, which: Tensor, rows: Tensor) -> Masks:
        """Returns the masks, for the engine, of coalitions; see `scores`."""
        device = self.masking.problem.tensors[0].device
        keep, which, rows = keep.to(device), which.to(device), rows.to(device)
        members, inputs = self.members.to(device), self.rows.to(device)

        def masks(positions: Tensor) -> tuple[Tensor, ...]:
            kept, of_batch = keep[which[positions]], rows[positions]
            if self.count < self.segments.count:
                others = kept.new_ones(len(kept), self.segments.count)
                kept = others.scatter(1, members[of_batch], kept)
            return self.segments.masks(kept, inputs[of_batch])

        return masks


def by_features(
    method: PerturbationMethod,
    problem: Problem,
    baselines: BaselineLike,
    solve: Callable[[Game], Solution],
) -> Attribution:
    """Returns the contributions of features, as a function of the scores of their coalitions gives them.

    Args:
        method: The method, with its settings.
        problem: The network and its inputs.
        baselines: What hidden features are replaced by.
        solve: Returns what the features of a game contribute.

    Raises:
        ArgumentError: Features that make no sense, or too many or few of them for the method.
        ShapeError: Features or baselines that do not fit the inputs.
    """
    problem, features = with_features(problem, method.features)
    segments = segments_of(problem, features, method.channel_axis)
    masking = method.masking(problem, baselines)
    solved = [(game, solve(game)) for game in _games(masking, segments)]
    values = _gathered(solved, problem, "values", segments.count)
    errors = _gathered(solved, problem, "standard_error", segments.count)
    r_squared = _gathered(solved, problem, "r_squared")
    interactions = _gathered(solved, problem, "interactions", segments.count, segments.count)
    assert values is not None
    result = method.result(
        problem,
        segments.spread(values, problem.tensors),
        _scores(solved, problem, "full"),
        _scores(solved, problem, "empty"),
        None if errors is None else segments.spread(errors, problem.tensors),
    )

    def for_targets(found: Tensor | None) -> Tensor | None:
        return found if found is None or problem.several else found[0]

    return replace(
        result,
        r_squared=for_targets(r_squared),
        features=for_targets(values),
        interactions=for_targets(interactions),
    )


class CoalitionMethod(PerturbationMethod):
    """A method that learns from the scores of coalitions of features; a subclass says how.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        features: Which numbers of the inputs belong together: whole numbers in a shape that broadcasts to the
            inputs or to one of them, a tuple or dictionary of such tensors for several inputs, or a function
            from the inputs to these, such as `superpixels`. By default superpixels of pictures, else each
            position, token or column.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: A score is the mean over so many samples of a random baseline.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of everything that is drawn.
        verbose: Show progress after two seconds.

    Raises:
        LayerError: A layer that the model does not have.
        ArgumentError: A setting that makes no sense.
    """

    complete = True

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the contributions of features.

        Args:
            problem: The network and its inputs.
            baselines: What hidden features are replaced by.

        Raises:
            ArgumentError: Features that make no sense, or too many or few of them for the method.
            ShapeError: Features or baselines that do not fit the inputs.
        """
        return by_features(self, problem, baselines, self.solve)

    @abstractmethod
    def solve(self, game: Game) -> Solution:
        """Returns what the features of a game contribute."""


Solved = Sequence[tuple[Game, Solution]]


def _gathered(solved: Solved, problem: Problem, name: str, *axes: int) -> Tensor | None:
    """One field of all solutions, (T, N, M, ...), zero where an input does not have a feature.

    It is None where no solution has it, and NaN for the inputs whose solution does not have it.
    """
    if all(getattr(solution, name) is None for _, solution in solved):
        return None
    result = torch.zeros(len(problem), *axes, len(problem.targets), dtype=torch.float64)
    for game, solution in solved:
        rows, members = game.rows.reshape(-1, *(1,) * len(axes)), game.members
        features = (members[:, :, None], members[:, None]) if len(axes) == 2 else (members,)
        found = getattr(solution, name)
        result[(rows, *features)[: 1 + len(axes)]] = torch.nan if found is None else found
    return result.movedim(-1, 0).to(solved[0][0].dtype)


def _scores(solved: Solved, problem: Problem, name: str) -> Tensor:
    """The scores (N, T) of all games with all features, "full", or without any, "empty"."""
    scores = torch.empty(len(problem), len(problem.targets), dtype=solved[0][0].dtype)
    for game, _ in solved:
        scores[game.rows] = getattr(game, name).to(scores)
    return scores


def _games(masking: Masking, segments: Segments) -> Iterator[Game]:
    """Yields a game for all inputs with the same number of features."""
    members = segments.members(len(masking.problem))
    on_device = segments.to(masking.problem.tensors[0].device)
    for count in sorted({len(features) for features in members}):
        rows = [row for row, features in enumerate(members) if len(features) == count]
        yield Game(masking, on_device, torch.tensor(rows), torch.stack([members[row] for row in rows]))
