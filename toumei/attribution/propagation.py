"""Follows a forward pass function by function, and lets differences from a baseline pass through each.

Two passes are made: one of the baseline, in which the inputs of functions are noted, and one of the inputs,
in which each function that is not linear is replaced by its rule. The second pass is all that is differentiated, so the cost is about that of an ordinary gradient and one forward pass. Functions are told
apart by name, wherever they are called: modules, functional calls, in place, again and again.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..core.errors import ArgumentError
from . import rules

# Linear in all of the tensors that depend on the input together.
_LINEAR = {
    *(
        "add",
        "sub",
        "rsub",
        "neg",
        "positive",
        "sum",
        "mean",
        "cat",
        "concat",
        "concatenate",
        "stack",
        "hstack",
    ),
    *(
        "vstack",
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "movedim",
    ),
    *(
        "swapaxes",
        "t",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "broadcast_to",
        "repeat",
        "repeat_interleave",
    ),
    *(
        "tile",
        "contiguous",
        "clone",
        "to",
        "float",
        "double",
        "half",
        "bfloat16",
        "type",
        "type_as",
        "cpu",
        "cuda",
    ),
    *(
        "getitem",
        "get",
        "index_select",
        "gather",
        "take_along_dim",
        "narrow",
        "select",
        "chunk",
        "split",
        "unbind",
    ),
    *(
        "tensor_split",
        "split_with_sizes",
        "diagonal",
        "tril",
        "triu",
        "roll",
        "flip",
        "rot90",
        "pad",
        "cumsum",
    ),
    *("unfold", "fold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "interpolate", "upsample"),
    *(
        "grid_sample",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
    ),
    *("linear", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
    *("adaptive_avg_pool3d", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "identity"),
    *(
        "feature_dropout",
        "requires_grad",
        "real",
        "imag",
        "atleast_1d",
        "zero",
        "zeros_like",
        "lerp",
        "detach",
    ),
    *("ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"),
}
_ELEMENTWISE = {
    *(
        "gelu",
        "silu",
        "mish",
        "tanh",
        "sigmoid",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "relu6",
        "leaky_relu",
    ),
    *("elu", "selu", "celu", "softplus", "logsigmoid", "softsign", "tanhshrink", "hardshrink", "softshrink"),
    *(
        "threshold",
        "rrelu",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "square",
        "pow",
    ),
    *(
        "abs",
        "clamp",
        "clip",
        "clamp_min",
        "clamp_max",
        "reciprocal",
        "erf",
        "erfc",
        "sin",
        "cos",
        "atan",
        "sign",
    ),
    *("prelu", "sigmoid_", "float_power", "rpow", "xlogy", "floor", "ceil", "round", "trunc", "nan_to_num"),
}
_BILINEAR = {"mul", "multiply", "matmul", "mm", "bmm", "rmatmul", "rmul", "mv", "dot", "outer", "inner"}
_ALIASES = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "idiv": "div", "truediv": "div"}
_ALIASES |= {
    "divide": "div",
    "true_divide": "div",
    "rtruediv": "rdiv",
    "subtract": "sub",
    "radd": "add",
    "ipow": "pow",
}
_ALIASES |= {"rpow": "pow", "special_expit": "sigmoid", "relu_": "relu", "absolute": "abs"}


class _Propagation(TorchFunctionMode):
    """The mode of one pass; `note` in the pass of the baseline, `recall` in that of the inputs."""

    def __init__(self, on_unknown: str) -> None:
        super().__init__()
        self.on_unknown = on_unknown
        self.notes: list[tuple[str, tuple[Any, ...]]] = []
        self.recalled: Iterator[tuple[str, tuple[Any, ...]]] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        plain = getattr(func, "__name__", str(func))
        name = plain.strip("_")
        name = _ALIASES.get(plain, _ALIASES.get(name, name))
        rule = _RULES.get(name)
        if rule is None and name in _ELEMENTWISE:
            rule = _elementwise
        if rule is None:
            return self._linear(func, name, args, kwargs)
        in_place = (plain.endswith("_") and not plain.startswith("__")) or plain in _IN_PLACE
        in_place = in_place or kwargs.get("inplace", False) or _inplace_argument(name, args)
        if not in_place:
            return rule(self, func, name, args, kwargs)
        target = args[0]
        value = rule(
            self, _out_of_place(func, plain), name, args, {k: v for k, v in kwargs.items() if k != "inplace"}
        )
        with torch._C.DisableTorchFunction():
            return target.copy_(value) if isinstance(value, Tensor) and value is not target else value

    def at_baseline(self, name: str, *values: Any) -> tuple[Any, ...] | None:
        """Returns the values of the baseline's pass in that of the inputs, None in the baseline's own pass."""
        if self.recalled is None:
            kept = tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in values)
            self.notes.append((name, kept))
            return None
        noted, own = next(self.recalled, ("the end", ()))
        shapes = [[tuple(v.shape) for v in vs if isinstance(v, Tensor)] for vs in (values, own)]
        if noted != name or shapes[0] != shapes[1]:
            raise ArgumentError(
                f"the forward pass takes another way at the baseline: {name!r} of {shapes[0]} there is {noted!r} of "
                f"{shapes[1]}"
            )
        return own

    def _linear(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = func(*args, **kwargs)
        if self.recalled is None or name in _LINEAR:
            return output
        changes = any(isinstance(o, Tensor) and o.requires_grad for o in _flat(output))
        if changes and any(_depends(value) for value in _flat((args, kwargs))):
            message = (
                f"no rule for {name!r}, which the output depends on: contributions through it would not add up. "
                f"Known are sums, products, linear maps, elementwise functions, max-pooling, softmax, "
                f"normalizations and attention"
            )
            if self.on_unknown == "error":
                raise ArgumentError(message)
            warnings.warn(message, stacklevel=3)
        return output


_IN_PLACE = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__"}


def propagate(
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor, ...],
    on_unknown: str = "error",
) -> tuple[Tensor, Tensor]:
    """Returns a function at the inputs, with a graph whose gradients are multipliers, and at the baselines.

    Args:
        function: From the inputs to scores; it makes the same calls for both.
        inputs: Leaves that require gradients.
        baselines: Of the same shapes.
        on_unknown: ``"error"``, or ``"warn"`` to pass an operation without a rule by its gradient.

    Raises:
        ArgumentError: An operation without a rule, or another way through the network at the baseline.
    """
    mode = _Propagation(on_unknown)
    with torch.no_grad(), mode:
        at_baseline = function(*baselines)
    mode.recalled = iter(mode.notes)
    with torch.enable_grad(), mode:
        output = function(*inputs)
    return output, at_baseline


def _depends(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


def _inplace_argument(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a functional activation is told by position to work in place."""
    position = {"relu": 1, "relu6": 1, "silu": 1, "mish": 1, "hardswish": 1, "hardsigmoid": 1, "selu": 1}.get(
        name, 2
    )
    takes_it = name in (
        "relu",
        "relu6",
        "silu",
        "mish",
        "hardswish",
        "hardsigmoid",
        "selu",
        "elu",
        "celu",
        "leaky_relu",
    )
    return takes_it and len(args) > position and args[position] is True


def _out_of_place(func: Callable[..., Any], plain: str) -> Callable[..., Any]:
    """The function that does not overwrite its first argument."""
    if plain in _IN_PLACE:
        return getattr(torch, {"idiv": "div", "itruediv": "div"}.get(plain.strip("_"), plain.strip("_")[1:]))  # type: ignore[no-any-return]
    if plain.endswith("_") and not plain.startswith("__"):
        found = (
            getattr(Tensor, plain[:-1], None) or getattr(torch, plain[:-1], None) or getattr(F, plain[:-1])
        )
        return found  # type: ignore[no-any-return]
    return func


Rule = Callable[[_Propagation, Callable[..., Any], str, tuple[Any, ...], dict[str, Any]], Any]


def _elementwise(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    place = next((i for i, arg in enumerate(args) if isinstance(arg, Tensor)), None)
    x = kwargs["input"] if place is None else args[place]
    own = mode.at_baseline(name, x)
    if own is None or not x.requires_grad:
        return func(*args, **kwargs)
    others = [value for value in _flat((args, kwargs)) if value is not x and _depends(value)]
    if others:
        raise ArgumentError(f"no rule for {name!r} of two tensors that depend on the input")

    def function(value: Tensor) -> Any:
        if place is None:
            return func(**{**kwargs, "input": value})
        return func(*args[:place], value, *args[place + 1 :], **kwargs)

    return rules.rescale(function, x, own[0])


def _relu(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x = args[0] if args else kwargs["input"]
    own = mode.at_baseline(name, x)
    if own is None or not x.requires_grad:
        return x.relu()
    return rules.rescale_relu(x, own[0])


def _product(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    tensors = [value for value in args if isinstance(value, Tensor)]
    if len(tensors) < 2 or len(tensors[0].shape) + len(tensors[1].shape) == 0:
        return func(*args, **kwargs)
    own = mode.at_baseline(name, *tensors[:2])
    a, b = tensors[:2]
    if own is None or not (a.requires_grad and b.requires_grad):
        return func(*args, **kwargs)
    return rules.product(lambda a, b: func(a, b, **kwargs), a, b, *own)


def _einsum(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    operands = list(_flat(args[1:]))
    own = mode.at_baseline(name, *operands)
    moving = [index for index, operand in enumerate(operands) if operand.requires_grad]
    if own is None or len(moving) < 2:
        return func(*args, **kwargs)
    if len(moving) > 2:
        raise ArgumentError("no rule for an einsum of more than two tensors that depend on the input")
    first, second = moving

    def operation(a: Tensor, b: Tensor) -> Tensor:
        mixed = list(operands)
        mixed[first], mixed[second] = a, b
        return func(args[0], *mixed)  # type: ignore[no-any-return]

    return rules.product(operation, operands[first], operands[second], own[first], own[second])


def _with_bias(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    bias, a, b = args[:3]
    scaled = kwargs.get("alpha", 1) * _product(mode, torch.matmul, "matmul", (a, b), {})
    return kwargs.get("beta", 1) * bias + scaled


def _quotient(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    a, b = args[:2] if name == "div" else args[1::-1]
    if not isinstance(b, Tensor) or kwargs.get("rounding_mode"):
        return func(*args, **kwargs)
    own = mode.at_baseline(name, a, b)
    if own is None or not b.requires_grad:
        return func(*args, **kwargs)
    inverse = rules.rescale(torch.reciprocal, b, own[1])
    if not _depends(a):
        return a * inverse
    return rules.product(torch.mul, a, inverse, own[0], own[1].reciprocal())


def _choice(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    mask = args[0] if name == "where" else args[1] if len(args) > 1 else kwargs["mask"]
    own = mode.at_baseline(name, mask)
    if (
        own is not None
        and any(_depends(value) for value in _flat((args, kwargs)))
        and not torch.equal(mask, own[0])
    ):
        raise ArgumentError(f"no rule for {name!r} with a choice that depends on the input")
    return func(*args, **kwargs)


def _extreme(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    a, b = args[:2]
    with mode:
        return a + torch.relu(b - a) if name == "maximum" else a - torch.relu(a - b)


def _max_pool(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x = args[0] if args else kwargs["input"]
    own = mode.at_baseline(name, x)
    if own is None or not x.requires_grad:
        return func(*args, **kwargs)
    plain = name.removesuffix("_with_indices")
    with_indices = getattr(F, f"{plain}_with_indices")
    options = {key: value for key, value in kwargs.items() if key not in ("return_indices", "input")}
    pooled = rules.max_pool(lambda value: with_indices(value, *args[1:6], **options), x, own[0])
    return (pooled, None) if name != plain else pooled


def _maximum_along(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x = args[0]
    axes = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if isinstance(axes, Tensor):  # the maximum of two tensors
        return _extreme(mode, func, "maximum", args, kwargs)
    own = mode.at_baseline(name, x)
    if own is None or not x.requires_grad:
        return func(*args, **kwargs)
    axes = tuple(range(x.dim())) if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
    axes = tuple(sorted(axis % x.dim() for axis in axes))
    kept = tuple(axis for axis in range(x.dim()) if axis not in axes)
    order = (*kept, *axes)

    def laid_out(tensor: Tensor) -> Tensor:
        return (
            tensor.permute(order).flatten(len(kept)).reshape(1, -1, math.prod(x.shape[axis] for axis in axes))
        )

    def pool(rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows.max(2, keepdim=True)

    value = rules.max_pool(pool, laid_out(x), laid_out(own[0])).reshape([x.shape[axis] for axis in kept])
    if kwargs.get("keepdim", args[2] if len(args) > 2 else False):
        for axis in axes:
            value = value.unsqueeze(axis)
    if name == "amax" or (len(args) < 2 and "dim" not in kwargs):
        return value
    return torch.return_types.max((value, func(*args, **kwargs)[1]))


def _softmax(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x = args[0] if args else kwargs["input"]
    own = mode.at_baseline(name, x)
    if own is None or not x.requires_grad:
        return func(*args, **kwargs)
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if kwargs.get("dtype") is not None:
        x, own = x.to(kwargs["dtype"]), (own[0].to(kwargs["dtype"]),)
    if name == "logsumexp":
        return rules.logsumexp(x, own[0], axis, kwargs.get("keepdim", args[2] if len(args) > 2 else False))
    return (rules.softmax if name == "softmax" else rules.log_softmax)(x, own[0], axis)


def _normalization(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Layer, RMS, group and instance normalization, taken apart into means, squares, roots and products."""
    given = dict(zip(_PARAMETERS[name], args, strict=False)) | kwargs
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    epsilon = given.get("eps")
    epsilon = (torch.finfo(x.dtype).eps if name == "rms_norm" else 1e-5) if epsilon is None else epsilon
    with mode:
        if name in ("layer_norm", "rms_norm"):
            axes = tuple(range(-len(given["normalized_shape"]), 0))
            normal = _normalized(x, axes, epsilon, centred=name == "layer_norm")
            shape = None
        else:
            groups = given["num_groups"] if name == "group_norm" else x.shape[1]
            grouped = x.reshape(x.shape[0], groups, -1)
            normal = _normalized(grouped, (-1,), epsilon, centred=True).reshape(x.shape)
            shape = (1, -1, *(1,) * (x.dim() - 2))
        if weight is not None:
            normal = normal * (weight if shape is None else weight.reshape(shape))
        return normal if bias is None else normal + (bias if shape is None else bias.reshape(shape))


_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "instance_norm": (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "use_input_stats",
        "momentum",
        "eps",
    ),
}


def _normalized(x: Tensor, axes: tuple[int, ...], epsilon: float, centred: bool) -> Tensor:
    centre = x - x.mean(axes, keepdim=True) if centred else x
    return centre * (centre.square().mean(axes, keepdim=True) + epsilon).rsqrt()


def _batch_normalization(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if kwargs.get("training", args[5] if len(args) > 5 else False):
        raise ArgumentError(
            "batch normalization takes its statistics from the batch here: inputs are not apart"
        )
    return func(*args, **kwargs)


def _vector_norm(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x = args[0]
    if name == "normalize":
        order, axis, epsilon = (*args[1:], *(2.0, 1, 1e-12)[len(args) - 1 :])
        order, axis = kwargs.get("p", order), kwargs.get("dim", axis)
        epsilon = kwargs.get("eps", epsilon)
        keepdim = True
    else:
        order = kwargs.get("ord", kwargs.get("p", args[1] if len(args) > 1 else 2))
        axis, keepdim = kwargs.get("dim", args[2] if len(args) > 2 else None), kwargs.get("keepdim", False)
    if order not in (2, 2.0, None, "fro"):
        return mode._linear(func, name, args, kwargs)
    with mode:
        squares = x.square()
        norm = (squares.sum() if axis is None else squares.sum(axis, keepdim=keepdim)).sqrt()
        return x / norm.clamp(min=epsilon) if name == "normalize" else norm


def _variance(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x = args[0]
    axis = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], bool) else None)
    axes = tuple(range(x.dim())) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    count = math.prod(x.shape[own] for own in axes)
    correction = kwargs.get("correction", int(kwargs.get("unbiased", True)))
    with mode:
        centre = x - x.mean(axes, keepdim=True)
        variance = centre.square().sum(axes, keepdim=kwargs.get("keepdim", False)) / (count - correction)
        return variance.sqrt() if name == "std" else variance


def _attention(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, args, strict=False)) | kwargs
    query, key, value, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    scale = given.get("scale") or query.shape[-1] ** -0.5
    if given.get("is_causal"):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    with mode:
        if given.get("enable_gqa"):
            repeats = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        weights = (query * scale) @ key.transpose(-2, -1)
        if mask is not None:
            weights = weights.masked_fill(~mask, -1e30) if mask.dtype == torch.bool else weights + mask
        return weights.softmax(-1) @ value


def _multi_head_attention(
    mode: _Propagation, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """`nn.MultiheadAttention`: projections, attention, and the mean of its weights where it is asked for."""
    names = (
        *(
            "query",
            "key",
            "value",
            "embed_dim",
            "num_heads",
            "weight",
            "bias",
            "bias_k",
            "bias_v",
            "add_zero_attn",
        ),
        *("dropout_p", "out_weight", "out_bias", "training", "key_padding_mask", "need_weights", "attn_mask"),
    )
    given = dict(zip(names, args, strict=False)) | kwargs
    simple = ("key_padding_mask", "attn_mask", "bias_k", "bias_v")
    if any(given.get(key) is not None for key in simple) or given.get("use_separate_proj_weight"):
        return mode._linear(func, name, args, kwargs)
    heads = given["num_heads"]
    with mode:
        weights = given["weight"].chunk(3)
        biases = given["bias"].chunk(3) if given["bias"] is not None else (None,) * 3

        def split(tensor: Tensor, index: int) -> Tensor:  # (T, N, C) to (N, heads, T, C / heads)
            projected = F.linear(tensor, weights[index], biases[index])
            return projected.reshape(*tensor.shape[:2], heads, -1).permute(1, 2, 0, 3)

        query, key, value = (split(given[own], index) for index, own in enumerate(("query", "key", "value")))
        shares = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
        mixed = (shares @ value).permute(2, 0, 1, 3).flatten(2)
        output = F.linear(mixed, given["out_weight"], given["out_bias"])
        if not given.get("need_weights", True):
            return output, None
        return output, shares.mean(1) if given.get("average_attn_weights", True) else shares


_RULES: dict[str, Rule] = {
    "relu": _relu,
    **dict.fromkeys(_BILINEAR, _product),
    "einsum": _einsum,
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _with_bias),
    **dict.fromkeys(("div", "rdiv"), _quotient),
    **dict.fromkeys(("where", "masked_fill"), _choice),
    **dict.fromkeys(("maximum", "minimum"), _extreme),
    **{f"max_pool{d}d{tail}": _max_pool for d in (1, 2, 3) for tail in ("", "_with_indices")},
    **{f"adaptive_max_pool{d}d{tail}": _max_pool for d in (1, 2, 3) for tail in ("", "_with_indices")},
    **dict.fromkeys(("amax", "max"), _maximum_along),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), _softmax),
    **dict.fromkeys(_PARAMETERS, _normalization),
    "batch_norm": _batch_normalization,
    **dict.fromkeys(("vector_norm", "norm", "normalize"), _vector_norm),
    **dict.fromkeys(("var", "std"), _variance),
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
}
