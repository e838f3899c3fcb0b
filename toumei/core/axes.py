"""What each axis of a tensor means, followed through the operations of a forward pass.

An axis is made of factors: the batch, the channels, or a spatial size of a map. Reshapes merge and split
factors, permutations move them, joined class tokens push them along. What an operation does to them is
written in `toumei.core.axis_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from torch import Tensor

Kind = Literal["batch", "channels", "space", "tokens", "unknown"]


@dataclass(frozen=True)
class Factor:
    """A part of an axis.

    Attributes:
        kind: What it counts; ``"tokens"`` are positions of a grid with others before or after them.
        size: How many there are.
        grid: The sizes of the grid, for tokens.
        offset: How many tokens stand before the grid.
    """

    kind: Kind
    size: int
    grid: tuple[int, ...] = ()
    offset: int = 0


Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]


def plain(kind: Kind, size: int) -> Axis:
    """Returns an axis of one factor."""
    return (Factor(kind, size),)


def size_of(axis: Axis) -> int:
    """Returns the size of an axis."""
    return prod(factor.size for factor in axis)


def unknown_axes(shape: Sequence[int]) -> Axes:
    """Returns axes of unknown meaning."""
    return tuple(plain("unknown", size) for size in shape)


def map_axes(shape: Sequence[int]) -> Axes:
    """Returns the axes of a batch with channels first: vectors, signals, maps, volumes."""
    kinds: list[Kind] = ["batch", "channels", *(["space"] * (len(shape) - 2))]  # type: ignore[list-item]
    return tuple(plain(kind, size) for kind, size in zip(kinds, shape, strict=True))


def input_axes(tensor: Tensor) -> Axes:
    """Returns the axes of an input of a model: pictures, volumes and vectors are known."""
    if tensor.dim() in (2, 4, 5) and tensor.is_floating_point():
        return map_axes(tensor.shape)
    return (plain("batch", tensor.shape[0]), *unknown_axes(tensor.shape[1:])) if tensor.dim() else ()


def is_kind(axis: Axis, kind: Kind) -> bool:
    """Returns whether an axis is made of one factor of this kind."""
    return len(axis) == 1 and axis[0].kind == kind


def fitted(axes: Axes | None, shape: Sequence[int]) -> Axes | None:
    """Returns axes for a shape: those whose size differs keep their kind where it has any size."""
    if axes is None or len(axes) != len(shape):
        return None
    return tuple(
        axis if size_of(axis) == size else _resized(axis, size)
        for axis, size in zip(axes, shape, strict=True)
    )


def _resized(axis: Axis, size: int) -> Axis:
    kind: Kind = axis[0].kind if len(axis) == 1 and axis[0].kind != "tokens" else "unknown"
    return plain(kind, size)


# ---------------------------------------------------------------- what reshapes, joins and slices do


def regrouped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """Returns the axes after a reshape: factors keep their order and fill the new axes.

    Example:
        >>> picture = map_axes((2, 8, 3, 5))
        >>> regrouped(picture, (2, 8, 15))[2]
        (Factor(kind='tokens', size=15, grid=(3, 5), offset=0),)
    """
    factors = [factor for axis in axes for factor in axis if factor.size != 1]
    result: list[Axis] = []
    for size in shape:
        taken: list[Factor] = []
        left = size
        while left > 1 and factors and left % factors[0].size == 0:
            taken.append(factors.pop(0))
            left //= taken[-1].size
        if left > 1:  # a factor is split, and both parts lose their meaning
            if not factors or factors[0].size % left:
                return None
            factors[0] = Factor("unknown", factors[0].size // left)
            taken.append(Factor("unknown", left))
        result.append(_merged(taken) if taken else plain("unknown", size))
    if result and axes and axes[0] == plain("batch", 1) and shape[0] == 1:
        result[0] = axes[0]
    return tuple(result)


def _merged(factors: Sequence[Factor]) -> Axis:
    if len(factors) > 1 and all(factor.kind == "space" for factor in factors):
        return (Factor("tokens", size_of(tuple(factors)), tuple(factor.size for factor in factors)),)
    return tuple(factors)


def joined(rows: Sequence[Axis]) -> Axis:
    """Returns the axis along which several were joined; tokens before a grid move its offset."""
    size = sum(map(size_of, rows))
    kinds = {row[0].kind if len(row) == 1 else "unknown" for row in rows}
    if len(kinds) == 1 and kinds <= {"channels", "batch", "space"}:
        return plain(rows[0][0].kind, size)
    grids = [index for index, row in enumerate(rows) if is_kind(row, "tokens")]
    if len(grids) != 1:
        return plain("unknown", size)
    (grid,) = rows[grids[0]]
    before = sum(map(size_of, rows[: grids[0]]))
    return (replace(grid, size=size, offset=grid.offset + before),)


def sliced(axis: Axis, part: slice) -> Axis:
    """Returns an axis after a slice; a grid of tokens survives one that keeps all of it."""
    start, stop, step = part.indices(size_of(axis))
    size = len(range(start, stop, step))
    if size == size_of(axis) and step == 1:
        return axis
    if not is_kind(axis, "tokens"):
        return _resized(axis, size)
    (tokens,) = axis
    if step == 1 and start <= tokens.offset and stop >= tokens.offset + prod(tokens.grid):
        return (replace(tokens, size=size, offset=tokens.offset - start),)
    return plain("unknown", size)


def merged(found: Sequence[Axes], shape: Sequence[int]) -> Axes | None:
    """Returns the axes of what tensors broadcast to: of each axis the first meaning that is known."""
    found = [axes for axes in found if len(axes) == len(shape)]
    if not found:
        return None
    result = []
    for index, size in enumerate(shape):
        options = [axes[index] for axes in found if size_of(axes[index]) == size]
        known = [axis for axis in options if any(factor.kind != "unknown" for factor in axis)]
        result.append((known or options or [plain("unknown", size)])[0])
    return tuple(result)
