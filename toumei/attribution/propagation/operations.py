"""Which function of torch follows which rule, by its name."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import decompositions as compositions
from . import rules

if TYPE_CHECKING:
    from .engine import Call

# What is read of one tensor (its shape, or a property, such as `x.T`) or laid out anew: nothing to compare.
_UNSEEN = """
get size dim view view_as reshape reshape_as flatten unflatten ravel permute transpose movedim moveaxis
swapaxes t squeeze unsqueeze expand expand_as broadcast_to repeat tile roll flip rot90 contiguous clone
select chunk split split_with_sizes unbind
"""
# Linear in all tensors that depend on the input together; indices and masks are compared.
_LINEAR = """
add sub rsub neg positive sum mean nansum cumsum trace cat concat concatenate stack hstack vstack
broadcast_tensors repeat_interleave pad unfold fold im2col col2im pixel_shuffle pixel_unshuffle
channel_shuffle copy to float double half bfloat16 type type_as cpu cuda requires_grad narrow tensor_split
diagonal diag diag_embed tril triu
getitem setitem index_select gather take_along_dim take where masked_fill masked_select masked_scatter scatter
scatter_add index_add index_copy index_put index_fill zero fill
interpolate upsample avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
"""
_ELEMENTWISE = """
relu gelu silu mish tanh sigmoid hardswish hardsigmoid hardtanh relu6 leaky_relu elu selu celu prelu softplus
log_sigmoid softsign tanhshrink hardshrink softshrink threshold exp exp2 expm1 log log2 log10 log1p sqrt rsqrt
square pow rpow abs clamp clamp_min clamp_max reciprocal erf erfc sin cos tan atan sinh cosh asinh sign floor
ceil round trunc nan_to_num
"""
# Slopes of -1, 0 and 1, which rounding does not blur, however near to each other the two inputs are.
_SHARP = """
relu hardtanh relu6 threshold clamp clamp_min clamp_max abs hardshrink sign floor ceil round trunc
"""
_MAPS = "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
_BILINEAR = "mul matmul rmatmul mm bmm mv dot outer inner"
_ADDED_TO = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout"
UNSEEN = frozenset(_UNSEEN.split())
LINEAR = frozenset(_LINEAR.split())
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
SHARP = frozenset(_SHARP.split())


def _elementwise(call: "Call") -> Any:
    noted, moving = call.noted(), call.moving()
    if noted is None or not moving:
        return call.run()
    if len(moving) > 1:
        return call.unknown(" of two tensors that depend on the input")
    (place,) = moving
    return rules.rescale(
        lambda value: call.run({place: value}),
        call.tensors[place],
        noted[place],
        call.in_place,
        sharp=call.name in SHARP,
        alike=len(call.tensors) == 1,
    )


def _product(call: "Call") -> Any:
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


def _map(call: "Call") -> Any:
    """A linear map by weights; a product with weights that depend on the input, and a bias to add to it."""
    if call.linear():
        return call.run()
    noted, moving = call.noted(), call.moving()
    factors = [place for place in moving if place not in (2, "bias")]
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
    axes = 0 if call.name == "linear" else int(call.name[-2])  # behind that of the channels
    return mapped if bias is None else mapped + bias.reshape(-1, *(1,) * axes)


def _grid_sample(call: "Call") -> Any:
    """Linear in what is sampled, not in where."""
    if call.get(1, "grid").requires_grad:
        return call.unknown(" at places that depend on the input")
    return call.run()


def _addmm(call: "Call") -> Any:
    if call.linear():
        return call.run()
    factors = [call.get(place, name) for place, name in enumerate(_ADDED_TO[call.name], 1)]
    scales = {name: call.kwargs[name] for name in ("beta", "alpha") if name in call.kwargs}
    with call.mode:
        return compositions.addmm(call.get(0, "input"), *factors, **scales)


def _einsum(call: "Call") -> Any:
    equation, *operands = call.args
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = list(operands[0])
    return _product(replace(call, args=(equation, *operands)))


def _max_pool(call: "Call") -> Any:
    noted, x = call.noted(), call.get(0, "input")
    if noted is None or not x.requires_grad:
        return call.run()
    plain = call.name.removesuffix("_with_indices")
    with_indices = getattr(F, f"{plain}_with_indices")
    options = {key: own for key, own in call.kwargs.items() if key not in ("return_indices", "input")}
    alone = x.dim() == int(plain[-2]) + 1  # channels of one picture
    pooled = rules.max_pool(
        lambda own: with_indices(own, *call.args[1:6], **options),
        *(own[None] if alone else own for own in (x, *noted.values())),
    )
    pooled = pooled[0] if alone else pooled
    return pooled if call.name == plain else (pooled, call.run()[1])


def _maximum(call: "Call") -> Any:
    """The maximum along axes, as a pool with one window; or of two tensors."""
    x, axes, keepdim = call.get(0, "input"), call.get(1, "dim"), call.get(2, "keepdim", False)
    other = axes if isinstance(axes, Tensor) else call.kwargs.get("other")
    if other is not None:
        with call.mode:
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

    pooled = rules.max_pool(lambda own: own.max(2, keepdim=True), rows(x), *map(rows, noted.values()))
    shape = [1 if axis in over else size for axis, size in enumerate(x.shape) if keepdim or axis in kept]
    value = pooled.reshape(shape)
    if call.name == "amax" or axes is None:
        return value
    return torch.return_types.max((value, call.run()[1]))


def _softmax(call: "Call") -> Any:
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


def _attention(call: "Call") -> Any:
    noted = call.noted()
    if noted is None or not call.moving():
        return call.run()
    if call.get(4, "dropout_p", 0.0):
        return call.unknown(" with dropout at work")
    at_baseline = replace(
        call,
        args=tuple(noted.get(place, own) for place, own in enumerate(call.args)),
        kwargs={name: noted.get(name, own) for name, own in call.kwargs.items()},
    )
    now, before = _attended(call), _attended(at_baseline)
    if now[3] is not None and now[3].dtype == torch.bool and not now[3].equal(before[3]):
        return call.unknown(" with a mask that depends on the input")
    return rules.attention(now, before, call.get(6, "scale"))


def _attended(call: "Call") -> tuple[Tensor, Tensor, Tensor, Any]:
    """The queries, keys, values and mask of attention."""
    names = ("query", "key", "value", "attn_mask")
    query, key, value, mask = (call.get(place, name) for place, name in enumerate(names))
    if call.get(7, "enable_gqa", False):
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if call.get(5, "is_causal", False):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return query, key, value, mask


def _layer_norm(call: "Call") -> Any:
    noted, x = call.noted(), call.get(0, "input")
    weight, bias = call.get(2, "weight"), call.get(3, "bias")
    if noted is None or not x.requires_grad:
        return call.run()
    if any(place in (2, "weight") for place in call.moving()):
        return call.unknown(" with weights that depend on the input")
    axes = len(call.get(1, "normalized_shape"))
    normal = rules.standardized(x, noted[0 if call.args else "input"], axes, call.get(4, "eps", 1e-5))
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


def _batch_norm(call: "Call") -> Any:
    """Linear, unless its statistics are those of the batch."""
    if call.get(5, "training", False):
        return call.unknown(" with the statistics of the batch")
    if any(place in (3, "weight") for place in call.moving()):
        return call.unknown(" with weights that depend on the input")
    return call.run()


def _dropout(call: "Call") -> Any:
    """The identity, unless it is told to be at work."""
    if call.get(2, "training", True) and call.get(1, "p", 0.5) > 0:
        return call.unknown(" at work (training=True)")
    return call.run()


Rule = Callable[["Call"], Any]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_BILINEAR.split(), _product),
    **dict.fromkeys(_MAPS.split(), _map),
    "grid_sample": _grid_sample,
    "einsum": _einsum,
    **{
        f"{kind}max_pool{axes}d{tail}": _max_pool
        for kind in ("", "adaptive_")
        for axes in (1, 2, 3)
        for tail in ("", "_with_indices")
    },
    **dict.fromkeys(("max", "amax"), _maximum),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), _softmax),
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(_ADDED_TO, _addmm),
    **dict.fromkeys(_DROPOUTS.split(), _dropout),
}
