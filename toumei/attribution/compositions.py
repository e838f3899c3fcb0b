"""Functions of torch said again with sums, products, roots and softmaxes, so that rules for those suffice.

Each takes the arguments of the function that it is named after, and returns `NotImplemented` where it does
not cover them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Axes = int | Sequence[int] | None


def div(input: Tensor, other: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    """A quotient."""
    if rounding_mode is not None:
        return NotImplemented
    return input * (other.reciprocal() if isinstance(other, Tensor) else 1 / other)


def rdiv(input: Tensor, other: Tensor | float) -> Tensor:
    """A quotient with the first argument below."""
    return input.reciprocal() * other


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The greater of two tensors."""
    return input + torch.relu(other - input)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two tensors."""
    return input - torch.relu(input - other)


def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Some of the way from one tensor to another."""
    return input + (end - input) * weight


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """One half, gated by the other."""
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


def addmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """A matrix product and something to add to it."""
    mixed = a @ b if alpha == 1 else alpha * (a @ b)
    return mixed + (input if beta == 1 else beta * input)


def var(
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance."""
    axes = _axes(input, dim)
    count = math.prod(input.shape[axis] for axis in axes)
    below = count - (int(unbiased) if correction is None else correction)
    return (input - input.mean(axes, keepdim=True)).square().sum(axes, keepdim=keepdim) / below


def std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The standard deviation."""
    return var(input, *args, **kwargs).sqrt()


def norm(
    input: Tensor,
    p: float | str | None = 2,
    dim: Axes = None,
    keepdim: bool = False,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The root of a sum of squares."""
    if p not in (2, 2.0, None, "fro") or dtype is not None:
        return NotImplemented
    return input.square().sum(_axes(input, dim), keepdim=keepdim).sqrt()


def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: Axes = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The root of a sum of squares."""
    return norm(x, ord, dim, keepdim, dtype=dtype)


def normalize(
    input: Tensor,
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    out: None = None,
) -> Tensor:
    """Vectors of length 1."""
    length = norm(input, p, dim, True)
    return NotImplemented if length is NotImplemented else input / length.clamp(min=eps)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Root-mean-square normalization."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    axes = tuple(range(-len(normalized_shape), 0))
    normal = input * (input.square().mean(axes, keepdim=True) + eps).rsqrt()
    return _scaled(normal, weight, None)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Group normalization."""
    grouped = input.reshape(input.shape[0], num_groups, -1)
    shape = (-1, *(1,) * (input.dim() - 2))
    own = [part if part is None else part.reshape(shape) for part in (weight, bias)]
    normal = F.layer_norm(grouped, grouped.shape[-1:], eps=eps)
    return _scaled(normal.reshape(input.shape), *own)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Instance normalization."""
    if use_input_stats:
        return group_norm(input, input.shape[1], weight, bias, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention, where boolean masks say what takes part."""
    if dropout_p:
        return NotImplemented
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return _attention_shares(query, key, attn_mask, scale) @ value


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """`nn.MultiheadAttention` over batches (T, N, C); boolean masks say what is left out."""
    rare = (bias_k, bias_v, add_zero_attn or None, dropout_p if training and dropout_p else None)
    if any(own is not None for own in rare) or in_proj_weight is None or query.dim() != 3:
        return NotImplemented
    weights = in_proj_weight.chunk(3)
    biases = in_proj_bias.chunk(3) if in_proj_bias is not None else (None,) * 3

    def heads(tensor: Tensor, index: int) -> Tensor:  # (T, N, C) to (N, heads, T, C / heads)
        projected = F.linear(tensor, weights[index], biases[index])
        return projected.reshape(*tensor.shape[:2], num_heads, -1).permute(1, 2, 0, 3)

    own = [heads(tensor, index) for index, tensor in enumerate((query, key, value))]
    mask = _additive_mask(attn_mask, key_padding_mask, num_heads, query)
    shares = _attention_shares(own[0], own[1], mask, None)
    mixed = (shares @ own[2]).permute(2, 0, 1, 3).flatten(2)
    output = F.linear(mixed, out_proj_weight, out_proj_bias)
    if not need_weights:
        return output, None
    return output, shares.mean(1) if average_attn_weights else shares


COMPOSITIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(div, rdiv, maximum, minimum, lerp, glu, var, std, norm, vector_norm, normalize),
        *(rms_norm, group_norm, instance_norm, scaled_dot_product_attention, multi_head_attention_forward),
    )
}


def _axes(tensor: Tensor, given: Axes) -> tuple[int, ...]:
    if given is None:
        return tuple(range(tensor.dim()))
    return (given,) if isinstance(given, int) else tuple(given)


def _scaled(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


def _attention_shares(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1)


def _additive_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int, like: Tensor
) -> Tensor | None:
    """Both masks of `nn.MultiheadAttention` as numbers to add to the scores (N, heads, T, S)."""

    def numbers(mask: Tensor) -> Tensor:
        return (
            torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
            if mask.dtype == torch.bool
            else mask
        )

    merged = None
    if attn_mask is not None:
        merged = numbers(attn_mask)
        merged = merged.unflatten(0, (-1, heads)) if merged.dim() == 3 else merged
    if key_padding_mask is not None:
        padding = numbers(key_padding_mask)[:, None, None]
        merged = padding if merged is None else merged + padding
    return merged
