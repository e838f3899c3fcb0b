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
            that are one there, such as ``("batch", "position")``, in the order of the model. Without a
            ``batch`` it is the same for all texts, and is read with a first axis of length 1.
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
    columns: "Columns | None" = None
    overwritten: bool = False

    def read(self, tensor: Tensor, batch: int) -> Tensor:
        """Returns the point's tensor in the order of `order`; a view where that is possible."""
        tensor = self._apart(tensor, batch)
        names = self._names
        if self.columns is not None:
            tensor = self.columns.of(tensor)
        if "batch" not in names:
            tensor, names = tensor[None], ["batch", *names]
        return tensor.permute([names.index(axis) for axis in self.order])

    def write(self, tensor: Tensor, value: Tensor, batch: int) -> Tensor:
        """Returns the tensor of the model with another value of the point."""
        shape = self.read(tensor, batch).shape
        if value.shape != shape:
            raise ShapeError(
                f"the edit of {self.name!r} must return {tuple(shape)}, got {tuple(value.shape)}"
            )
        names = self._names if "batch" in self._names else ["batch", *self._names]
        value = value.permute([self.order.index(axis) for axis in names]).to(tensor.dtype)
        if "batch" not in self._names:
            value = value[0]
        if self.columns is None:
            return value.reshape(tensor.shape)
        apart = self._apart(tensor, batch)
        return self.columns.replaced(apart, value).reshape(tensor.shape)

    @property
    def _names(self) -> list[str]:
        """The axes one by one, in the order of the model."""
        names = [axis for merged in self.axes for axis in merged]
        return names if self.columns is None else [*names[:-1], "head", "width"]

    def _apart(self, tensor: Tensor, batch: int) -> Tensor:
        """The tensor with an axis for each name."""
        for place, merged in reversed(list(enumerate(self.axes))):
            if len(merged) > 1:
                sizes = [
                    batch if axis == "batch" else self.heads if axis == "head" else -1 for axis in merged
                ]
                tensor = tensor.unflatten(place, sizes)
        return tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class DerivedPoint:
    """A tensor that is computed from that of a hook point, such as the scale of a norm from its input.

    Attributes:
        name: Its name, as in TransformerLens.
        of: The hook point.
        compute: Returns the tensor.
    """

    name: str
    of: HookPoint
    compute: Callable[[Tensor], Tensor]

    @property
    def layer(self) -> str:
        """The engine's name of the tensor that it is computed from."""
        return self.of.layer

    @property
    def overwritten(self) -> bool:
        """Whether the model writes into that tensor later."""
        return self.of.overwritten

    def read(self, tensor: Tensor, batch: int) -> Tensor:
        """Returns the tensor."""
        return self.compute(self.of.read(tensor, batch))


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputedPoint:
    """A tensor that is computed from the arguments of a call in the model, since the model does not keep it.

    Attributes:
        name: Its name, as in TransformerLens.
        layer: The engine's name of the operation.
        compute: Returns the tensor for the arguments of the call.
        replace: Returns the result of the operation with another tensor; None where it cannot be edited.
        gradient: Returns the gradient of the tensor for that of the result of the operation, the attention
            weights, and the arguments of the call; None where that is not known.
        overwritten: Whether the model writes into it later; it never does.
    """

    name: str
    layer: str
    compute: Callable[[Args, Kwargs], Tensor]
    replace: Callable[[Tensor, Args, Kwargs], Tensor] | None = None
    gradient: Callable[[Tensor, Tensor, Args, Kwargs], Tensor] | None = None
    overwritten: bool = False


Point = HookPoint | DerivedPoint | ComputedPoint


class Columns:
    """Where the numbers of each head lie in the output of a linear map.

    Args:
        places: The columns, (heads, numbers).

    Example:
        >>> Columns(torch.tensor([[0, 1], [4, 5]])).of(torch.arange(10, 18))
        tensor([[10, 11],
                [14, 15]])
    """

    def __init__(self, places: Tensor) -> None:
        self.places = places
        heads, width = places.shape
        self._start = int(places[0, 0])
        self._step = int(places[1, 0]) - self._start if heads > 1 else width
        regular = self._start + torch.arange(heads)[:, None] * self._step + torch.arange(width)
        self._regular = self._step >= width and torch.equal(places.cpu(), regular)

    def of(self, tensor: Tensor) -> Tensor:
        """Returns (..., heads, numbers); a view where the columns are evenly spaced."""
        if not self._regular:
            return tensor[..., self.places.to(tensor.device)]
        heads, width = self.places.shape
        windows: Tensor = tensor[..., self._start :].unfold(-1, width, self._step)
        return windows[..., :heads, :]

    def replaced(self, tensor: Tensor, value: Tensor) -> Tensor:
        """Returns a tensor in which a value takes these columns."""
        tensor = tensor.clone()
        tensor[..., self.places.to(tensor.device)] = value
        return tensor


def column_map(values: Tensor, heads: int, axes: tuple[str, ...]) -> Tensor | None:
    """Returns where the numbers of each head lie, from a tensor that holds the columns they came from.

    Args:
        values: Columns of a linear map's output as they arrive at a tensor with an axis of heads, as whole
            numbers.
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
    columns = by_head[0]
    if len(columns) < heads:
        return None
    repeats = len(columns) // heads
    return (
        columns[::repeats] if torch.equal(columns, columns[::repeats].repeat_interleave(repeats, 0)) else None
    )
