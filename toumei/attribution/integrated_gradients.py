"""Gradients integrated along the straight path from a baseline (Sundararajan et al., 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .baselines import BaselineLike
from .method import Method
from .path import at, between, check_steps, nodes, one_baseline, sums, tell
from .problem import Problem
from .result import Attribution

_NODES = 8
_PIECES = 8  # so many gaps of pieces may add up to the tolerance


class IntegratedGradients(Method):
    """Integrated gradients: the difference from a baseline times the mean gradient on the way from there.

    The integral is taken at 8 Gauss-Legendre nodes, and where these do not add up to the difference of the
    scores, the path is halved, again and again: for each input where its own gradients jump. Smooth networks
    take 8 or 16 nodes, small networks of ReLUs a hundred.

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
        batch_size: int = 64,
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
        references = one_baseline(problem, baselines, "IntegratedGradients", "ExpectedGradients")
        with torch.no_grad():
            output, at_baseline = (
                problem.scores(own).double().cpu() for own in (problem.tensors, references)
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
    """Contributions, each (T, N, ...), over pieces that are halved until they add up."""
    wanted = output - at_baseline
    allowed = tolerance * wanted.abs().clamp(min=1e-3)
    values: list[Tensor] = []
    count = min(_NODES, max_steps)
    left = torch.full((len(problem),), max_steps - count)
    pieces = _whole(len(problem), output, at_baseline)
    while True:
        split = []
        for part in torch.arange(len(pieces.rows)).split(max(1, batch_size // count)):
            own = pieces[part]
            integrals = _integrals(problem, references, own, count, batch_size)
            values = values or [
                part.new_zeros(len(part), len(problem), *part.shape[2:]) for part in integrals
            ]
            gaps = (sums(integrals) - (own.last - own.first)).abs()
            # the gaps of several pieces add up
            coarse = (gaps > allowed[own.rows] / _PIECES).any(1)
            for place in coarse.nonzero()[:, 0].tolist():
                row = int(own.rows[place])
                coarse[place] = left[row] >= 2 * count
                left[row] -= 2 * count * int(coarse[place])
            kept = (~coarse).nonzero()[:, 0]
            for value, integral in zip(values, integrals, strict=True):
                place_of = kept.to(value.device)
                value.index_add_(1, own.rows[kept].to(value.device), integral[:, place_of])
            split.append(part[coarse])
        pieces = pieces[torch.cat(split)]
        if not len(pieces.rows):
            break
        middles = []
        for part in torch.arange(len(pieces.rows)).split(batch_size):
            own = pieces[part]
            points = _points(problem, references, own.rows, own.start + own.length / 2)
            with torch.no_grad():
                middles.append(problem.scores(points, own.rows).double().cpu())
        pieces = pieces.halved(torch.cat(middles))
    tell((sums(values) - wanted).abs() > 1.01 * allowed, tolerance, max_steps)
    return values


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
