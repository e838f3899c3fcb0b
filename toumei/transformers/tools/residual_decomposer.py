"""ResidualDecomposer: the residual stream as a sum, and the directions that an MLP writes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import LayerError
from ..heads.factored_matrix import SVD
from ..heads.weights import matrix_of
from .base import HookedTool


class ResidualParts(NamedTuple):
    """The parts of a residual stream that make up most of it.

    Attributes:
        labels: Their names, that with the largest share first.
        parts: (parts, batch, position, width)
        shares: (parts,) How much of the stream each of them is, <part, stream> / |stream|^2 over all texts
            and positions. Those of all parts sum to 1.

    Example:
        >>> ResidualParts(("embed", "0_attn_out"), torch.rand(2, 4), torch.tensor([0.4, 0.6])).shares
        tensor([0.4000, 0.6000])
    """

    labels: tuple[str, ...]
    parts: Tensor
    shares: Tensor


class ResidualDecomposer(HookedTool):
    """Takes the residual stream apart.

    The names and promises are those of Arrakis' tool ``decomposer``.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> tool = ResidualDecomposer(HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> found = tool.decompose_residual(torch.tensor([[0, 3, 1, 4, 3]]), 1)
        >>> found.labels, round(float(found.shares.sum()), 4)
        (('embed', 'pos_embed', '0_attn_out'), 1.0)
    """

    @checked
    def mlp_basis(self, layer_idx: int) -> SVD:
        """Returns the singular value decomposition of an MLP's output weights (neurons, width).

        The rows of ``Vh`` are the directions of the stream that the MLP can write, those that it writes most
        first; the columns of ``U`` say which neurons do.

        Args:
            layer_idx: The layer.

        Raises:
            LayerError: The layer has no MLP.
        """
        networks = self.model.points.networks
        if layer_idx not in networks:
            known = ", ".join(map(str, sorted(networks)))
            raise LayerError(f"layers with an MLP are {known or 'none'}, got {layer_idx}")
        weight = matrix_of(self.model.points.graph, networks[layer_idx].down)
        return SVD(*torch.linalg.svd(weight.float().cpu(), full_matrices=False))

    @checked
    def decompose_residual(self, input_ids: Any, layer_idx: int, top_k: int = 10) -> ResidualParts:
        """Returns the parts of the residual stream before a layer, those with the largest shares first.

        Args:
            input_ids: Tokens, or a text.
            layer_idx: The layer; as many as there are layers for the end of the stream.
            top_k: How many parts; with all of them they sum to the stream.

        Raises:
            LayerError: There is no such layer.
            ArchitectureError: The stream is no sum, as in BERT.
        """
        check_counts(1, top_k=top_k)
        labels, parts = self._stream_parts(input_ids, layer_idx)
        stream = parts.sum(0)
        shares = (parts * stream).flatten(1).sum(1) / stream.square().sum()
        order = shares.argsort(descending=True, stable=True)[:top_k]
        return ResidualParts(tuple(labels[one] for one in order.tolist()), parts[order], shares[order])
