"""Which heads write a direction of the residual stream, and which ones read it."""

from typing import Literal

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ..model.hooked_model import HookedModel
from .head_values import HeadValues
from .weights import head_weights


@checked
def write_strengths(
    model: HookedModel, direction: Tensor, *, relative: bool = False, fold_norms: bool = True
) -> HeadValues:
    """Returns how much of a direction each head can write, |W_O d| for a unit vector d.

    Args:
        model: The model.
        direction: A vector (width,) of any length but 0, such as a column of `unembedding_weights`.
        relative: Whether to divide by |W_O|, the Frobenius norm: 1 is a head that writes nothing else.
        fold_norms: Whether the gains of norms are part of the weights, see `head_weights`.

    Raises:
        ArgumentError: The direction is 0 or not finite.
        ShapeError: It has another width than the stream.
        ArchitectureError: The weights cannot be told, or norms not be folded.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = InductionTransformer(vocabulary=6, positions=16)
        >>> direction = torch.zeros(model.config.hidden_size)
        >>> direction[model.subspaces["next"].start + 3] = 1
        >>> write_strengths(HookedModel(model), direction).top(1)
        (('1.0', 1.0),)
    """
    what = "share of its output" if relative else "written"
    return _strengths(model, direction, "W_O", what, relative, fold_norms)


@checked
def read_strengths(
    model: HookedModel,
    direction: Tensor,
    by: Literal["q", "k", "v"] = "v",
    *,
    relative: bool = False,
    fold_norms: bool = True,
) -> HeadValues:
    """Returns how strongly each head reads a direction, |d W| for a unit vector d and W = W_Q, W_K or W_V.

    Args:
        model: The model.
        direction: A vector (width,) of any length but 0, such as a row of `embedding_weights`.
        by: Whether queries, keys or values read.
        relative: Whether to divide by |W|, the Frobenius norm: 1 is a head that reads nothing else.
        fold_norms: Whether the gains of norms are part of the weights, see `head_weights`.

    Raises:
        ArgumentError: The direction is 0 or not finite.
        ShapeError: It has another width than the stream.
        ArchitectureError: The weights cannot be told, or norms not be folded.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = InductionTransformer(vocabulary=6, positions=16)
        >>> direction = torch.zeros(model.config.hidden_size)
        >>> direction[model.subspaces["previous"].start + 3] = 1
        >>> read_strengths(HookedModel(model), direction, "k").top(2)
        (('1.0', 1.0), ('0.0', 0.0))
    """
    kind = {"q": "queries", "k": "keys", "v": "values"}[by]
    what = f"share of its {kind}" if relative else f"read by {kind}"
    return _strengths(model, direction, f"W_{by.upper()}", what, relative, fold_norms)


def _strengths(
    model: HookedModel, direction: Tensor, name: str, what: str, relative: bool, fold_norms: bool
) -> HeadValues:
    """The length of the product of each head's weight with a direction of the stream."""
    layers, unit = sorted(model.points.attentions), _unit(model, direction)
    found = []
    for layer in layers:
        weight: Tensor = getattr(head_weights(model, layer, fold_norms=fold_norms), name)
        along = unit.to(weight)
        length = (weight @ along if name == "W_O" else along @ weight).norm(dim=-1)
        found.append(length / weight.flatten(1).norm(dim=-1) if relative else length)
    return HeadValues.of_layers(what, layers, found)


def _unit(model: HookedModel, direction: Tensor) -> Tensor:
    if direction.shape != (model.width,):
        raise ShapeError(f"expected a direction ({model.width},), got {tuple(direction.shape)}")
    length = torch.linalg.vector_norm(direction.double())
    if not 0 < float(length) < float("inf"):
        raise ArgumentError(f"the length of a direction is positive and finite, got {float(length)}")
    result: Tensor = direction.double() / length
    return result
