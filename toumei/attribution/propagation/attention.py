"""Attention written with sums, products and softmaxes, as in `decompositions`."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .calls import NotDecomposed


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
    if any(option is not None for option in rare) or in_proj_weight is None or query.dim() != 3:
        raise NotDecomposed
    weights = in_proj_weight.chunk(3)
    biases = in_proj_bias.chunk(3) if in_proj_bias is not None else (None,) * 3

    def heads(tensor: Tensor, index: int) -> Tensor:  # (T, N, C) to (N, heads, T, C / heads)
        projected = F.linear(tensor, weights[index], biases[index])
        return projected.reshape(*tensor.shape[:2], num_heads, -1).permute(1, 2, 0, 3)

    queries, keys, values = (heads(tensor, index) for index, tensor in enumerate((query, key, value)))
    mask = _additive_mask(attn_mask, key_padding_mask, num_heads, query)
    if need_weights:
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.mT
        shares = (scores if mask is None else scores + mask).softmax(-1)
        mixed = shares @ values
    else:
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask)
    output = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if not need_weights:
        return output, None
    return output, shares.mean(1) if average_attn_weights else shares


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
