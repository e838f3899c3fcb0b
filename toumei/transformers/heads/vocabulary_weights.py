"""The weights between vocabulary and residual stream: embedding, unembedding and the norm before it."""

from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArchitectureError
from ...core.modules import without_wrapper
from ...core.offloading import loaded_weight
from ...core.tensors import whole
from ...instrument import LinearMap, find_linear
from ..model.hook_search import HookPoints
from ..model.hooked_model import HookedModel
from .norm_factors import NormFactor, measured_factor
from .weights import matrix_of, stream_before


@checked
def embedding_weights(model: HookedModel, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns W_E (tokens, width), the embedding of the tokens, before any scale, norm or position.

    Args:
        model: The model.
        dtype: The precision of the numbers.

    Raises:
        ArchitectureError: The model embeds no tokens.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> embedding_weights(HookedModel(InductionTransformer(vocabulary=5, positions=8))).shape
        torch.Size([5, 23])
    """
    inner: Any = without_wrapper(model.model)
    embedding = getattr(inner, "get_input_embeddings", lambda: None)()
    weight = getattr(embedding, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ArchitectureError(f"{type(inner).__name__} embeds no tokens")
    if weight.is_meta:
        name = next(name for name, one in inner.named_modules() if one is embedding)
        weight = loaded_weight(inner, f"{name}.weight")
    return whole(weight).to(dtype)


@checked
def unembedding_weights(
    model: HookedModel, *, fold_norm: bool = False, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Returns W_U (width, tokens), from the residual stream to the logits, before any scale or soft cap.

    Args:
        model: The model.
        fold_norm: Whether the gain of the norm before it is part of it, and that the norm takes off the mean,
            so that it reads the residual stream itself up to the divisor of the norm.
        dtype: The precision of the numbers.

    Raises:
        ArchitectureError: The model has no logits of tokens, or the norm before them cannot be told.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = InductionTransformer(vocabulary=5, positions=8, sharpness=20)
        >>> unembedding_weights(HookedModel(model))[model.subspaces["next"], 3]
        tensor([ 0.,  0.,  0., 20.,  0.])
    """
    points = model.points
    weight = matrix_of(points.graph, unembedding(points)).to(dtype)
    return final_factor(points).before(weight) if fold_norm else weight


def final_factor(points: HookPoints) -> NormFactor:
    """Returns what happens between the end of the residual stream and the unembedding: a norm, or nothing.

    Raises:
        ArchitectureError: The model has no logits of tokens, or there is more than a norm.
    """
    head = unembedding(points)
    return measured_factor(points.graph, stream_before(points, head.input), head.input)


def unembedding(points: HookPoints) -> LinearMap:
    """Returns the linear map that gives the logits of the tokens.

    Raises:
        ArchitectureError: There is none.
    """
    model: Any = points.graph.memory.model
    head = getattr(model, "get_output_embeddings", lambda: None)()
    weight = getattr(head, "weight", None)
    for linear in find_linear(points.graph):
        if linear.weight.kind == "parameter" and model.get_parameter(linear.weight.name) is weight:
            return linear
    raise ArchitectureError(f"{type(model).__name__} has no linear map to the logits of tokens")
