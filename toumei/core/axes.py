"""What each axis of a tensor means, followed through the operations of a forward pass.

An axis is made of factors: the batch, the channels, or a spatial size of a map. Reshapes merge and split
factors, permutations move them, class tokens that are joined push them along. A factor that is split gives
parts, and parts that come together again in their order are the whole: windows of a map that are put back
are the map. What an operation does to axes is written in `toumei.core.axis_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from torch import Tensor

Kind = Literal["batch", "channels", "z", "y", "x", "tokens", "former channels", "unknown"]
SPACE: tuple[Kind, ...] = ("z", "y", "x")
_DIVISIBLE = ("batch", "channels", *SPACE)  # whose parts are followed


@dataclass(frozen=True)
class Factor:
    """An axis, or a part of one.

    Attributes:
        kind: What it counts. ``"tokens"`` are positions of a grid with others before or after them;
            ``"former channels"`` were channels until a linear layer made other ones.
        size: How many there are.
        total: How many the whole has.
        step: How many of the whole lie between one and the next.
        grid: The sizes of the grid, for tokens.
        offset: How many tokens stand before the grid.
    """

    kind: Kind
    size: int
    total: int
    step: int = 1
    grid: tuple[int, ...] = ()
    offset: int = 0

    @property
    def covers(self) -> bool:
        """Whether it goes over the whole, in steps of any size."""
        return self.step * self.size == self.total


Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]


def plain(kind: Kind, size: int) -> Axis:
    """Returns an axis of one whole factor."""
    return (Factor(kind, size, size),)


def size_of(axis: Axis) -> int:
    """Returns the size of an axis."""
    return prod(factor.size for factor in axis)


def unknown_axes(shape: Sequence[int]) -> Axes:
    """Returns axes of unknown meaning."""
    return tuple(plain("unknown", size) for size in shape)


def map_axes(shape: Sequence[int]) -> Axes:
    """Returns the axes of a batch with channels first: vectors, signals, maps, volumes.

    Example:
        >>> [axis[0].kind for axis in map_axes((2, 8, 3, 5))]
        ['batch', 'channels', 'y', 'x']
    """
    kinds: list[Kind] = ["batch", "channels", *_space_kinds(len(shape) - 2)]
    return tuple(plain(kind, size) for kind, size in zip(kinds, shape, strict=True))


def _space_kinds(count: int) -> list[Kind]:
    unknown: list[Kind] = ["unknown"] * (count - len(SPACE))
    return unknown + list(SPACE[max(len(SPACE) - count, 0) :])


def input_axes(tensor: Tensor) -> Axes:
    """Returns the axes of an input of a model: pictures, volumes and vectors are known."""
    if tensor.dim() in (2, 4, 5) and tensor.is_floating_point():
        return map_axes(tensor.shape)
    return (plain("batch", tensor.shape[0]), *unknown_axes(tensor.shape[1:])) if tensor.dim() else ()


def has_kind(axis: Axis, *kinds: Kind) -> bool:
    """Returns whether an axis has a factor whose kind is among those given."""
    return any(factor.kind in kinds for factor in axis)


def is_known(axis: Axis) -> bool:
    """Returns whether anything is known of an axis."""
    return any(factor.kind not in ("unknown", "former channels") for factor in axis)


def grid_of(axis: Axis) -> tuple[tuple[int, ...], int] | None:
    """Returns the sizes of the grid that an axis runs over, and how many tokens stand before it.

    Example:
        >>> picture = map_axes((2, 8, 3, 5))
        >>> grid_of(picture[2] + picture[3])
        ((3, 5), 0)
    """
    if len(axis) == 1 and axis[0].kind == "tokens":
        return axis[0].grid, axis[0].offset
    order = [SPACE.index(factor.kind) if factor.kind in SPACE else -1 for factor in axis]
    in_order = -1 not in order and order == sorted(set(order))
    return (tuple(factor.size for factor in axis), 0) if in_order and all(f.covers for f in axis) else None


def fitted(axes: Axes | None, shape: Sequence[int]) -> Axes | None:
    """Returns axes for a shape: those whose size differs keep their kind where it has any size."""
    if axes is None or len(axes) != len(shape):
        return None
    return tuple(
        axis if size_of(axis) == size else resized(axis, size) for axis, size in zip(axes, shape, strict=True)
    )


def resized(axis: Axis, size: int) -> Axis:
    """Returns an axis with another size, of the same kind where that has any size."""
    if len(axis) == 1:
        kind = axis[0].kind
        if kind != "tokens" and axis[0].covers:
            return plain(kind, size)
        if kind == "channels":  # some of a part of the channels, which no reshape makes whole again
            return (Factor(kind, size, 0, 0),)
    return plain("former channels" if has_kind(axis, "channels") else "unknown", size)


# ---------------------------------------------------------------- what reshapes, joins and slices do


def regrouped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """Returns the axes after a reshape: factors keep their order and fill the new axes.

    Example:
        >>> picture = map_axes((2, 8, 3, 5))
        >>> regrouped(picture, (2, 8, 15))[2] == picture[2] + picture[3]
        True
    """
    factors = [factor for axis in axes for factor in axis]
    result: list[Axis] = []
    for place, size in enumerate(shape):
        taken: list[Factor] = []
        left = size
        if size == 1 and factors and factors[0].size == 1:
            taken.append(factors.pop(0))
        while left > 1 and factors and left % factors[0].size == 0:
            taken.append(factors.pop(0))
            left //= taken[-1].size
        if left > 1:
            if not factors or factors[0].size % left:
                return None
            first, factors[0] = _halves(factors[0], left)
            taken.append(first)
        if tuple(shape[place + 1 : place + 2]) != (1,):
            taken += _thin(factors, taken)
        result.append(_compact(taken) if taken else plain("unknown", size))
    if result and shape[0] == 1 and not is_known(result[0]):
        result[0] = plain("batch", 1)
    return tuple(result)


def _thin(factors: list[Factor], taken: Sequence[Factor]) -> list[Factor]:
    """Takes the spatial sizes of 1 that follow other spatial sizes."""
    found: list[Factor] = []
    while taken and taken[-1].kind in SPACE and factors and factors[0].size == 1 and factors[0].kind in SPACE:
        found.append(factors.pop(0))
    return found


def _halves(factor: Factor, size: int) -> tuple[Factor, Factor]:
    """The slow and the fast part of a factor, the slow one of this size."""
    rest = factor.size // size
    if factor.kind not in _DIVISIBLE:
        kind: Kind = "former channels" if factor.kind == "former channels" else "unknown"
        return Factor(kind, size, size), Factor(kind, rest, rest)
    return replace(factor, size=size, step=factor.step * rest), replace(factor, size=rest)


def _compact(factors: Sequence[Factor]) -> Axis:
    """Puts parts together, and drops factors of size 1 that say nothing."""
    spatial = all(factor.kind in SPACE or factor.size == 1 for factor in factors)
    kept = [factor for factor in factors if factor.size > 1 or (spatial and factor.kind in SPACE)]
    result: list[Factor] = []
    for factor in kept or factors[:1]:
        if result and _continues(result[-1], factor):
            result[-1] = replace(factor, size=result[-1].size * factor.size)
        else:
            result.append(factor)
    return tuple(result)


def _continues(last: Factor, factor: Factor) -> bool:
    same = last.kind == factor.kind in _DIVISIBLE and last.total == factor.total > 0
    return same and factor.size > 1 and last.step == factor.step * factor.size


def joined(rows: Sequence[Axis]) -> Axis:
    """Returns the axis along which several were joined; tokens before a grid move its offset."""
    size = sum(map(size_of, rows))
    for kind in ("channels", "batch"):  # more of either is what is joined to them
        same = [row == plain(kind, size_of(row)) for row in rows]
        if any(same) and all(one or not is_known(row) for one, row in zip(same, rows, strict=True)):
            return plain(kind, size)
    if all(len(row) == 1 and row[0].kind == rows[0][0].kind in SPACE and row[0].covers for row in rows):
        return plain(rows[0][0].kind, size)
    if any(has_kind(row, "channels") for row in rows):
        return (Factor("channels", size, 0, 0),)
    grids = [index for index, row in enumerate(rows) if is_known(row)]
    if len(grids) != 1 or (found := grid_of(rows[grids[0]])) is None:
        return plain("unknown", size)
    grid, offset = found
    return tokens(size, grid, offset + sum(map(size_of, rows[: grids[0]])))


def tokens(size: int, grid: tuple[int, ...], offset: int) -> Axis:
    """Returns an axis of tokens: those of the grid, and others before or after them."""
    if size == prod(grid):
        kinds = _space_kinds(len(grid))
        return tuple(Factor(kind, size, size) for kind, size in zip(kinds, grid, strict=True))
    return (Factor("tokens", size, size, 1, grid, offset),)


def sliced(axis: Axis, part: slice) -> Axis:
    """Returns an axis after a slice; a grid of tokens survives one that keeps all of it."""
    start, stop, step = part.indices(size_of(axis))
    size = len(range(start, stop, step))
    if size == size_of(axis) and step == 1:
        return axis
    if len(axis) == 1 and axis[0].kind == "tokens" and step == 1:
        grid, offset = axis[0].grid, axis[0].offset
        if start <= offset and stop >= offset + prod(grid):
            return tokens(size, grid, offset - start)
    return resized(axis, size)


def merged(found: Sequence[Axes], shape: Sequence[int]) -> Axes | None:
    """Returns the axes of the tensor that tensors broadcast to: each has the first meaning that is known."""
    rank = len(shape)
    found = [(*unknown_axes((1,) * (rank - len(axes))), *axes) for axes in found if len(axes) <= rank]
    found.sort(key=lambda axes: any(has_kind(axis, "former channels") for axis in axes))
    if not found:
        return None
    result = []
    for index, size in enumerate(shape):
        options = [axes[index] for axes in found if size_of(axes[index]) == size]
        known = [axis for axis in options if is_known(axis)]
        result.append((known or options or [plain("unknown", size)])[0])
    return tuple(result)
