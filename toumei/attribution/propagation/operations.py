"""Which function of torch follows which rule, by its name."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.function_kinds import (
    AVERAGE_POOLINGS,
    CONVERSIONS,
    CONVOLUTIONS,
    DROPOUTS,
    ELEMENTWISE,
    LAYOUT,
    MAX_POOLINGS,
    PROPERTIES,
    TRANSPOSED_CONVOLUTIONS,
)
from ...core.functions import returns_indices
from . import decompositions, rules
from .calls import Call
from .orders import PICKED, picked

# What is read of one tensor, laid out anew or not filled yet: nothing to compare. torch 2.6 begins a
# checkpoint with an empty tensor that requires a gradient.
UNSEEN = PROPERTIES | LAYOUT | {"empty"}
# Linear in all tensors that depend on the input together; indices and masks are compared.
_LINEAR = """
add sub rsub neg positive sum mean nansum cumsum trace cat stack hstack vstack
broadcast_tensors repeat_interleave pad unfold fold im2col col2im pixel_shuffle pixel_unshuffle
channel_shuffle copy requires_grad_ narrow tensor_split diagonal diag diag_embed tril triu
getitem setitem index_select gather take_along_dim take where masked_fill masked_select masked_scatter scatter
scatter_add index_add index_copy index_put index_fill zero fill interpolate upsample
pack_padded_sequence pad_packed_sequence
"""
LINEAR = frozenset(_LINEAR.split()) | CONVERSIONS | AVERAGE_POOLINGS
# Slopes of -1, 0 and 1, which rounding does not blur, however near to each other the two inputs are.
_SHARP = """
relu hardtanh relu6 threshold clamp clamp_min clamp_max abs hardshrink sign floor ceil round trunc
"""
SHARP = frozenset(_SHARP.split())
_MAPS = {"linear"} | CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS
_BILINEAR = "mul matmul rmatmul mm bmm mv dot outer inner"
_ADDED_TO = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}


def _elementwise(call: Call) -> Any:
    noted, moving = call.noted(), call.moving()
    if noted is None or not moving:
        return call.run()
    if len(moving) > 1:
        return call.unknown(" of two tensors that depend on the input")
    (key,) = moving
    return rules.rescale(
        lambda value: call.run({key: value}),
        call.tensors[key],
        noted[key],
        call.in_place,
        sharp=call.name in SHARP,
        alike=len(call.tensors) == 1,
    )


def _product(call: Call) -> Any:
    if call.linear():
        return call.run()
    noted, moving = call.noted(), call.moving()
    if noted is None or len(moving) < 2:
        return call.run()
    if len(moving) > 2:
        return call.unknown(" of more than two tensors that depend on the input")
    first, second = moving
    return rules.product(
        lambda a, b: call.run({first: a, second: b}),
        call.tensors[first],
        call.tensors[second],
        noted[first],
        noted[second],
    )


def _map(call: Call) -> Any:
    """A linear map by weights; a product with weights that depend on the input, and a bias to add to it."""
    if call.linear():
        return call.run()
    noted, moving = call.noted(), call.moving()
    factors = [key for key in moving if key not in (2, "bias")]
    if noted is None or len(factors) < 2:
        return call.run()
    first, second = factors
    mapped = rules.product(
        lambda a, b: call.run({first: a, second: b, 2: None, "bias": None}),
        call.tensors[first],
        call.tensors[second],
        noted[first],
        noted[second],
    )
    bias = call.get(2, "bias")
    axes = 0 if call.name == "linear" else int(call.name[-2])  # after that of the channels
    return mapped if bias is None else mapped + bias.reshape(-1, *(1,) * axes)


def _grid_sample(call: Call) -> Any:
    """Linear in what is sampled, not in where."""
    if call.get(1, "grid").requires_grad:
        return call.unknown(" at positions that depend on the input")
    return call.run()


def _addmm(call: Call) -> Any:
    if call.linear():
        return call.run()
    factors = [call.get(position, name) for position, name in enumerate(_ADDED_TO[call.name], 1)]
    scales = {name: call.kwargs[name] for name in ("beta", "alpha") if name in call.kwargs}
    with call.passing.following():
        return decompositions.addmm(call.get(0, "input"), *factors, **scales)


def _einsum(call: Call) -> Any:
    equation, *operands = call.args
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = list(operands[0])
    return _product(replace(call, args=(equation, *operands)))


def _max_pool(call: Call) -> Any:
    noted, x = call.noted(), call.get(0, "input")
    if noted is None or not x.requires_grad:
        return call.run()
    with_indices = getattr(F, f"{call.name}_with_indices")
    options = {key: value for key, value in call.kwargs.items() if key not in ("return_indices", "input")}
    alone = x.dim() == int(call.name[-2]) + 1  # channels of one picture
    pooled = rules.max_pool(
        lambda tensor: with_indices(tensor, *call.args[1:6], **options),
        *(tensor[None] if alone else tensor for tensor in (x, *noted.values())),
    )
    pooled = pooled[0] if alone else pooled
    return (pooled, call.run()[1]) if returns_indices(call.function, call.kwargs) else pooled


def _maximum(call: Call) -> Any:
    """The maximum along axes, as a pool with one window; or of two tensors."""
    x, axes, keepdim = call.get(0, "input"), call.get(1, "dim"), call.get(2, "keepdim", False)
    other = axes if isinstance(axes, Tensor) else call.kwargs.get("other")
    if other is not None:
        with call.passing.following():
            return torch.maximum(x, other)
    noted = call.noted()
    if noted is None or not x.requires_grad:
        return call.run()
    given = tuple(range(x.dim())) if axes in (None, ()) else (axes,) if isinstance(axes, int) else axes
    over = sorted(axis % x.dim() for axis in given)
    kept = [axis for axis in range(x.dim()) if axis not in over]
    window = math.prod(x.shape[axis] for axis in over)

    def rows(tensor: Tensor) -> Tensor:
        return tensor.permute(*kept, *over).reshape(1, -1, window)

    pooled = rules.max_pool(lambda tensor: tensor.max(2, keepdim=True), rows(x), *map(rows, noted.values()))
    shape = [1 if axis in over else size for axis, size in enumerate(x.shape) if keepdim or axis in kept]
    value = pooled.reshape(shape)
    if call.name == "amax" or axes is None:
        return value
    return torch.return_types.max((value, call.run()[1]))


def _softmax(call: Call) -> Any:
    noted, x = call.noted(), call.get(0, "input")
    if noted is None or not x.requires_grad:
        return call.run()
    (x0,) = noted.values()
    axis = call.get(1, "dim")
    if call.name == "logsumexp":
        if not isinstance(axis, int):
            return call.unknown(" along several axes")
        return rules.logsumexp(x, x0, axis, call.get(2, "keepdim", False))
    for dtype in (*call.args, *call.kwargs.values()):
        if isinstance(dtype, torch.dtype):
            x, x0 = x.to(dtype), x0.to(dtype)
    if axis is None:  # torch's choice for those who do not choose
        axis = 0 if x.dim() in (0, 1, 3) else 1
    return (rules.softmax if call.name == "softmax" else rules.log_softmax)(x, x0, axis)


def _attention(call: Call) -> Any:
    noted = call.noted()
    if noted is None or not call.moving():
        return call.run()
    if call.get(4, "dropout_p", 0.0):
        return call.unknown(" with dropout at work")
    at_baseline = replace(
        call,
        args=tuple(noted.get(key, value) for key, value in enumerate(call.args)),
        kwargs={key: noted.get(key, value) for key, value in call.kwargs.items()},
    )
    now, before = _attended(call), _attended(at_baseline)
    if now[3] is not None and now[3].dtype == torch.bool and not now[3].equal(before[3]):
        return call.unknown(" with a mask that depends on the input")
    return rules.attention(now, before, call.get(6, "scale"))


def _attended(call: Call) -> tuple[Tensor, Tensor, Tensor, Any]:
    """The queries, keys, values and mask of attention."""
    names = ("query", "key", "value", "attn_mask")
    query, key, value, mask = (call.get(position, name) for position, name in enumerate(names))
    if call.get(7, "enable_gqa", False):
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if call.get(5, "is_causal", False):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return query, key, value, mask


def _layer_norm(call: Call) -> Any:
    noted, x = call.noted(), call.get(0, "input")
    weight, bias = call.get(2, "weight"), call.get(3, "bias")
    if noted is None or not x.requires_grad:
        return call.run()
    if any(key in (2, "weight") for key in call.moving()):
        return call.unknown(" with weights that depend on the input")
    axes = len(call.get(1, "normalized_shape"))
    normal = rules.standardized(x, noted[0 if call.args else "input"], axes, call.get(4, "eps", 1e-5))
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


def _batch_norm(call: Call) -> Any:
    """Linear, unless its statistics are those of the batch."""
    if call.get(5, "training", False):
        return call.unknown(" with the statistics of the batch")
    if any(key in (3, "weight") for key in call.moving()):
        return call.unknown(" with weights that depend on the input")
    return call.run()


def _dropout(call: Call) -> Any:
    """The identity, unless it is told to be at work."""
    if call.get(2, "training", True) and call.get(1, "p", 0.5) > 0:
        return call.unknown(" at work (training=True)")
    return call.run()


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_BILINEAR.split(), _product),
    **dict.fromkeys(_MAPS, _map),
    "grid_sample": _grid_sample,
    "einsum": _einsum,
    **dict.fromkeys(MAX_POOLINGS, _max_pool),
    **dict.fromkeys(("max", "amax"), _maximum),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), _softmax),
    **dict.fromkeys(PICKED, picked),
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(_ADDED_TO, _addmm),
    **dict.fromkeys(DROPOUTS, _dropout),
}
