"""Gradients integrated along the straight path from a baseline (Sundararajan et al., 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, at
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from .path import between, check_steps, nodes, one_baseline, sums, warn_incomplete

_NODES = 8
_PIECES = 2  # a piece stays as it is where its gap takes at most one in so many parts of what may still miss


class IntegratedGradients(Method):
    """Integrated gradients: the difference from a baseline times the mean gradient on the way from there.

    The integral is taken at 8 Gauss-Legendre nodes, and where these do not add up to the difference of the
    scores, the path is halved, again and again, where an input's own gradients jump, until the input adds up.
    Smooth networks take 8 nodes, networks of ReLUs some dozens.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs; the path leads straight from
            its activation at the baseline.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = IntegratedGradients(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4), tolerance=1e-4)
        >>> bool(result.gap.abs().max() < 1e-3)
        True
    """

    differentiates = True

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        tolerance: float = 1e-2,
        max_steps: int = 512,
        steps: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Attribution:
        """Returns the contributions against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.
            tolerance: Largest completeness gap, as a share of the difference of the scores or of 1e-3,
                whichever is larger.
            max_steps: Most nodes for an input; where they do not reach the tolerance, a warning says so.
            steps: A fixed number of nodes instead.
            batch_size: How many pairs of an input and a node pass through the network at a time.

        Raises:
            ArgumentError: A distribution of baselines, inputs that are whole numbers, or numbers below 1.
        """
        check_steps(tolerance, max_steps, steps, batch_size)
        references = one_baseline(problem, baselines, "IntegratedGradients", "ExpectedGradients", batch_size)
        output, at_baseline = (
            problem.outputs(own, batch_size).double().cpu() for own in (problem.tensors, references)
        )
        if steps:
            whole = _whole(len(problem), output, at_baseline)
            values = _integrals(problem, references, whole, steps, batch_size)
        else:
            values = _halving(problem, references, output, at_baseline, tolerance, max_steps, batch_size)
        return Attribution(
            problem.restore(
                [value.to(tensor.dtype) for value, tensor in zip(values, problem.tensors, strict=True)]
            ),
            problem.per_input(output.to(problem.tensors[0].dtype)),
            problem.per_input(at_baseline.to(problem.tensors[0].dtype)),
            method="IntegratedGradients",
            several=problem.several,
            complete=True,
        )


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
    """Contributions, each (T, N, ...), over pieces of which the worst are halved until an input's add up."""
    wanted = output - at_baseline
    allowed = tolerance * wanted.abs().clamp(min=1e-3)
    count = min(_NODES, max_steps)
    room, left = allowed.clone(), torch.full((len(problem),), max_steps - count)
    pieces = _whole(len(problem), output, at_baseline)
    values: list[Tensor] = []
    while True:
        # of pieces that are halved unless their input adds up with them as they are
        loose: list[Tensor] = []
        coarse = []
        for part in torch.arange(len(pieces.rows)).split(max(1, batch_size // count)):
            own = pieces[part]
            integrals = _integrals(problem, references, own, count, batch_size)
            gaps = (sums(integrals) - (own.last - own.first)).abs()
            coarse.append(_coarse(gaps, own.rows, room, left, 2 * count))
            values, loose = values or _nothing(integrals, wanted), loose or _nothing(integrals, wanted)
            _add(values, integrals, own.rows, ~coarse[-1])
            _add(loose, integrals, own.rows, coarse[-1])
        done = ((sums(values) + sums(loose) - wanted).abs() <= allowed).all(1)
        _add(values, loose, torch.arange(len(problem)), done)
        pieces = pieces[torch.cat(coarse) & ~done[pieces.rows]]
        if not len(pieces.rows):
            break
        pieces = pieces.halved(_middles(problem, references, pieces, batch_size))
    warn_incomplete((sums(values) - wanted).abs() > 1.01 * allowed, tolerance, max_steps)
    return values


def _coarse(gaps: Tensor, rows: Tensor, room: Tensor, left: Tensor, price: int) -> Tensor:
    """Which pieces (K,) are to be halved: whose gap takes too much of the room that their input has left.

    Args:
        gaps: (K, T) of the pieces.
        rows: (K,) which of the N inputs each belongs to.
        room: (N, T) largest gap, from which the gaps of pieces that stay are taken away.
        left: (N,) nodes that each input may still use, from which those of halves are taken away.
        price: Nodes of two halves.
    """
    coarse = torch.zeros(len(rows), dtype=torch.bool)
    for place, row in enumerate(rows.tolist()):
        if (gaps[place] <= room[row] / _PIECES).all():
            room[row] -= gaps[place]
        elif left[row] >= price:
            left[row] -= price
            coarse[place] = True
    return coarse


def _middles(problem: Problem, references: Sequence[Tensor], pieces: _Pieces, batch_size: int) -> Tensor:
    """The scores (K, T) in the middle of each piece."""
    middles = []
    for part in torch.arange(len(pieces.rows)).split(batch_size):
        own = pieces[part]
        points = _points(problem, references, own.rows, own.start + own.length / 2)
        with torch.no_grad():
            middles.append(problem.scores(points, own.rows).double().cpu())
    return torch.cat(middles)


def _nothing(integrals: Sequence[Tensor], wanted: Tensor) -> list[Tensor]:
    return [part.new_zeros(len(part), len(wanted), *part.shape[2:]) for part in integrals]


def _add(totals: Sequence[Tensor], integrals: Sequence[Tensor], rows: Tensor, which: Tensor) -> None:
    """Adds some of the contributions of pieces, each (T, K, ...), to those of the inputs they belong to."""
    for total, integral in zip(totals, integrals, strict=True):
        places = which.nonzero()[:, 0].to(total.device)
        total.index_add_(1, rows.to(total.device)[places], integral[:, places])


def _integrals(
    problem: Problem, references: Sequence[Tensor], pieces: _Pieces, count: int, batch_size: int
) -> list[Tensor]:
    """Contributions, each (T, K, ...), of pieces of paths, with so many nodes."""
    places, weights = nodes(count)
    totals: list[Tensor] = []
    for pairs in torch.arange(len(pieces.rows) * count).split(batch_size):
        # all nodes of one piece, then all of the next: its sum does not depend on the others
        index, node = pairs // count, pairs % count
        rows = pieces.rows[index]
        points = _points(problem, references, rows, pieces.start[index] + pieces.length * places[node])
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
        total * (at([tensor], pieces.rows)[0] - at([reference], pieces.rows)[0])
        for total, tensor, reference in zip(totals, problem.tensors, references, strict=True)
    ]


def _points(problem: Problem, references: Sequence[Tensor], rows: Tensor, shares: Tensor) -> list[Tensor]:
    return between(at(references, rows), at(problem.tensors, rows), shares)


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
