"""Edits of hook points as edits of the engine."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from torch import Tensor

from ...core.errors import ArgumentError, ShapeError
from ...core.targets import CallEdit
from .hook_points import ComputedPoint, DerivedPoint, HookPoint, Point
from .pass_state import PassState

Change = Callable[..., Any]
NamedChange = Callable[[Tensor, str], Tensor]


def named(name: str, change: Change) -> NamedChange:
    """Returns a function of a tensor and a name for one of a tensor, or of both.

    What it returns is checked: a tensor of the same shape, or None if it changed the tensor itself.

    Args:
        name: The name of the activation, for errors.
        change: The function.

    Raises:
        ArgumentError: It is no function.
    """
    if not callable(change):
        raise ArgumentError(f"expected a function of a tensor as the edit of {name!r}, got {change!r}")
    with_name = _takes_a_name(change)

    def changed(tensor: Tensor, name: str) -> Tensor:
        value = change(tensor, name) if with_name else change(tensor)
        if value is None:
            return tensor
        if not isinstance(value, Tensor):
            raise ArgumentError(f"the edit of {name!r} must return a tensor, got {type(value).__name__}")
        if value.shape != tensor.shape:
            raise ShapeError(
                f"the edit of {name!r} must return {tuple(tensor.shape)}, got {tuple(value.shape)}"
            )
        return value

    return changed


def _takes_a_name(change: Change) -> bool:
    """Whether a function has two parameters without defaults; functions of torch show none."""
    try:
        parameters = signature(change).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = [one.kind for one in parameters if one.default is one.empty]
    return sum(kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD) for kind in kinds) > 1


def check_written(name: str, point: Point | str) -> None:
    """Raises an error for a point that cannot be written."""
    if isinstance(point, DerivedPoint):
        raise ArgumentError(
            f"{name!r} is computed from {point.layer!r} and cannot be written: edit that, or what reads it"
        )
    if isinstance(point, ComputedPoint) and point.replace is None:
        raise ArgumentError(
            f"{name!r} is not computed by the model apart and cannot be written: load the model with "
            f'attn_implementation="eager"'
        )


def engine_edit(changes: list[tuple[Point | str, NamedChange]], state: PassState) -> CallEdit:
    """Returns an edit of the engine that makes the changes of all points in one tensor, in their order.

    Args:
        changes: The points, or native names, and the functions.
        state: What is known of the pass.

    Raises:
        ArgumentError: Attention weights and the scores they are computed from are both changed.
    """
    names = {one.name for one, _ in changes if isinstance(one, ComputedPoint)}
    if len(names) > 1:
        raise ArgumentError(f"{', '.join(sorted(names))} are computed from each other: change one of them")

    def edit(tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        for point, change in changes:
            if isinstance(point, ComputedPoint):
                tensor = _replaced(point, change, state, args, kwargs)
            elif isinstance(point, HookPoint):
                value = change(point.read(tensor, state.batch).clone(), point.name)
                tensor = point.write(tensor, value, state.batch)
            else:
                tensor = change(tensor, str(point))
        return tensor

    return CallEdit(edit)


def _replaced(point: ComputedPoint, change: NamedChange, state: PassState, args: Any, kwargs: Any) -> Tensor:
    """The result of an operation with another tensor inside of it, which is kept for who asks for it."""
    assert point.replace is not None
    before = state.written.get(point.name)
    value = change((point.compute(args, kwargs) if before is None else before).clone(), point.name)
    state.written[point.name] = value
    if point.name.endswith("attn_scores"):
        state.written[point.name.replace("attn_scores", "pattern")] = value.softmax(-1)
    return point.replace(value, args, kwargs)
