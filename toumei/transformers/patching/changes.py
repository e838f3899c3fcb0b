"""Which numbers of an activation are replaced: of one layer, at one position or all, of one unit or all."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model.point_names import full_name

_POSITIONS = ("position", "query")
_UNITS = {"z": "head", "q": "head", "k": "head", "v": "head", "pattern": "head", "attn_scores": "head"}


@dataclass(frozen=True)
class Change:
    """One run that differs from the base run in one place.

    Attributes:
        layer: The layer.
        position: The position in the text; None for all.
        unit: The head or the neuron; None for all.
    """

    layer: int
    position: int | None = None
    unit: int | None = None


@dataclass(frozen=True, eq=False)
class Replacement:
    """The numbers that replace those of an activation.

    Attributes:
        what: The short name of the activation, such as ``"z"``.
        values: By layer a tensor in the layout of the activation; axes of size 1 stand for any size.
        order: The axes of the activation.
    """

    what: str
    values: dict[int, Tensor]
    order: tuple[str, ...]
    unit_axis: int | None = field(init=False)
    position_axis: int = field(init=False)

    def __post_init__(self) -> None:
        axis = _UNITS.get(self.what, "width")
        object.__setattr__(self, "unit_axis", self.order.index(axis) if axis in self.order else None)
        place = next(self.order.index(one) for one in self.order if one in _POSITIONS)
        object.__setattr__(self, "position_axis", place)

    def name(self, layer: int) -> str:
        """Returns the full name of the activation in a layer."""
        return full_name((self.what, layer))

    def new(self, layer: int, value: Tensor, start: int = 0) -> Tensor:
        """Returns the numbers for a value that begins at a position.

        Args:
            layer: The layer.
            value: The activation, in its order.
            start: The position in the text at which it begins.
        """
        new = self.values[layer].to(value)
        if new.shape[self.position_axis] > 1:
            length = value.shape[self.position_axis]
            new = new.narrow(self.position_axis, start, length)
        return new.expand_as(value)

    def put(self, value: Tensor, new: Tensor, change: Change, start: int = 0) -> None:
        """Writes the new numbers of a change into a value.

        Args:
            value: The activation, in its order; it is changed.
            new: The numbers, of the same shape.
            change: Which of them.
            start: The position in the text at which the value begins.
        """
        index = self.index(change, start)
        value[index] = new[index]

    def index(self, change: Change, start: int = 0) -> tuple[slice | int, ...]:
        """Returns the index of what a change replaces in the activation."""
        index: list[slice | int] = [slice(None)] * len(self.order)
        if change.position is not None:
            index[self.position_axis] = change.position - start
        if change.unit is not None:
            assert self.unit_axis is not None
            index[self.unit_axis] = change.unit
        return tuple(index)

    def rows(self, value: Tensor, changes: Sequence[Change], start: int = 0) -> Tensor:
        """Returns the value once for each change, (changes, ...), with its new numbers."""
        new = self.new(changes[0].layer, value, start)
        rows = torch.stack([value] * len(changes))
        for row, change in zip(rows, changes, strict=True):
            self.put(row, new, change, start)
        return rows
