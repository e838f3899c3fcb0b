"""Places of a transformer under the names of TransformerLens: where the model computes each of them, and how.

A hook point names a tensor of the model by the engine's name and says how it is laid out there. Reading gives
it in the layout of TransformerLens, writing puts it back into the tensor of the model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ShapeError

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class HookPoint:
    """A tensor of the model, laid out as it is there.

    Attributes:
        name: Its name, as in TransformerLens.
        layer: The engine's name of the tensor that holds it.
        axes: What its axes are: ``batch``, ``position``, ``head``, ``query``, ``key``, ``width``, or several
            that are one there, such as ``("batch", "position")``, in the order of the model.
        order: The axes in the order in which they are read.
        heads: How large the axis ``head`` is, to take merged ones apart.
        columns: Where the numbers of each head lie in the last axis, (heads, numbers); None for all of it.
        overwritten: Whether the model writes into it later.
    """

    name: str
    layer: str
    axes: tuple[tuple[str, ...], ...]
    order: tuple[str, ...]
    heads: int = 1
    columns: Tensor | None = None
    overwritten: bool = False

    def read(self, tensor: Tensor, batch: int) -> Tensor:
        """Returns the point's tensor in the order of `order`; a view where that is possible."""
        for place, merged in reversed(list(enumerate(self.axes))):
            if len(merged) > 1:
                sizes = [
                    batch if axis == "batch" else self.heads if axis == "head" else -1 for axis in merged
                ]
                tensor = tensor.unflatten(place, sizes)
        names = [axis for merged in self.axes for axis in merged]
        if self.columns is not None:
            tensor = tensor[..., self.columns.to(tensor.device)]
            names = [*names[:-1], "head", "width"]
        return tensor.permute([names.index(axis) for axis in self.order])

    def write(self, tensor: Tensor, value: Tensor, batch: int) -> Tensor:
        """Returns the tensor of the model with another value of the point."""
        shape = self.read(tensor, batch).shape
        if value.shape != shape:
            raise ShapeError(
                f"the edit of {self.name!r} must return {tuple(shape)}, got {tuple(value.shape)}"
            )
        names = [axis for merged in self.axes for axis in merged]
        inner = [*names[:-1], "head", "width"] if self.columns is not None else names
        value = value.permute([self.order.index(axis) for axis in inner])
        if self.columns is not None:
            changed = tensor.unflatten(0, (batch, -1)) if len(self.axes[0]) > 1 else tensor.clone()
            changed[..., self.columns.to(tensor.device)] = value.to(tensor.dtype)
            return changed.reshape(tensor.shape)
        return value.to(tensor.dtype).reshape(tensor.shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputedPoint:
    """A tensor that is computed from the arguments of a call in the model, since the model does not keep it.

    Attributes:
        name: Its name, as in TransformerLens.
        layer: The engine's name of the operation.
        compute: Returns the tensor for the arguments of the call.
        replace: Returns the result of the operation with another tensor; None where it cannot be edited.
        overwritten: Whether the model writes into it later; it never does.
    """

    name: str
    layer: str
    compute: Callable[[Args, Kwargs], Tensor]
    replace: Callable[[Tensor, Args, Kwargs], Tensor] | None = None
    overwritten: bool = False


Point = HookPoint | ComputedPoint


def column_map(values: Tensor, heads: int, axes: tuple[str, ...]) -> Tensor | None:
    """Returns where the numbers of each head lie, from a tensor that holds the columns they came from.

    Args:
        values: Columns of a linear map's output as they arrive at a tensor with an axis of heads, as numbers.
        heads: How many heads to return; of repeated ones the first.
        axes: The axes of the tensor, of them ``head`` and ``width`` are looked at.

    Returns:
        (heads, numbers), None where rows or positions differ.
    """
    order = [axes.index("head"), axes.index("width")]
    others = [place for place in range(len(axes)) if place not in order]
    by_head = values.permute([*others, *order]).flatten(0, len(others) - 1)
    if not bool((by_head == by_head[:1]).all()):
        return None
    columns: Tensor = by_head[0].round().long()
    repeats = len(columns) // heads
    return (
        columns[::repeats] if torch.equal(columns, columns[::repeats].repeat_interleave(repeats, 0)) else None
    )
