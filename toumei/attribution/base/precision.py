"""The same problem in float64, which tells whether a gap is one of rounding."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...core.errors import ToumeiError
from .batching import take_rows
from .inputs import like, parts_of
from .problem import Problem

ROUNDING = (
    "it is rounding, as the network's numbers are too large for the differences that matter, and it vanishes "
    "with a model and inputs in double()"
)

_MOST = 100_000_000  # weights of a network that is copied in float64


Gap = Callable[[Problem, list[Tensor]], Tensor]


def gap_is_rounding(
    problem: Problem, references: list[Tensor], rows: Tensor, gap: Gap, rough: Gap | None = None
) -> bool | None:
    """Returns whether the gaps of some rows vanish in float64, None where that cannot be told.

    It takes a copy of the network in float64, which is not made of over a hundred million weights.

    Args:
        problem: The network and its inputs.
        references: The baselines of the rows, each (B, ...).
        rows: (B,) which rows.
        gap: From a problem of these rows and their baselines to their gaps as shares of what is allowed.
        rough: Gaps that take less time and have signs: where they are the same in both precisions, rounding
            is not the reason.
    """
    if all(part.dtype == torch.float64 for part in problem.tensors):
        return False
    if sum(parameter.numel() for parameter in problem.model.parameters()) > _MOST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            doubled, ends = _in_double(problem, rows), [_double(reference) for reference in references]
            if rough is not None:
                single = problem.take(rows, take_rows(problem.tensors, rows))
                change = rough(single, references) - rough(doubled, ends)
                if change.abs().max() < 0.5:
                    return False
            return bool((gap(doubled, ends).abs() <= 1).all())
    except (ToumeiError, RuntimeError, TypeError, ValueError, NotImplementedError):
        # a network that takes no float64, or cannot be copied
        return None


def _in_double(problem: Problem, rows: Tensor) -> Problem:
    """The problem of some rows on a copy of the network in float64."""
    model, preprocess = deepcopy(problem.model).double(), problem.preprocess
    if isinstance(preprocess, nn.Module):
        preprocess = deepcopy(preprocess).double()
    taken = problem.take(rows, take_rows(problem.tensors, rows))
    inputs = like(taken.inputs, [_double(part) for part in parts_of(taken.inputs)])
    tensors = tuple(_double(part) for part in taken.tensors)
    return replace(taken, model=model, preprocess=preprocess, inputs=inputs, tensors=tensors)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
