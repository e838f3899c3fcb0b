"""What layers and arithmetic do to the meaning of axes, and the table of the rules of all operations.

An operation that is not in the table gives axes of unknown meaning.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from . import axis_moves as moves
from .axes import (
    SPACE,
    Axes,
    Axis,
    fitted,
    has_kind,
    is_known,
    map_axes,
    merged,
    plain,
    size_of,
    tokens,
    unknown_axes,
)
from .axis_moves import Operation, Rule, same_order
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

_WINDOW_SETTINGS = {"kernel_size": 1, "dilation": 1, "padding": 0, "stride": 1}
_BY_AXES = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | MAX_POOLINGS | AVERAGE_POOLINGS | POWER_POOLINGS


def _channels_first(call: Operation) -> Axes | None:
    """Channels on axis 1, or in front where a convolution is given one picture and no batch."""
    positional = map_axes(call.shape)
    if call.name in _BY_AXES and len(call.shape) == int(call.name[-2]) + 1:
        return map_axes((1, *call.shape))[1:]
    axes = fitted(call.axes, call.shape)
    if axes is None:
        return positional
    front = plain("batch", call.shape[0]) if has_kind(axes[0], "channels") else axes[0]
    kinds = [axis[0].kind for axis in axes[2:] if len(axis) == 1]
    known = len(set(kinds)) == len(kinds) and set(kinds) <= {*SPACE, "tokens"}
    places = axes[2:] if known else positional[2:]
    return (front, plain("channels", call.shape[1]), *places)


def _channels_last(call: Operation) -> Axes | None:
    """Channels on the last axis; what were channels on another one are no more."""
    shape = call.shape
    leading = (call.axes or ())[:-1]
    if len(leading) != len(shape) - 1:
        leading = (plain("batch", shape[0]), *unknown_axes(shape[1:-1])) if len(shape) > 1 else ()
    former = [
        plain("former channels", size_of(axis)) if has_kind(axis, "channels") else axis for axis in leading
    ]
    return (*former, plain("channels", shape[-1]))


def _recurrent(call: Operation) -> Axes | None:
    """The outputs of all steps, and the last states (layers, N, C)."""
    if call.index == 0:
        return _channels_last(call)
    return (*unknown_axes(call.shape[:-1]), plain("channels", call.shape[-1]))


def _attention(call: Operation) -> Axes | None:
    """The output has the axes of the query (T, N, C); weights are of queries and keys."""
    if call.index == 0 or call.axes is None or len(call.axes) != 3:
        return _channels_last(call)
    keys = call.known(call.get(1, "key")) or unknown_axes((1, 1, 1))
    heads = unknown_axes(call.shape[1:-2])
    return fitted((call.axes[1], *heads, call.axes[0], keys[0]), call.shape)


def _embedding(call: Operation) -> Axes | None:
    leading = call.axes
    if leading is None:
        leading = (plain("batch", call.shape[0]), *unknown_axes(call.shape[1:-1]))
    return (*leading[: len(call.shape) - 1], plain("channels", call.shape[-1]))


def _elementwise(call: Operation) -> Axes | None:
    found = [call.known(value) for value in (*call.args, *call.kwargs.values())]
    return merged([axes for axes in found if axes is not None], call.shape)


def _pool(call: Operation) -> Axes | None:
    return same_order(call) or _channels_first(call)


def _layer_norm(call: Operation) -> Axes | None:
    axes = same_order(call)
    several = len(call.get(1, "normalized_shape") or ()) > 1
    known = axes is not None and any(has_kind(axis, "channels") for axis in axes)
    return axes if several or known else _channels_last(call)


def _reduce(call: Operation) -> Axes | None:
    dims = call.get(1, "dim", "axis")
    if call.axes is None:
        return None
    if isinstance(dims, Tensor):  # the larger of two tensors
        return _elementwise(call)
    if not isinstance(dims, int | tuple | list):
        return None
    if len(call.shape) == len(call.axes):
        return same_order(call)
    gone = {dim % len(call.axes) for dim in ([dims] if isinstance(dims, int) else dims)}
    return tuple(axis for index, axis in enumerate(call.axes) if index not in gone)


def _product(call: Operation, first: int = 0) -> Axes | None:
    """Rows of the first matrix and columns of the second, which are channels where it is a weight."""
    left, right = call.get(first, "input", "batch1", "mat1"), call.get(first + 1, "other", "batch2", "mat2")
    rows, columns = call.known(left), call.known(right)
    rank = len(call.shape)
    if rank < 2 or right.dim() < 2 or left.dim() < 2:
        return None
    if rows is None or len(rows) != rank:
        if columns is None or len(columns) != rank:
            return None
        return fitted((*columns[:-2], plain("unknown", call.shape[-2]), columns[-1]), call.shape)
    if columns is None and _is_weight(right):
        return _channels_last(replace(call, args=(left,)))
    last = plain("unknown", call.shape[-1]) if columns is None else columns[-1]
    return fitted((*rows[:-1], last), call.shape)


def _is_weight(tensor: Tensor) -> bool:
    """Whether a matrix is a weight: it has no batch, or is a parameter."""
    return tensor.dim() == 2 or isinstance(tensor, nn.Parameter)


def _added_product(call: Operation) -> Axes | None:
    return _product(call, 1)


def _einsum(call: Operation) -> Axes | None:
    """Each letter is the axis that it names, the only new one of a weight the channels."""
    equation, *operands = call.args
    operands = list(operands[0]) if isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return None
    inputs, result = equation.replace(" ", "").split("->")
    meanings: dict[str, Axis] = {}
    new: set[str] = set()
    for letters, operand in zip(inputs.split(","), operands, strict=True):
        axes = call.known(operand)
        if axes is None:
            new |= set(letters)
            continue
        for letter, axis in zip(letters, axes, strict=True):
            if letter not in meanings or is_known(axis):
                meanings[letter] = axis
    made = [letter for letter in result if letter in new and letter not in meanings]
    weights = all(_is_weight(operand) for operand in operands if call.known(operand) is None)
    for letter in made:
        kind = "channels" if len(made) == 1 and weights and meanings else "unknown"
        meanings[letter] = plain(kind, call.shape[result.index(letter)])  # type: ignore[arg-type]
    return fitted(tuple(meanings[letter] for letter in result), call.shape)


def _windows(call: Operation) -> Axes | None:
    """`F.unfold` gives (N, C * kernel, windows), the windows on a grid; the method cuts along one axis."""
    if len(call.shape) != 3 or call.get(0, "input").dim() != 4:
        return moves.unfold(call)
    sizes, settings = tuple(call.get(0, "input").shape[-2:]), []
    for place, name, default in (
        (1, "kernel_size", 1),
        (2, "dilation", 1),
        (3, "padding", 0),
        (4, "stride", 1),
    ):
        value = call.get(place, name)
        value = default if value is None else value
        settings.append((value, value) if isinstance(value, int) else tuple(value))
    grid = tuple(
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, dilation, padding, stride in zip(sizes, *settings, strict=True)
    )
    return (plain("batch", call.shape[0]), plain("channels", call.shape[1]), tokens(call.shape[2], grid, 0))


_ELEMENTWISE_OF_SEVERAL = """
add sub rsub mul div rdiv neg positive where maximum minimum lerp addcmul addcdiv fmod remainder atan2 hypot
masked_fill masked_scatter scatter index_add index_copy index_fill clone contiguous detach alias softmax
softmin log_softmax gumbel_softmax cumsum cumprod requires_grad normalize fill zero copy identity data rrelu
real imag ge gt le lt eq ne logical_not isfinite empty_like zeros_like ones_like rand_like randn_like
full_like bernoulli
"""
_BY_RULE: dict[Rule, str] = {
    _elementwise: _ELEMENTWISE_OF_SEVERAL,
    same_order: "pad expand expand_as broadcast_to glu scaled_dot_product_attention",
    _channels_first: """
        batch_norm group_norm instance_norm pixel_shuffle pixel_unshuffle channel_shuffle fold
        torchvision_deform_conv2d""",
    _pool: """
        fractional_max_pool2d fractional_max_pool3d interpolate upsample local_response_norm grid_sample""",
    _channels_last: "linear bilinear transformer_encoder_layer_fwd native_multi_head_attention",
    _recurrent: "lstm gru rnn_tanh rnn_relu",
    _attention: "multi_head_attention_forward",
    _layer_norm: "layer_norm rms_norm",
    _embedding: "embedding",
    _reduce: """
        mean sum amax amin max min std var var_mean std_mean median nanmean nansum vector_norm norm logsumexp
        prod any all argmax argmin""",
    _product: "matmul mm bmm",
    _added_product: "addmm baddbmm",
    _einsum: "einsum",
    _windows: "unfold",
    moves.permute: "permute",
    moves.transpose: "transpose t T mT H mH adjoint",
    moves.movedim: "movedim",
    moves.reshape: "view reshape flatten unflatten view_as reshape_as ravel",
    moves.squeeze: "squeeze",
    moves.unsqueeze: "unsqueeze",
    moves.cat: "cat",
    moves.stack: "stack",
    moves.getitem: "getitem",
    moves.pick: "index_select gather sort argsort topk",
    moves.shift: "roll flip rot90",
    moves.select: "select unbind",
    moves.narrow: "narrow",
    moves.split: "chunk split split_with_sizes tensor_split",
    moves.repeat: "repeat tile repeat_interleave",
}
_BY_SET: dict[Rule, Iterable[str]] = {
    _elementwise: ELEMENTWISE | DROPOUTS | CONVERSIONS,
    _channels_first: CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS,
    _pool: MAX_POOLINGS | AVERAGE_POOLINGS | POWER_POOLINGS,
}
RULES: dict[str, Rule] = {name: rule for rule, names in _BY_SET.items() for name in names}
RULES |= {name: rule for rule, names in _BY_RULE.items() for name in names.split()}


def axes_of_output(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    output: Tensor,
    known: Callable[[Any], Axes | None],
    index: int = 0,
) -> Axes | None:
    """Returns the axes of a tensor that an operation returned, None where they are not known.

    Args:
        name: The canonical name of the operation.
        args: Its positional arguments.
        kwargs: Its other arguments.
        output: The tensor.
        known: Returns the axes of a tensor, None for anything else.
        index: Which of its results the tensor is.
    """
    rule = RULES.get(name)
    if rule is None:
        return None
    shape = tuple(output.shape)

    def known_axes(value: Any) -> Axes | None:
        return known(value) if isinstance(value, Tensor) else None

    try:
        axes = rule(Operation(name, args, kwargs, shape, index, known_axes))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # arguments in a form that the rule does not know must not end the user's forward pass
    return fitted(axes, shape)
