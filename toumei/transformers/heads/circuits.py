"""The QK and OV circuits of attention heads: where they look, and what they then write.

Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits": a head is two matrices of its
weights, W_QK = W_Q W_K^T and W_OV = W_V W_O, with vectors as rows. Between tokens they are W_E W_QK W_E^T and
W_E W_OV W_U. All are as large as the stream or the vocabulary and have the rank of a head: they stay
factored.
"""

import torch
from torch import Tensor

from ...core.checks import checked
from ..model.hooked_model import HookedModel
from .factored_matrix import FactoredMatrix
from .head_values import HeadValues
from .query_key_maps import relative_rotation
from .vocabulary_weights import embedding_weights, final_factor, unembedding_weights
from .weights import head_weights, projection_output


@checked
def qk_circuit(
    model: HookedModel,
    layer: int,
    *,
    distance: int = 0,
    vocabulary: bool = False,
    fold_norms: bool = True,
    dtype: torch.dtype = torch.float32,
) -> FactoredMatrix:
    """Returns W_Q W_K^T of all heads of a layer: which vectors attend to which, before scale and softmax.

    With rotary positions what attends to what depends on the distance. The circuit is then
    W_Q R^distance W_K^T, with R the rotation between neighbouring positions; distance 0 leaves rotation out.
    Biases, and positions that are added to the scores as in ALiBi, are no part of it.

    Args:
        model: The model.
        layer: The number of the layer.
        distance: How many positions the query is after the key.
        vocabulary: Whether it is between tokens, W_E W_QK W_E^T (heads, tokens, tokens).
        fold_norms: Whether the gains of norms are part of it, see `head_weights`.
        dtype: The precision of the numbers.

    Returns:
        (heads, width, width): rows are queries, columns keys.

    Raises:
        LayerError: There is no such layer.
        ArchitectureError: The weights cannot be told, or norms not be folded, or positions do not rotate.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = HookedModel(InductionTransformer(vocabulary=6, positions=16))
        >>> duplicate = qk_circuit(model, 1, vocabulary=True)[1]  # the duplicate-token head
        >>> torch.equal(duplicate.dense().argmax(-1), torch.arange(6))
        True
    """
    weights = head_weights(model, layer, fold_norms=fold_norms, dtype=dtype)
    queries, keys = weights.W_Q, weights.W_K
    if distance:
        start = projection_output(model.points, layer, "q")
        queries = queries @ relative_rotation(model.points, layer, start, distance).to(queries)
    if vocabulary:
        embedding = embedding_weights(model, dtype=dtype)
        queries, keys = embedding @ queries, embedding @ keys
    return FactoredMatrix(queries, keys.mT)


@checked
def ov_circuit(
    model: HookedModel,
    layer: int,
    *,
    vocabulary: bool = False,
    fold_norms: bool = True,
    dtype: torch.dtype = torch.float32,
) -> FactoredMatrix:
    """Returns W_V W_O of all heads of a layer: what a head writes when it attends to a vector.

    Args:
        model: The model.
        layer: The number of the layer.
        vocabulary: Whether it is between tokens, W_E W_OV W_U (heads, tokens, tokens), with the norm before
            the unembedding if norms are folded.
        fold_norms: Whether the gains of norms are part of it, see `head_weights`.
        dtype: The precision of the numbers.

    Returns:
        (heads, width, width): rows are what is attended to, columns what is written.

    Raises:
        LayerError: There is no such layer.
        ArchitectureError: The weights cannot be told, or norms not be folded.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = HookedModel(InductionTransformer(vocabulary=4, positions=8, sharpness=20))
        >>> ov_circuit(model, 1, vocabulary=True)[0].dense()[0]  # the induction head copies
        tensor([20.,  0.,  0.,  0.])
    """
    weights = head_weights(model, layer, fold_norms=fold_norms, dtype=dtype)
    values, outputs = weights.W_V, weights.W_O
    if vocabulary:
        values = embedding_weights(model, dtype=dtype) @ values
        outputs = final_factor(model.points).after(outputs) if fold_norms else outputs
        outputs = outputs @ unembedding_weights(model, dtype=dtype)
    return FactoredMatrix(values, outputs)


@checked
def copying_scores(model: HookedModel, *, fold_norms: bool = True) -> HeadValues:
    """Returns how far each head raises the logits of the tokens that it attends to, from -1 to 1.

    That is sum Re(lambda) / sum |lambda| over the eigenvalues of W_E W_OV W_U, which are those of the small
    matrix W_O W_U W_E W_V (Elhage et al. 2021, section "Summarizing OV/QK matrices"). 1 is a head that
    copies. Where a head reads no token or writes no logit it is NaN.

    Args:
        model: The model.
        fold_norms: Whether the gains of norms are part of the circuits.

    Raises:
        ArchitectureError: The weights cannot be told, or norms not be folded.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> copying_scores(HookedModel(InductionTransformer(vocabulary=6, positions=16)))["1.0"]
        1.0
    """
    points = model.points
    embedding, unembedding = embedding_weights(model), unembedding_weights(model)
    if fold_norms:
        unembedding = final_factor(points).before(unembedding)
    tokens = _product(unembedding, embedding)
    found = []
    for layer in sorted(points.attentions):
        weights = head_weights(model, layer, fold_norms=fold_norms)
        found.append(_eigenvalue_share(weights.W_O @ tokens @ weights.W_V))
    return HeadValues.of_layers("copying score", sorted(points.attentions), found)


@checked
def matching_scores(model: HookedModel, *, fold_norms: bool = True) -> HeadValues:
    """Returns how far the tokens attend to the same token in each head, from -1 to 1.

    The score of `copying_scores` for the QK circuit W_E W_QK W_E^T, without rotation of positions: 1 is a
    head whose queries look for the same token, wherever it is.

    Args:
        model: The model.
        fold_norms: Whether the gains of norms are part of the circuits.

    Raises:
        ArchitectureError: The weights cannot be told, or norms not be folded.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> matching_scores(HookedModel(InductionTransformer(vocabulary=6, positions=16))).top(1)
        (('1.1', 1.0),)
    """
    embedding = embedding_weights(model)
    tokens = _product(embedding.T, embedding)
    found = []
    for layer in sorted(model.points.attentions):
        weights = head_weights(model, layer, fold_norms=fold_norms)
        found.append(_eigenvalue_share(weights.W_K.mT @ tokens @ weights.W_Q))
    return HeadValues.of_layers("matching score", sorted(model.points.attentions), found)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The product (width, width) over the vocabulary, which may be larger on one side."""
    tokens = min(left.shape[1], len(right))
    return left[:, :tokens] @ right[:tokens]


def _eigenvalue_share(matrices: Tensor) -> Tensor:
    """Sum of the real parts of the eigenvalues over that of their absolute values, NaN without any."""
    values = torch.linalg.eigvals(matrices.cpu().double())
    result: Tensor = values.real.sum(-1) / values.abs().sum(-1)
    return result
