"""How much of integrated gradients flows through each unit of a layer (Dhamdhere et al., 2018)."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError
from ..base.baselines import BaselineLike
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from .path import between, check_steps, nodes, one_baseline, sums, warn_incomplete

_FIRST_STEPS = 8
_CALM = 2  # doublings in a row that leave a sum where it is: one may do so by chance
_CLEARLY = 8  # a gap so many times as large as the last move of the sum is not for want of steps


class LayerConductance(Method):
    """The conductance of a layer's units: how a score moves because of each, on the way from a baseline.

    The inputs go straight from the baseline, in the unequal steps of Gauss-Legendre quadrature; the change of
    a unit in a step is multiplied with the score's gradient by it at the node within. The number of steps
    doubles until the sums add up to the difference of the scores, within a tolerance, as they do for a layer
    that everything passes through, or until they stay what they are: a layer that something goes past, such
    as a branch of a residual sum, carries only a part, and a warning says so.

    Args:
        model: The network.
        layer: The layer.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> method = LayerConductance(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)), "1")
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> result.values.shape, bool(result.gap.abs().max() < 1e-2)
        (torch.Size([5, 3]), True)
    """

    differentiates = True

    def __init__(self, model: nn.Module, layer: str, preprocess: Callable[..., Any] | None = None) -> None:
        super().__init__(model, layer, preprocess)

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
        """Returns the conductances against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.
            tolerance: As for `IntegratedGradients`.
            max_steps: Most steps for an input; where they do not reach the tolerance, a warning says so.
            steps: A fixed number of steps instead.
            batch_size: How many points on the way pass through the network at a time.

        Raises:
            ArgumentError: A distribution of baselines, inputs that are whole numbers, or numbers below 1.
        """
        check_steps(tolerance, max_steps, steps, batch_size)
        own = problem.of_inputs()
        for tensor in own.tensors:
            if not tensor.is_floating_point():
                raise ArgumentError(
                    f"inputs of {tensor.dtype} have no gradient, and conductance follows a path of inputs: "
                    f"there is IntegratedGradients(model, layer=...)"
                )
        references = one_baseline(own, baselines, "LayerConductance", "the mean of calls", batch_size)
        output, at_baseline = (own.outputs(ends, batch_size) for ends in (own.tensors, references))

        def integrals(rows: Tensor, count: int) -> Tensor:
            return _conductances(problem, references, rows, count, batch_size)

        if steps:
            values = integrals(torch.arange(len(problem)), steps)
        else:
            wanted = (output.double() - at_baseline.double()).cpu()
            values = _refined(integrals, wanted, str(problem.layer), max_steps, tolerance)
        return Attribution(
            problem.restore([values.to(problem.tensors[0].dtype)]),
            problem.per_input(output),
            problem.per_input(at_baseline),
            method="LayerConductance",
            several=problem.several,
            complete=True,
        )


def _refined(
    integrals: Callable[[Tensor, int], Tensor],
    wanted: Tensor,
    layer: str,
    max_steps: int,
    tolerance: float,
) -> Tensor:
    """Returns contributions (T, N, ...), in as many steps as each input needs.

    An input is done when its contributions add up, or when doubling the steps has twice left their sum where
    it was: then the rest of the difference goes past the layer, and a warning says so.

    Args:
        integrals: From rows (R,) of the inputs and a number of steps to contributions (T, R, ...).
        wanted: (N, T) what the contributions of a layer that everything passes through sum to, in float64.
        layer: Its name.
        max_steps: Most steps; a warning says where they do not suffice.
        tolerance: Largest gap, and largest move of a sum, as a share of what is wanted, or of 1e-3.
    """
    allowed = tolerance * wanted.abs().clamp(min=1e-3)
    totals, calm = torch.full_like(wanted, torch.inf), torch.zeros_like(wanted)
    rows, count = torch.arange(len(wanted)), min(_FIRST_STEPS, max_steps)
    values: Tensor | None = None
    while True:
        own = integrals(rows, count)
        values = torch.empty_like(own) if values is None else values
        values[:, rows.to(own.device)] = own
        before, totals[rows] = totals[rows], sums([own])
        gaps = (totals - wanted).abs()
        still = (totals[rows] - before).abs() <= torch.minimum(allowed, gaps / _CLEARLY)[rows]
        calm[rows] = torch.where(still, calm[rows] + 1, 0)
        wide, settled = gaps > allowed, calm >= _CALM
        rows = (wide & ~settled).any(1).nonzero()[:, 0]
        if not len(rows) or 2 * count > max_steps:
            break
        count *= 2
    _tell_of_part(wide & settled, layer)
    warn_incomplete(wide & ~settled, tolerance, max_steps)
    return values


def _tell_of_part(wide: Tensor, layer: str) -> None:
    """Warns of inputs whose difference of the scores goes past the layer in part, (N, T)."""
    if wide.any():
        warnings.warn(
            f"the layer {layer!r} carries only a part of the difference of the scores of "
            f"{int(wide.any(1).sum())} of {len(wide)} inputs: the rest, which is the result's gap, goes past "
            f"it",
            stacklevel=5,
        )


def _conductances(
    problem: Problem, references: Sequence[Tensor], rows: Tensor, count: int, batch_size: int
) -> Tensor:
    """Conductances (T, R, ...) of the inputs in rows (R,), in so many steps."""
    inner, layer = problem.of_inputs(), str(problem.layer)
    places, weights = nodes(count)
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])  # a node lies in its step

    def points(index: Tensor, shares: Tensor) -> list[Tensor]:
        own = rows[index]
        start, end = (
            [tensor[own.to(tensor.device)] for tensor in tensors] for tensors in (references, inner.tensors)
        )
        return between(start, end, shares)

    total = None
    for pairs in torch.arange(len(rows) * count).split(batch_size):
        index, step = pairs // count, pairs % count
        gradients = inner.gradients_by(points(index, places[step]), rows[index], layer)
        # the end of a step is the beginning of the next: each once
        first = index * (count + 1) + step
        corners, which = torch.cat([first, first + 1]).unique(return_inverse=True)
        own, place = corners // (count + 1), corners % (count + 1)
        (activation,) = problem.at_layer(points(own, ends[place]), rows[own], batch_size)
        before, after = activation[which.to(activation.device)].chunk(2)
        own = gradients * (after - before)
        total = own.new_zeros(len(own), len(rows), *own.shape[2:]) if total is None else total
        total.index_add_(1, index.to(own.device), own)
    assert total is not None
    return total
