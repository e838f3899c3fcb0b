"""What operations that lay numbers out anew do to the meaning of axes: reshapes, joins, slices, repeats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import Tensor

from .axes import (
    SPACE,
    Axes,
    Axis,
    fitted,
    has_kind,
    joined,
    merged,
    plain,
    regrouped,
    resized,
    size_of,
    sliced,
    unknown_axes,
)


@dataclass(frozen=True)
class Operation:
    """A call of a function of torch.

    Attributes:
        name: Its canonical name.
        args: Its positional arguments.
        kwargs: Its other arguments.
        shape: The shape of a tensor that it returned.
        index: Which of its results that is.
        known: Returns the axes of a value, None for one that is no tensor or not known.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    index: int
    known: Callable[[Any], Axes | None]

    def get(self, position: int, *names: str) -> Any:
        """Returns an argument by its position or one of its names, None where it is not given."""
        if len(self.args) > position:
            return self.args[position]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    def dim(self, position: int, default: int = 0) -> int:
        """Returns the axis that an argument names, counted from the front of the first argument."""
        dim = self.get(position, "dim", "axis")
        return int(default if dim is None else dim) % len(self.axes or self.shape)

    @property
    def axes(self) -> Axes | None:
        """The axes of the first argument."""
        return self.known(self.get(0, "input", "query"))


Rule = Callable[[Operation], Axes | None]


def same_order(call: Operation) -> Axes | None:
    """Axes keep their order, whatever happens to their sizes; new ones stand in front."""
    if call.axes is None:
        return None
    front = unknown_axes((1,) * (len(call.shape) - len(call.axes)))
    return fitted((*front, *call.axes), call.shape)


def permute(call: Operation) -> Axes | None:
    """Axes in another order."""
    order = call.args[1:] if len(call.args) > 1 else (call.get(1, "dims"),)
    order = order if isinstance(order[0], int) else order[0]
    return None if call.axes is None else tuple(call.axes[index] for index in order)


def transpose(call: Operation) -> Axes | None:
    """Two axes change places, the last two where none are named."""
    if call.axes is None:
        return None
    if call.name in ("t", "T", "H"):
        return call.axes[::-1]
    first, second = call.get(1, "dim0", "axis0"), call.get(2, "dim1", "axis1")
    first, second = (-1, -2) if first is None else (first, second)  # mT, adjoint
    axes = list(call.axes)
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def movedim(call: Operation) -> Axes | None:
    """Some axes go to other places, and the others keep their order."""
    source, destination = call.get(1, "source"), call.get(2, "destination")
    if call.axes is None:
        return None
    pairs = (
        [(source, destination)] if isinstance(source, int) else list(zip(source, destination, strict=True))
    )
    rank = len(call.axes)
    moved = sorted((to % rank, start % rank) for start, to in pairs)
    order = [index for index in range(rank) if index not in {start for _, start in moved}]
    for to, start in moved:
        order.insert(to, start)
    return tuple(call.axes[index] for index in order)


def reshape(call: Operation) -> Axes | None:
    """The same numbers in their order, in axes of other sizes."""
    return None if call.axes is None else regrouped(call.axes, call.shape)


def squeeze(call: Operation) -> Axes | None:
    """Axes of size 1 go."""
    if call.axes is None:
        return None
    named = call.get(1, "dim")
    rank = len(call.axes)
    dims = range(rank) if named is None else [named] if isinstance(named, int) else named
    gone = {dim % rank for dim in dims}
    return tuple(
        axis
        for index, axis in enumerate(call.axes)
        if index not in gone or any(factor.size != 1 for factor in axis)
    )


def unsqueeze(call: Operation) -> Axes | None:
    """A new axis of size 1."""
    if call.axes is None:
        return None
    dim = call.get(1, "dim") % len(call.shape)
    return (*call.axes[:dim], plain("unknown", 1), *call.axes[dim:])


def cat(call: Operation) -> Axes | None:
    """Several joined along an axis."""
    # torch still joins tensors of no numbers and one axis with any other
    tensors = [tensor for tensor in call.get(0, "tensors") if tensor.dim() == len(call.shape)]
    dim = (call.get(1, "dim", "axis") or 0) % len(call.shape)
    found = [call.known(tensor) for tensor in tensors]
    kept = merged([axes for axes in found if axes is not None], call.shape)
    if kept is None:
        return None
    rows = [
        plain("unknown", tensor.shape[dim]) if axes is None else axes[dim]
        for axes, tensor in zip(found, tensors, strict=True)
    ]
    return (*kept[:dim], joined(rows), *kept[dim + 1 :])


def stack(call: Operation) -> Axes | None:
    """Several joined along a new axis."""
    dim = (call.get(1, "dim", "axis") or 0) % len(call.shape)
    found = [axes for axes in map(call.known, call.get(0, "tensors")) if axes is not None]
    kept = merged(found, call.shape[:dim] + call.shape[dim + 1 :])
    return None if kept is None else (*kept[:dim], plain("unknown", call.shape[dim]), *kept[dim:])


def getitem(call: Operation) -> Axes | None:
    """Whole numbers, slices, None, an ellipsis, and one list of indices; others leave nothing known."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    lists = [part for part in index if _is_list(part)]
    others = (part for part in index if not _is_list(part))
    if call.axes is None or len(lists) > 1 or not all(_is_plain(part) for part in others):
        return None
    if lists and any(type(part) is int for part in index):
        return None
    spread = next((place for place, part in enumerate(index) if part is Ellipsis), len(index))
    taken = sum(part is not None and part is not Ellipsis for part in index)
    whole = [slice(None)] * (len(call.axes) - taken)
    left, result = list(call.axes), list[Any]()
    for part in (*index[:spread], *whole, *index[spread + 1 :]):
        axis = plain("unknown", 1) if part is None else left.pop(0)
        if part is None or isinstance(part, slice):
            result.append(axis if part is None else sliced(axis, part))
        elif _is_list(part):
            result.append(picked(axis, call.shape[len(result)]))
    return tuple(result)


def _is_plain(part: Any) -> bool:
    return part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int


def _is_list(part: Any) -> bool:
    return isinstance(part, list) or (isinstance(part, Tensor) and part.dim() == 1)


def picked(axis: Axis, size: int) -> Axis:
    """The axis of some of its places in any order: a grid is lost."""
    return plain("unknown", size) if has_kind(axis, "tokens", *SPACE) else resized(axis, size)


def pick(call: Operation) -> Axes | None:
    """Places of one axis in any order: `index_select`, `gather`, `sort`, `topk`."""
    if call.axes is None:
        return None
    position, default = {"sort": (1, -1), "argsort": (1, -1), "topk": (2, -1)}.get(call.name, (1, 0))
    dim = call.dim(position, default)
    axes = fitted(call.axes, call.shape)
    return None if axes is None else (*axes[:dim], picked(axes[dim], call.shape[dim]), *axes[dim + 1 :])


def shift(call: Operation) -> Axes | None:
    """Places go round or back to front: along maps they stay places of a map, along tokens a grid is lost."""
    return None if call.axes is None else tuple(_shifted(axis) for axis in call.axes)


def _shifted(axis: Axis) -> Axis:
    several = len(axis) > 1 or has_kind(axis, "tokens")
    return picked(axis, size_of(axis)) if several and has_kind(axis, "tokens", *SPACE) else axis


def select(call: Operation) -> Axes | None:
    """One place of an axis, which goes."""
    dim = call.dim(1)
    return None if call.axes is None else (*call.axes[:dim], *call.axes[dim + 1 :])


def narrow(call: Operation) -> Axes | None:
    """Some places of an axis that follow each other."""
    start, dim = call.get(2, "start"), call.dim(1)
    return _cut(call, dim, int(start)) if call.axes is not None else None


def split(call: Operation) -> Axes | None:
    """One of the pieces of an axis."""
    if call.axes is None:
        return None
    dim = call.dim(2)
    sizes = call.get(1, "split_size_or_sections", "split_size", "split_sizes", "chunks")
    if call.name == "chunk":
        sizes = -(-size_of(call.axes[dim]) // sizes)
    if call.name == "tensor_split":
        return same_order(call)
    start = sizes * call.index if isinstance(sizes, int) else [0, *accumulate(sizes)][call.index]
    return _cut(call, dim, start)


def _cut(call: Operation, dim: int, start: int) -> Axes:
    axes = call.axes or ()
    return (*axes[:dim], sliced(axes[dim], slice(start, start + call.shape[dim])), *axes[dim + 1 :])


def repeat(call: Operation) -> Axes | None:
    """Axes that were repeated: a grid that was is lost."""
    axes = same_order(call)
    if axes is None or call.axes is None:
        return None
    before = [1] * (len(axes) - len(call.axes)) + [size_of(axis) for axis in call.axes]
    return tuple(
        axis if size == size_of(axis) else picked(axis, size_of(axis))
        for axis, size in zip(axes, before, strict=True)
    )


def unfold(call: Operation) -> Axes | None:
    """Windows along an axis, whose places come last; the windows stand in a row as the axis did."""
    if call.axes is None:
        return None
    dim = call.get(1, "dimension", "dim") % len(call.axes)
    axes: Sequence[Any] = fitted(call.axes, call.shape[:-1]) or ()
    kind = "former channels" if has_kind(axes[dim], "channels") else "unknown"
    return (*axes, plain(kind, call.shape[-1]))  # type: ignore[arg-type]
