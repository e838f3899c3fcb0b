"""Gradients integrated along the straight path from a baseline (Sundararajan et al., 2017)."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ArgumentError
from .baselines import BaselineLike, as_baselines
from .method import Method
from .problem import Problem, parts
from .result import Attribution

_FIRST_STEPS = 8


class IntegratedGradients(Method):
    """Integrated gradients: the difference from a baseline times the mean gradient on the way from there.

    The integral is taken at Gauss-Legendre nodes, whose number doubles from 8 on for each input until its
    contributions add up to the difference of the scores, within a tolerance. Smooth networks take 8 or 16
    nodes, networks of ReLUs hundreds.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs; the path leads straight from
            its activation at the baseline.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = IntegratedGradients(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> bool(result.gap.abs().max() < 1e-3)
        True
    """

    differentiates = True

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        tolerance: float = 1e-3,
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
        values = refine(
            lambda rows, count: _integrals(problem, references, rows, count, batch_size),
            output - at_baseline,
            steps,
            max_steps,
            tolerance,
        )
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


def one_baseline(
    problem: Problem, baselines: BaselineLike, method: str, alternative: str
) -> tuple[Tensor, ...]:
    """Returns the baseline of each input, each (N, ...), of what is attributed to.

    Raises:
        ArgumentError: A distribution of baselines; the message names the method that takes one.
    """
    drawn = as_baselines(baselines, parts(problem.inputs))
    if any(baseline.is_random for baseline in drawn):
        raise ArgumentError(
            f"{method} takes one baseline an input: for a distribution there is {alternative}"
        )
    return tuple(draws[0] for draws in problem.baselines(drawn, 1))


def refine(
    integrals: Callable[[Tensor, int], list[Tensor]],
    wanted: Tensor,
    steps: int | None,
    max_steps: int,
    tolerance: float,
) -> list[Tensor]:
    """Returns contributions, each (T, N, ...), in as many steps as each input needs to add up.

    Args:
        integrals: From rows (R,) of the inputs and a number of steps to contributions, each (T, R, ...).
        wanted: (N, T) what the contributions should sum to, in float64.
        steps: A fixed number instead.
        max_steps: Most steps; a warning says where they do not suffice.
        tolerance: Largest gap as a share of what is wanted, or of 1e-3.
    """
    rows = torch.arange(len(wanted))
    count = steps or min(_FIRST_STEPS, max_steps)
    values: list[Tensor] = []
    while True:
        own = integrals(rows, count)
        values = values or [torch.empty_like(part) for part in own]
        for value, part in zip(values, own, strict=True):
            value[:, rows.to(value.device)] = part
        sums = torch.stack([part.double().flatten(2).sum(2).cpu() for part in own]).sum(0).T
        gaps = (sums - wanted[rows]).abs() / wanted[rows].abs().clamp(min=1e-3)
        rows = rows[(gaps > tolerance).any(1)]
        if steps or not len(rows):
            return values
        if 2 * count > max_steps:
            break
        count *= 2
    warnings.warn(
        f"{len(rows)} of {len(wanted)} inputs have a completeness gap over {tolerance:g} of the difference "
        f"of the scores after {count} steps: raise max_steps or the tolerance",
        stacklevel=4,
    )
    return values


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Returns the places and weights, each (count,) in float64, of Gauss-Legendre quadrature from 0 to 1.

    Polynomials up to degree ``2 * count - 1`` are integrated exactly.

    Example:
        >>> places, weights = nodes(2)
        >>> bool(((weights * places**3).sum() - 1 / 4).abs() < 1e-15)
        True
    """
    places, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((places + 1) / 2), torch.from_numpy(weights / 2)


def between(start: Sequence[Tensor], end: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """Returns points (B, ...) on the straight lines between tensors (B, ...), at shares (B,) of the way."""
    points = []
    for first, last in zip(start, end, strict=True):
        own = shares.to(device=last.device, dtype=last.dtype).reshape(-1, *(1,) * (last.dim() - 1))
        points.append(torch.lerp(first, last, own))
    return points


def _integrals(
    problem: Problem, references: Sequence[Tensor], rows: Tensor, count: int, batch_size: int
) -> list[Tensor]:
    """Contributions, each (T, R, ...), of the inputs in rows (R,), with so many nodes."""
    places, weights = nodes(count)
    totals: list[Tensor] = []
    for pairs in torch.arange(len(rows) * count).split(batch_size):
        # all nodes of one input, then all of the next: an input's sum does not depend on the others
        index, node = pairs // count, pairs % count
        own = rows[index]
        points = between(_at(references, own), _at(problem.tensors, own), places[node])
        gradients = problem.gradients(points, own)[1]
        if not totals:
            totals = [
                torch.zeros(len(g), len(rows), *g.shape[2:], dtype=_sum_dtype(g), device=g.device)
                for g in gradients
            ]
        for total, gradient in zip(totals, gradients, strict=True):
            weight = weights[node].to(total).reshape(1, -1, *(1,) * (gradient.dim() - 2))
            total.index_add_(1, index.to(total.device), gradient.to(total.dtype) * weight)
    return [
        total * (_at([tensor], rows)[0] - _at([reference], rows)[0])
        for total, tensor, reference in zip(totals, problem.tensors, references, strict=True)
    ]


def _at(tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    return [tensor[rows.to(tensor.device)] for tensor in tensors]


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def check_steps(tolerance: float, max_steps: int, steps: int | None, batch_size: int) -> None:
    """Raises an error where one of these numbers makes no sense."""
    if tolerance <= 0:
        raise ArgumentError(f"tolerance is a number above 0, got {tolerance}")
    for name, number in (("max_steps", max_steps), ("steps", steps), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ArgumentError(f"{name} is a number from 1 on, got {number}")
