"""Gradients integrated along the straight path from a baseline (Sundararajan et al., 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..base.baseline_samples import one_baseline
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, take_rows
from ..base.inputs import Layers, Preprocess
from ..base.method import Method
from ..base.precision import gap_is_rounding
from ..base.problem import Problem
from ..base.reliability import check_scores
from ..base.result import Attribution
from .path import between, check_steps, nodes, sums, warn_incomplete

_NODES = 8
_PIECES = (
    2  # a piece is not halved if its gap is at most this fraction (1 / 2) of what its input may still miss
)


class IntegratedGradients(Method):
    """Integrated gradients: the difference from a baseline times the mean gradient on the straight path.

    The integral is taken at 8 Gauss-Legendre nodes. Where the sum differs from the difference of the scores,
    the path is halved, and the worst pieces are halved again, until the sum of each input fits. Smooth
    networks take 8 nodes, networks of ReLUs some dozens.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs; the
            path starts at its activation for the baseline.
        preprocess: Applied to the inputs before the network.
        tolerance: Largest completeness gap, as a share of the difference of the scores or of 1e-3,
            whichever is larger.
        max_steps: Most nodes for an input; a warning says where they do not reach the tolerance.
        steps: A fixed number of nodes instead.
        batch_size: How many pairs of an input and a node pass through the network at a time.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2))
        >>> method = IntegratedGradients(model, tolerance=1e-4)
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> bool(result.gap.abs().max() < 1e-3)
        True
    """

    differentiates = True
    complete = True

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        tolerance: float = 1e-2,
        max_steps: int = 512,
        steps: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        check_steps(tolerance, max_steps, steps)
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.steps = steps

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the contributions against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.

        Raises:
            ArgumentError: A distribution of baselines, or inputs that are whole numbers.
        """
        size = self.batch_size
        references = one_baseline(problem, baselines, "IntegratedGradients", "ExpectedGradients", size)
        output, at_baseline = self._ends(problem, references)
        if self.steps:
            whole = _whole(len(problem), output, at_baseline)
            values = _integrals(problem, references, whole, self.steps, size)
        else:
            values, gaps = self._contributions(problem, references, output, at_baseline)
            self._warn(problem, references, gaps > 1.01)
        values = [value.to(tensor.dtype) for value, tensor in zip(values, problem.tensors, strict=True)]
        dtype = problem.tensors[0].dtype
        return self.result(problem, values, output.to(dtype), at_baseline.to(dtype))

    def _ends(self, problem: Problem, references: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The scores (N, T) at the inputs and at their baselines, in float64."""
        output, at_baseline = (
            problem.outputs(tensors, self.batch_size).double().cpu()
            for tensors in (problem.tensors, references)
        )
        check_scores(output, "the scores of the inputs")
        check_scores(at_baseline, "the scores of the baselines")
        return output, at_baseline

    def _contributions(
        self, problem: Problem, references: Sequence[Tensor], output: Tensor, at_baseline: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Contributions, each (T, N, ...), and gaps (N, T) as shares of what the tolerance allows."""
        settings = self.tolerance, self.max_steps, self.batch_size
        values = _halving(problem, references, output, at_baseline, *settings)
        wanted = output - at_baseline
        return values, (sums(values) - wanted).abs() / _allowed(wanted, self.tolerance)

    def _warn(self, problem: Problem, references: Sequence[Tensor], wide: Tensor) -> None:
        def is_rounding(rows: Tensor) -> bool | None:
            ends = take_rows(references, rows)
            return gap_is_rounding(problem, ends, rows, self._gaps, self._rough_gaps)

        warn_incomplete(wide, self.tolerance, self.max_steps, is_rounding)

    def _rough_gaps(self, problem: Problem, references: list[Tensor]) -> Tensor:
        output, at_baseline = self._ends(problem, references)
        whole = _whole(len(problem), output, at_baseline)
        wanted = output - at_baseline
        values = _integrals(problem, references, whole, _NODES, self.batch_size)
        return (sums(values) - wanted) / _allowed(wanted, self.tolerance)

    def _gaps(self, problem: Problem, references: list[Tensor]) -> Tensor:
        return self._contributions(problem, references, *self._ends(problem, references))[1] / 1.01


def _allowed(wanted: Tensor, tolerance: float) -> Tensor:
    """The widest gaps for differences of scores."""
    return tolerance * wanted.abs().clamp(min=1e-3)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Pieces of the paths of inputs.

    Attributes:
        rows: (K,) which of the N inputs each belongs to.
        start: (K,) share of the way where it starts.
        length: Of all, as a share of the way.
        first: (K, T) scores at the start.
        last: (K, T) scores at the end.
    """

    rows: Tensor
    start: Tensor
    length: float
    first: Tensor
    last: Tensor

    def halved(self, middle: Tensor) -> "_Pieces":
        """Returns twice as many, with the scores (K, T) in the middle of each."""
        return _Pieces(
            self.rows.repeat(2),
            torch.cat([self.start, self.start + self.length / 2]),
            self.length / 2,
            torch.cat([self.first, middle]),
            torch.cat([middle, self.last]),
        )

    def __getitem__(self, which: Tensor) -> "_Pieces":
        return replace(
            self, **{name: getattr(self, name)[which] for name in ("rows", "start", "first", "last")}
        )


def _whole(count: int, output: Tensor, at_baseline: Tensor) -> _Pieces:
    return _Pieces(torch.arange(count), torch.zeros(count, dtype=torch.float64), 1.0, at_baseline, output)


def _halving(
    problem: Problem,
    references: Sequence[Tensor],
    output: Tensor,
    at_baseline: Tensor,
    tolerance: float,
    max_steps: int,
    batch_size: int,
) -> list[Tensor]:
    """Contributions, each (T, N, ...): the worst pieces are halved until the sums of an input fit."""
    wanted = output - at_baseline
    allowed = _allowed(wanted, tolerance)
    count = min(_NODES, max_steps)
    room, left = allowed.clone(), torch.full((len(problem),), max_steps - count)
    pieces = _whole(len(problem), output, at_baseline)
    values: list[Tensor] = []
    while True:
        # contributions of pieces that are halved next, unless the sum of their input fits with them
        loose: list[Tensor] = []
        coarse = []
        for part in torch.arange(len(pieces.rows)).split(max(1, batch_size // count)):
            batch = pieces[part]
            integrals = _integrals(problem, references, batch, count, batch_size)
            gaps = (sums(integrals) - (batch.last - batch.first)).abs()
            coarse.append(_coarse(gaps, batch.rows, room, left, 2 * count))
            values, loose = values or _nothing(integrals, wanted), loose or _nothing(integrals, wanted)
            _add(values, integrals, batch.rows, ~coarse[-1])
            _add(loose, integrals, batch.rows, coarse[-1])
        done = ((sums(values) + sums(loose) - wanted).abs() <= allowed).all(1)
        _add(values, loose, torch.arange(len(problem)), done)
        pieces = pieces[torch.cat(coarse) & ~done[pieces.rows]]
        if not len(pieces.rows):
            break
        pieces = pieces.halved(_middles(problem, references, pieces, batch_size))
    return values


def _coarse(gaps: Tensor, rows: Tensor, room: Tensor, left: Tensor, price: int) -> Tensor:
    """Which pieces (K,) are halved: those with a gap that is too large for what their input may still miss.

    Args:
        gaps: (K, T) of the pieces.
        rows: (K,) which of the N inputs each belongs to.
        room: (N, T) largest gap that is left; the gaps of pieces that are not halved are subtracted from it.
        left: (N,) nodes that each input may still use; the nodes of halves are subtracted from it.
        price: Nodes of two halves.
    """
    coarse = torch.zeros(len(rows), dtype=torch.bool)
    for piece, row in enumerate(rows.tolist()):
        if (gaps[piece] <= room[row] / _PIECES).all():
            room[row] -= gaps[piece]
        elif left[row] >= price:
            left[row] -= price
            coarse[piece] = True
    return coarse


def _middles(problem: Problem, references: Sequence[Tensor], pieces: _Pieces, batch_size: int) -> Tensor:
    """The scores (K, T) in the middle of each piece."""
    middles = []
    for part in torch.arange(len(pieces.rows)).split(batch_size):
        batch = pieces[part]
        points = _points(problem, references, batch.rows, batch.start + batch.length / 2)
        with torch.no_grad():
            middles.append(problem.scores(points, batch.rows).double().cpu())
    return torch.cat(middles)


def _nothing(integrals: Sequence[Tensor], wanted: Tensor) -> list[Tensor]:
    return [part.new_zeros(len(part), len(wanted), *part.shape[2:]) for part in integrals]


def _add(totals: Sequence[Tensor], integrals: Sequence[Tensor], rows: Tensor, which: Tensor) -> None:
    """Adds the contributions of some pieces, each (T, K, ...), to those of their inputs."""
    for total, integral in zip(totals, integrals, strict=True):
        chosen = which.nonzero()[:, 0].to(total.device)
        total.index_add_(1, rows.to(total.device)[chosen], integral[:, chosen])


def _integrals(
    problem: Problem, references: Sequence[Tensor], pieces: _Pieces, count: int, batch_size: int
) -> list[Tensor]:
    """Contributions, each (T, K, ...), of pieces of paths, with `count` nodes on each."""
    positions, weights = nodes(count)
    totals: list[Tensor] = []
    for pairs in torch.arange(len(pieces.rows) * count).split(batch_size):
        # all nodes of one piece, then all of the next: the sum of a piece does not depend on the others
        index, node = pairs // count, pairs % count
        rows = pieces.rows[index]
        points = _points(problem, references, rows, pieces.start[index] + pieces.length * positions[node])
        gradients = problem.gradients(points, rows)[1]
        if not totals:
            totals = [
                torch.zeros(len(g), len(pieces.rows), *g.shape[2:], dtype=_sum_dtype(g), device=g.device)
                for g in gradients
            ]
        for total, gradient in zip(totals, gradients, strict=True):
            weight = (pieces.length * weights[node]).to(total).reshape(1, -1, *(1,) * (gradient.dim() - 2))
            total.index_add_(1, index.to(total.device), gradient.to(total.dtype) * weight)
    return [
        total * (take_rows([tensor], pieces.rows)[0] - take_rows([reference], pieces.rows)[0])
        for total, tensor, reference in zip(totals, problem.tensors, references, strict=True)
    ]


def _points(problem: Problem, references: Sequence[Tensor], rows: Tensor, shares: Tensor) -> list[Tensor]:
    return between(take_rows(references, rows), take_rows(problem.tensors, rows), shares)


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
