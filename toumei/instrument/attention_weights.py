"""The attention weights of operations that return none, computed from their arguments."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .nodes import TensorNode

Function = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(eq=False, slots=True, repr=False)
class AttentionWeights(TensorNode):
    """The weights of an operation that returns none, computed from its arguments when it is called.

    The node stands for a tensor of shape (batch, heads, query, key), which is tracked as others are, by
    ``probe.track(only=[node])``; the graph has no such tensor. In each pass the arguments of that pass count,
    so that a mask which one pass has and another one lacks is not mistaken.

    Attributes:
        function: The function of the operation.
        compute: Returns the weights for the function, its positional and its keyword arguments.
    """

    function: Function | None = None
    compute: Callable[[Function, Args, Kwargs], Tensor] | None = None

    def of_call(self, args: Args, kwargs: Kwargs) -> Tensor:
        """Returns the weights for the arguments of a call of the operation."""
        assert self.compute is not None and self.function is not None
        with torch.no_grad():
            weights = self.compute(self.function, args, kwargs)
        return weights.reshape(-1, self.shape[1], *weights.shape[-2:])


def fused_weights(function: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Returns the weights of a call of `torch.nn.functional.scaled_dot_product_attention`.

    Rows whose keys are all masked are zero, as torch has it; ``is_causal`` aligns the first query with the
    first key, also where there are more keys.
    """
    query, scores = args[0] if args else kwargs["query"], fused_scores(args, kwargs)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    if weights[..., :1].isnan().any():  # a row without a key is NaN in all its places
        weights = weights.masked_fill(scores.amax(-1, keepdim=True) == -math.inf, 0.0)
    return weights.to(query.dtype)


def fused_scores(args: Args, kwargs: Kwargs) -> Tensor:
    """Returns what the softmax is taken of in `scaled_dot_product_attention`; -inf where keys are masked."""
    return _scaled_dot_product(*args, **kwargs)


def _scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The scores for the arguments as torch names them; those that do not change them are not used."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.transpose(-1, -2)
    scores *= query.shape[-1] ** -0.5 if scale is None else scale  # in place: new memory costs more than this
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        return scores
    if attn_mask.dtype == torch.bool:  # to add a mask takes a seventh of the time of masked_fill
        attn_mask = scores.new_zeros(attn_mask.shape).masked_fill(~attn_mask, -math.inf)
    fits = torch.broadcast_shapes(scores.shape, attn_mask.shape) == scores.shape
    return scores.add_(attn_mask) if fits and attn_mask.dtype == scores.dtype else scores + attn_mask


def module_weights(function: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Returns the weights of a call of `torch.nn.functional.multi_head_attention_forward`.

    Dropout is left out.
    """
    options = {**kwargs, "need_weights": True, "average_attn_weights": False, "training": False}
    weights: Tensor = function(*args, **options)[1]
    return weights


def flex_weights(function: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Returns the weights of a call of flex attention: what it returns for the identity as values."""
    query, key, _, *others = args
    identity = torch.eye(key.shape[-2], dtype=query.dtype, device=query.device)
    output = function(query, key, identity.expand(*key.shape[:2], -1, -1), *others, **kwargs)
    weights: Tensor = output[0]
    return weights


WEIGHTS: Mapping[str, Callable[[Function, Args, Kwargs], Tensor]] = {
    "scaled_dot_product_attention": fused_weights,
    "multi_head_attention_forward": module_weights,
    "flex_attention": flex_weights,
}
