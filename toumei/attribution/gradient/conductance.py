"""How much of integrated gradients flows through each unit of a layer (Dhamdhere et al., 2018)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError
from ...core.summaries import counted
from ...core.user_warnings import warn
from ..base.baseline_samples import one_baseline
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, take_rows
from ..base.inputs import Preprocess
from ..base.method import Method
from ..base.precision import gap_is_rounding
from ..base.problem import Problem
from ..base.result import Attribution
from .path import between, check_steps, nodes, sums, warn_incomplete

_FIRST_STEPS = 8
_CALM = 2  # doublings in a row that leave a sum unchanged: a single one may do so by chance
_CLEARLY = 8  # more steps will not close a gap that is so many times as large as the last change of the sum


class LayerConductance(Method):
    """The conductance of a layer's units: how each changes the score along the path from a baseline.

    The inputs go straight from the baseline, in the unequal steps of Gauss-Legendre quadrature. In each step
    the change of a unit is multiplied by the score's gradient with respect to it at the node within. The
    number of steps doubles until the contributions sum to the difference of the scores within the tolerance,
    or until their sum no longer changes: then a part of the difference bypasses the layer, as in the branch
    of a residual sum, and a warning says so.

    Args:
        model: The network.
        layer: The layer, or several in a list that lie side by side.
        preprocess: Applied to the inputs before the network.
        tolerance: As for `IntegratedGradients`.
        max_steps: Most steps for an input; a warning says where they do not reach the tolerance.
        steps: A fixed number of steps instead.
        batch_size: How many points on the path pass through the network at a time.

    Example:
        >>> method = LayerConductance(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)), "1")
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> result.values.shape, bool(result.gap.abs().max() < 1e-2)
        (torch.Size([5, 3]), True)
    """

    differentiates = True
    complete = True

    def __init__(
        self,
        model: nn.Module,
        layer: str | Sequence[str],
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
        """Returns the conductances against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.

        Raises:
            ArgumentError: A distribution of baselines, or inputs that are whole numbers.
        """
        of_inputs, size = problem.of_inputs(), self.batch_size
        for tensor in of_inputs.tensors:
            if not tensor.is_floating_point():
                raise ArgumentError(
                    f"inputs of {tensor.dtype} have no gradient, and conductance follows a path of inputs: "
                    f"there is IntegratedGradients(model, layer=...)"
                )
        references = one_baseline(of_inputs, baselines, "LayerConductance", "the mean of calls", size)
        output, at_baseline = (of_inputs.outputs(ends, size) for ends in (of_inputs.tensors, references))

        if self.steps:
            values = _conductances(problem, references, torch.arange(len(problem)), self.steps, size)
        else:
            wanted = (output.double() - at_baseline.double()).cpu()
            values, wide, settled = self._refined(problem, references, wanted)
            self._warn(problem, references, wide, settled)
        values = [value.to(tensor.dtype) for value, tensor in zip(values, problem.tensors, strict=True)]
        return self.result(problem, values, output, at_baseline)

    def _refined(
        self, problem: Problem, references: Sequence[Tensor], wanted: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Contributions, each (T, N, ...); which gaps (N, T) are too wide, and which no steps change."""

        def integrals(rows: Tensor, count: int) -> list[Tensor]:
            return _conductances(problem, references, rows, count, self.batch_size)

        return _refined(integrals, wanted, self.max_steps, self.tolerance)

    def _warn(self, problem: Problem, references: Sequence[Tensor], wide: Tensor, settled: Tensor) -> None:
        def is_rounding(rows: Tensor) -> bool | None:
            ends = take_rows(references, rows)
            return gap_is_rounding(problem, ends, rows, self._wide, self._rough_gaps)

        bypassed = wide & settled
        if bypassed.any() and is_rounding(bypassed.any(1).nonzero()[:1, 0]):
            bypassed = torch.zeros_like(wide)
        _warn_of_bypass(bypassed, str(problem.layer))
        warn_incomplete(wide & ~bypassed, self.tolerance, self.max_steps, is_rounding)

    def _rough_gaps(self, problem: Problem, references: list[Tensor]) -> Tensor:
        wanted, rows = self._wanted(problem, references), torch.arange(len(problem))
        found = _conductances(problem, references, rows, 1, self.batch_size)
        return (sums(found) - wanted) / (self.tolerance * wanted.abs().clamp(min=1e-3))

    def _wide(self, problem: Problem, references: list[Tensor]) -> Tensor:
        """2 where gaps are too wide, 0 elsewhere, (N, T)."""
        return 2 * self._refined(problem, references, self._wanted(problem, references))[1].double()

    def _wanted(self, problem: Problem, references: list[Tensor]) -> Tensor:
        """The differences of the scores, (N, T)."""
        inner = problem.of_inputs()
        ends = [inner.outputs(tensors, self.batch_size) for tensors in (inner.tensors, references)]
        return (ends[0].double() - ends[1].double()).cpu()


def _refined(
    integrals: Callable[[Tensor, int], list[Tensor]], wanted: Tensor, max_steps: int, tolerance: float
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Returns contributions, each (T, N, ...), in as many steps as each input needs.

    An input is done when its contributions add up, or when doubling the steps has twice left their sum
    unchanged: then the rest of the difference bypasses the layer.

    Args:
        integrals: From rows (R,) of the inputs and a number of steps to contributions, each (T, R, ...).
        wanted: (N, T) differences of the scores, in float64.
        max_steps: Most steps.
        tolerance: Largest gap, and largest change of a sum, as a share of the difference, or of 1e-3.

    Returns:
        The contributions, which gaps (N, T) are too wide, and which sums (N, T) more steps do not change.
    """
    allowed = tolerance * wanted.abs().clamp(min=1e-3)
    totals, calm = torch.full_like(wanted, torch.inf), torch.zeros_like(wanted)
    rows, count = torch.arange(len(wanted)), min(_FIRST_STEPS, max_steps)
    values: list[Tensor] = []
    while True:
        found = integrals(rows, count)
        values = values or [torch.empty_like(one) for one in found]
        for value, one in zip(values, found, strict=True):
            value[:, rows.to(one.device)] = one
        before, totals[rows] = totals[rows], sums(found)
        gaps = (totals - wanted).abs()
        still = (totals[rows] - before).abs() <= torch.minimum(allowed, gaps / _CLEARLY)[rows]
        calm[rows] = torch.where(still, calm[rows] + 1, 0)
        wide, settled = gaps > allowed, calm >= _CALM
        rows = (wide & ~settled).any(1).nonzero()[:, 0]
        if not len(rows) or 2 * count > max_steps:
            break
        count *= 2
    return values, wide, settled


def _warn_of_bypass(wide: Tensor, layer: str) -> None:
    """Warns about inputs for which a part of the difference of the scores bypasses the layer, (N, T)."""
    if wide.any():
        warn(
            f"the layer {layer!r} carries only a part of the difference of the scores of "
            f"{int(wide.any(1).sum())} of {counted(len(wide), 'input')}: the rest, which is the result's "
            "gap, bypasses it"
        )


def _conductances(
    problem: Problem, references: Sequence[Tensor], rows: Tensor, count: int, batch_size: int
) -> list[Tensor]:
    """Conductances, each (T, R, ...), of the inputs in rows (R,), in `count` steps."""
    inner = problem.of_inputs()
    positions, weights = nodes(count)
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])  # each node lies in its step

    def points(index: Tensor, shares: Tensor) -> list[Tensor]:
        start, end = (take_rows(tensors, rows[index]) for tensors in (references, inner.tensors))
        return between(start, end, shares)

    totals: list[Tensor] = []
    for pairs in torch.arange(len(rows) * count).split(batch_size):
        index, step = pairs // count, pairs % count
        gradients = problem.gradients_by(points(index, positions[step]), rows[index])
        # the end of a step is the beginning of the next one: each passes once
        first = index * (count + 1) + step
        corners, which = torch.cat([first, first + 1]).unique(return_inverse=True)
        row, end = corners // (count + 1), corners % (count + 1)
        activations = problem.on_path(points(row, ends[end]), rows[row], batch_size)
        totals = totals or [
            gradient.new_zeros(len(gradient), len(rows), *gradient.shape[2:]) for gradient in gradients
        ]
        for total, gradient, activation in zip(totals, gradients, activations, strict=True):
            before, after = activation[which.to(activation.device)].chunk(2)
            total.index_add_(1, index.to(gradient.device), gradient * (after - before))
    return totals
