"""Direct logit attribution: what each part of the residual stream adds to the logit of a token."""

from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ..heads.vocabulary_weights import final_factor, unembedding, unembedding_weights
from ..model.hooked_model import HookedModel


@torch.no_grad()
def direct_attribution(model: HookedModel, given: Any, token: int) -> tuple[tuple[str, ...], Tensor]:
    """Returns the names of the parts and what they add to a logit, (parts, batch, position).

    The divisor of the final norm is that of the pass. The last part, ``"bias"``, is what biases of the norm
    and the unembedding add. The sum over the parts is the logit before a scale or soft cap.

    Args:
        model: The model.
        given: Tokens, or a text.
        token: The token.

    Raises:
        ArgumentError: There is no such token.
        ArchitectureError: The stream is no sum of parts, or the model has no logits.
    """
    points, head = model.points, unembedding(model.points)
    weight = unembedding_weights(model)
    if not 0 <= token < weight.shape[1]:
        raise ArgumentError(f"tokens are from 0 to {weight.shape[1] - 1}, got {token}")
    names = [name for name in points.points if name.endswith(("embed", "_out"))]
    last = points.layers - 1
    streams = ["blocks.0.hook_resid_pre", f"blocks.{last}.hook_resid_post"]
    _, cache = model.run_with_cache(given, [*names, *streams, head.input.name])
    parts, labels = cache.decompose_resid()
    factor, direction = final_factor(points), weight[:, token].to(parts)
    stream = cache["resid_post", last]
    scale = factor.scale(stream, cache[head.input.name].reshape(stream.shape))
    values = factor.after(parts) * scale @ direction
    constant = factor.bias.to(direction) @ direction
    if head.bias is not None:
        constant = constant + points.graph.memory.weight(head.bias)[token]
    return (*labels, "bias"), torch.cat([values, constant.expand_as(values[:1])])
