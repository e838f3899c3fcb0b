"""Warnings for contributions that are zero by construction, whatever the network has learned."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.functions import Function, FunctionMode, canonical_name, tensors_among
from ...core.user_warnings import warn
from .backward import leaves_of
from .problem import Problem


def warn_if_unused(
    problem: Problem, values: Sequence[Tensor], output: Tensor, differentiates: bool, compares: bool
) -> None:
    """Warns where scores do not use what is attributed to, or where it is at the baseline already.

    Where no gradient reaches the inputs, one more pass tells a score that does not depend on them.

    Args:
        problem: The network and its inputs.
        values: Contributions, each (T, N, ...), one tensor for each of the problem's.
        output: (N, T) scores.
        differentiates: Whether the contributions come from gradients.
        compares: Whether they come from a comparison with a baseline.
    """
    if problem.layer is None:
        if differentiates and not compares:
            _warn_of_inputs(problem, values)
        return
    # scores of hidden features that are all the same leave rounding errors
    rounding = 0.0 if differentiates else 8 * torch.finfo(output.dtype).eps * float(output.abs().max())
    for layer in dict.fromkeys(place.layer for place in problem.places):
        numbers = [number for number, place in enumerate(problem.places) if place.layer == layer]
        if differentiates and not problem.reached.intersection(numbers):
            warn(
                f"the score does not use the activation of layer {layer!r}, or has no gradient by it: its "
                f"contributions are 0. Name a layer that the score depends on, or another tensor of one, as "
                f"in 'layer[1]'"
            )
        elif compares and all(bool((values[number].abs() <= rounding).all()) for number in numbers):
            warn(
                f"all contributions to layer {layer!r} are 0: its activation at the baselines is the one at "
                f"the inputs, or the score does not change with it. Give a baseline that changes it, such as "
                f"AtLayer(0.0)"
            )


def _warn_of_inputs(problem: Problem, values: Sequence[Tensor]) -> None:
    """Warns where the network cuts its inputs, or columns of a table, off the gradient."""
    if not problem.reached:
        if _varies(problem):
            warn(
                "no gradient of the score reaches the inputs, which it depends on: contributions are 0. The "
                "network cuts them off (detach, rounding, whole numbers): hide parts of the inputs, as "
                "Occlusion and KernelShap do"
            )
    elif functions := _reads_whole_numbers(problem, values):
        warn(
            f"the network makes whole numbers of columns of the input, by {functions}, which have no "
            f"gradient: their contributions are 0. Hide them, as Occlusion and KernelShap do"
        )


def _reads_whole_numbers(problem: Problem, values: Sequence[Tensor]) -> str:
    """The function that makes whole numbers of a table with columns without a gradient.

    Tables have dead columns seldom, and where there are any, a pass of one row tells; empty without one.
    """
    tables = [value.reshape(*value.shape[:2], -1) for value in values if value.dim() < 4]
    if all((table != 0).any(1).any(0).all() for table in tables):
        return ""
    found: dict[str, None] = {}

    def note(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = function(*args, **kwargs)
        whole = isinstance(output, Tensor) and not (output.is_floating_point() or output.is_complex())
        if whole and output.dtype != torch.bool and any(one.requires_grad for one in tensors_among(args)):
            found[canonical_name(function)[0]] = None
        return output

    with FunctionMode(note):
        problem.scores(leaves_of([tensor[:1] for tensor in problem.tensors]), torch.zeros(1).long())
    return ", ".join(map(repr, found))


def _varies(problem: Problem) -> bool:
    """Whether the score is another one at a changed input, by a pass of the first input and its change."""
    rows = torch.zeros(2, dtype=torch.long)
    changed = [torch.stack([tensor[0], tensor[0] + 1]) for tensor in problem.tensors]
    with torch.no_grad():
        scores = problem.scores(changed, rows)
    return not torch.equal(scores[0], scores[1])
