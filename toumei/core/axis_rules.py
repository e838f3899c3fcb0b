"""What operations do to the meaning of axes, by their canonical names.

An operation that is not listed gives axes of unknown meaning.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .axes import Axes, fitted, is_kind, joined, map_axes, merged, plain, regrouped, sliced, unknown_axes
from .function_kinds import (
    AVERAGE_POOLINGS,
    CONVERSIONS,
    CONVOLUTIONS,
    DROPOUTS,
    ELEMENTWISE,
    MAX_POOLINGS,
    POWER_POOLINGS,
    TRANSPOSED_CONVOLUTIONS,
)


@dataclass(frozen=True)
class Operation:
    """A call of a function of torch.

    Attributes:
        args: Its positional arguments.
        kwargs: Its other arguments.
        shape: The shape of what it returned.
        known: Returns the axes of a value, None for one that is no tensor or not known.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    known: Callable[[Any], Axes | None]

    def get(self, position: int, *names: str) -> Any:
        """Returns an argument by its position or one of its names, None where it is not given."""
        if len(self.args) > position:
            return self.args[position]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    @property
    def axes(self) -> Axes | None:
        """The axes of the first argument."""
        return self.known(self.get(0, "input", "query"))


Rule = Callable[[Operation], Axes | None]


def _channels_first(call: Operation) -> Axes | None:
    return map_axes(call.shape) if len(call.shape) >= 2 else None


def _channels_last(call: Operation) -> Axes | None:
    if len(call.shape) < 2:
        return None
    leading = (call.axes or ())[:-1]
    if len(leading) != len(call.shape) - 1:
        leading = (plain("batch", call.shape[0]), *unknown_axes(call.shape[1:-1]))
    return (*leading, plain("channels", call.shape[-1]))


def _embedding(call: Operation) -> Axes | None:
    return None if call.axes is None else (*call.axes, plain("channels", call.shape[-1]))


def _elementwise(call: Operation) -> Axes | None:
    found = [call.known(value) for value in (*call.args, *call.kwargs.values())]
    return merged([axes for axes in found if axes is not None], call.shape)


def _same_order(call: Operation) -> Axes | None:
    """Axes keep their order, whatever happens to their sizes."""
    return fitted(call.axes, call.shape)


def _pool(call: Operation) -> Axes | None:
    return _same_order(call) or _channels_first(call)


def _layer_norm(call: Operation) -> Axes | None:
    axes = _same_order(call)
    several = len(call.get(1, "normalized_shape") or ()) > 1
    known = axes is not None and any(is_kind(axis, "channels") for axis in axes)
    return axes if several or known else _channels_last(call)


def _permute(call: Operation) -> Axes | None:
    order = call.args[1:] if len(call.args) > 1 else (call.get(1, "dims"),)
    order = order if isinstance(order[0], int) else order[0]
    return None if call.axes is None else tuple(call.axes[index] for index in order)


def _transpose(call: Operation) -> Axes | None:
    if call.axes is None:
        return None
    first, second = call.get(1, "dim0", "axis0"), call.get(2, "dim1", "axis1")
    first, second = (-1, -2) if first is None else (first, second)  # t, T, mT
    axes = list(call.axes)
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def _movedim(call: Operation) -> Axes | None:
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


def _reshape(call: Operation) -> Axes | None:
    return None if call.axes is None else regrouped(call.axes, call.shape)


def _cat(call: Operation) -> Axes | None:
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


def _getitem(call: Operation) -> Axes | None:
    """Whole numbers, slices, None and an ellipsis; other indices leave nothing known."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    plain_index = all(
        part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int for part in index
    )
    if call.axes is None or not plain_index:
        return None
    spread = index.index(Ellipsis) if Ellipsis in index else len(index)
    taken = sum(part is not None and part is not Ellipsis for part in index)
    whole = [slice(None)] * (len(call.axes) - taken)
    left, result = list(call.axes), []
    for part in (*index[:spread], *whole, *index[spread + 1 :]):
        axis = plain("unknown", 1) if part is None else left.pop(0)
        if part is None or isinstance(part, slice):
            result.append(axis if part is None else sliced(axis, part))
    return tuple(result)


def _reduce(call: Operation) -> Axes | None:
    dims = call.get(1, "dim", "axis")
    if call.axes is None or not isinstance(dims, int | tuple | list):
        return None
    if len(call.shape) == len(call.axes):
        return _same_order(call)
    gone = {dim % len(call.axes) for dim in ([dims] if isinstance(dims, int) else dims)}
    return tuple(axis for index, axis in enumerate(call.axes) if index not in gone)


def _product(call: Operation, first: int = 0) -> Axes | None:
    """Rows of the first matrix and columns of the second, which are channels where it is a parameter."""
    rows, columns = call.known(call.get(first)), call.known(call.get(first + 1))
    if rows is None or len(call.shape) < 2 or len(rows) != len(call.shape):
        return None
    return (*rows[:-1], plain("channels", call.shape[-1]) if columns is None else columns[-1])


def _added_product(call: Operation) -> Axes | None:
    return _product(call, 1)


_ELEMENTWISE_OF_SEVERAL = (
    "add sub rsub mul div rdiv neg positive where maximum minimum lerp addcmul addcdiv fmod remainder "
    "masked_fill clone contiguous detach softmax log_softmax cumsum requires_grad normalize fill zero copy "
    "identity data rrelu"
)
_BY_RULE: list[tuple[Rule, Iterable[str]]] = [
    (_elementwise, ELEMENTWISE | DROPOUTS | CONVERSIONS | set(_ELEMENTWISE_OF_SEVERAL.split())),
    (
        _same_order,
        [
            "roll",
            "flip",
            "pad",
            "expand",
            "expand_as",
            "broadcast_to",
            "narrow",
            "repeat",
            "tile",
            "chunk",
            "split",
            "glu",
        ],
    ),
    (_same_order, ("tensor_split", "scaled_dot_product_attention", "multi_head_attention_forward")),
    (_channels_first, CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS),
    (_channels_first, ["batch_norm", "group_norm", "instance_norm"]),
    (_channels_first, ["pixel_shuffle", "pixel_unshuffle", "channel_shuffle"]),
    (_pool, MAX_POOLINGS | AVERAGE_POOLINGS | POWER_POOLINGS),
    (_pool, ["fractional_max_pool2d", "fractional_max_pool3d", "interpolate", "upsample"]),
    (_pool, ("local_response_norm", "grid_sample")),
    (_channels_last, ["linear", "bilinear", "lstm", "gru", "rnn_tanh", "rnn_relu"]),
    (_layer_norm, ("layer_norm", "rms_norm")),
    (_embedding, ("embedding",)),
    (_permute, ("permute",)),
    (_transpose, ["transpose", "t", "T", "mT"]),
    (_movedim, ("movedim",)),
    (
        _reshape,
        ["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"],
    ),
    (_cat, ("cat",)),
    (_getitem, ("getitem",)),
    (
        _reduce,
        ["mean", "sum", "amax", "amin", "max", "min", "std", "var", "vector_norm", "norm", "logsumexp"],
    ),
    (_product, ["matmul", "mm", "bmm"]),
    (_added_product, ("addmm", "baddbmm")),
]
RULES: dict[str, Rule] = {name: rule for rule, names in _BY_RULE for name in names}


def axes_of_output(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    output: Tensor,
    known: Callable[[Any], Axes | None],
) -> Axes | None:
    """Returns the axes of a tensor that an operation returned, None where they are not known.

    Args:
        name: The canonical name of the operation.
        args: Its positional arguments.
        kwargs: Its other arguments.
        output: The tensor.
        known: Returns the axes of a tensor, None for anything else.
    """
    rule = RULES.get(name)
    if rule is None:
        return None
    shape = tuple(output.shape)
    try:
        axes = rule(Operation(args, kwargs, shape, lambda value: _known(known, value)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None  # arguments in a form that the rule does not know must not end the user's forward pass
    return fitted(axes, shape)


def _known(known: Callable[[Any], Axes | None], value: Any) -> Axes | None:
    return known(value) if isinstance(value, Tensor) else None
