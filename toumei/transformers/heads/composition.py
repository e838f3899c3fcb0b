"""Composition of attention heads: how far a head reads what an earlier head writes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArchitectureError
from ...core.progress import tqdm
from ..model.hooked_model import HookedModel
from .composition_result import KINDS, CompositionScores
from .weights import HeadWeights, head_weights


@checked
def composition_scores(
    model: HookedModel,
    *,
    subtract_baseline: bool = False,
    fold_norms: bool = True,
    verbose: bool = True,
) -> CompositionScores:
    """Returns Q-, K- and V-composition of each head with each head of an earlier layer.

    With W_QK = W_Q W_K^T and W_OV = W_V W_O, head 1 before head 2, and Frobenius norms (Elhage et al. 2021,
    section "Two-layer attention-only transformers"): Q-composition is |W_OV1 W_QK2| / (|W_OV1| |W_QK2|),
    K-composition has W_QK2^T in place of W_QK2, V-composition W_OV2. They are exact: the norm of
    A M B^T is tr(A^T A M B^T B M^T), so that no large matrix and no decomposition is needed.

    Heads of random weights have the score 1 / sqrt(width) on average. The score is one of weights: it knows
    neither rotary positions, with which W_QK depends on the distance, nor which directions the stream uses.

    Args:
        model: The model.
        subtract_baseline: Whether 1 / sqrt(width) is subtracted.
        fold_norms: Whether the gains of norms are part of the weights, see `head_weights`.
        verbose: Shows the progress.

    Raises:
        ArchitectureError: The weights cannot be told; norms cannot be folded, as in BERT, where they stand in
            the residual stream itself; or there is only one layer.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> scores = composition_scores(model, verbose=False)
        >>> scores.top("k", 1)[0][:2]  # the induction head reads what the previous-token head writes
        ('0.0', '1.0')
    """
    points = model.points
    layers = sorted(points.attentions)
    if len(layers) < 2:
        raise ArchitectureError("heads compose with heads of earlier layers: there is one layer of attention")
    if fold_norms:
        _check_norms(model)
    weights = [head_weights(model, layer, fold_norms=fold_norms) for layer in layers]
    heads = max(one.heads for one in weights)
    scores = torch.full((len(KINDS), len(layers), heads, len(layers), heads), torch.nan)
    pairs = [(first, second) for second in range(len(layers)) for first in range(second)]
    for first, second in tqdm(pairs, "composition", disable=not verbose):
        for kind, found in enumerate(_composition(weights[first], weights[second])):
            scores[kind, first, : len(found), second, : found.shape[1]] = found.cpu()
    baseline = weights[0].W_Q.shape[1] ** -0.5
    q, k, v = scores - baseline if subtract_baseline else scores
    return CompositionScores(
        q=q,
        k=k,
        v=v,
        layer_names=tuple(map(str, layers)),
        baseline=baseline,
        subtracted=subtract_baseline,
    )


def composition_of_layers(model: HookedModel, first: int, second: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns Q-, K- and V-composition of the heads of two layers, each (heads, heads), with norms folded.

    Raises:
        ArchitectureError: The weights cannot be told, or norms not be folded.
    """
    _check_norms(model)
    q, k, v = _composition(*(head_weights(model, layer, fold_norms=True) for layer in (first, second)))
    return q, k, v


def _check_norms(model: HookedModel) -> None:
    if len(model.points.segments) > 1:
        raise ArchitectureError(
            "norms stand in the residual stream itself and are no part of the weights: give fold_norms=False"
        )


def _composition(first: HeadWeights, second: HeadWeights) -> Iterator[Tensor]:
    """Q-, K- and V-composition (heads of the first layer, heads of the second one)."""
    values, outputs = _gram(first.W_V), _gram(first.W_O.mT)
    queries, keys = _gram(second.W_Q), _gram(second.W_K)
    written = _norm(values, outputs)
    for read, other, norm in (
        (second.W_Q, keys, _norm(queries, keys)),
        (second.W_K, queries, _norm(queries, keys)),
        (second.W_V, _gram(second.W_O.mT), _norm(_gram(second.W_V), _gram(second.W_O.mT))),
    ):
        middle = torch.einsum("adw,bwe->abde", first.W_O, read).double()
        squares = ((values[:, None] @ middle) * (middle @ other)).sum((-2, -1))
        yield (squares.clamp_min(0).sqrt() / (written[:, None] * norm)).to(first.W_O.dtype)


def _gram(matrices: Tensor) -> Tensor:
    """``A^T A`` of matrices (heads, width, numbers), (heads, numbers, numbers)."""
    return (matrices.mT @ matrices).double()


def _norm(left: Tensor, right: Tensor) -> Tensor:
    """The norms (heads,) of products ``A B^T``, from ``A^T A`` and ``B^T B``."""
    return (left * right).sum((-2, -1)).clamp_min(0).sqrt()
