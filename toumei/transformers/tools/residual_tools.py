"""ResidualTools: parts of the residual stream, how it moves, and what input tokens do to the output."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, LayerError
from .base import HookedTool
from .logit_attributor import LogitAttributor


class ResidualTools(HookedTool):
    """Looks at the residual stream of a pass.

    The names and promises are those of Arrakis' tool ``residual``.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> tool = ResidualTools(HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> tokens = torch.tensor([[0, 3, 1, 4, 3]])
        >>> list(tool.residual_decomposition(tokens, 1))
        ['embed', 'pos_embed', '0_attn_out']
        >>> tool.residual_movement(tokens, 0, 1).shape
        torch.Size([1, 5])
    """

    @checked
    def residual_decomposition(self, input_ids: Any, layer_idx: int) -> dict[str, Tensor]:
        """Returns the parts of the residual stream before a layer, (batch, position, width), by their names.

        They sum to the stream.

        Args:
            input_ids: Tokens, or a text.
            layer_idx: The layer; as many as there are layers for the end of the stream.

        Raises:
            LayerError: There is no such layer.
            ArchitectureError: The stream is no sum, as in BERT.
        """
        labels, parts = self._stream_parts(input_ids, layer_idx)
        return dict(zip(labels, parts.unbind(), strict=True))

    @checked
    def residual_movement(self, input_ids: Any, layer_idx1: int, layer_idx2: int) -> Tensor:
        """Returns how far the stream moves between two layers, (batch, position).

        That is |after layer 2 - after layer 1| / |after layer 1|.

        Args:
            input_ids: Tokens, or a text.
            layer_idx1: The first layer.
            layer_idx2: A later layer.

        Raises:
            LayerError: There are no such layers, or not in this order.
        """
        layers = self.model.layers
        if not 0 <= layer_idx1 < layer_idx2 < layers:
            raise LayerError(
                f"expected two layers from 0 to {layers - 1}, a later one after an earlier one, got "
                f"{layer_idx1} and {layer_idx2}"
            )
        cache = self._cache(input_ids, [("resid_post", layer_idx1), ("resid_post", layer_idx2)])
        first, second = cache["resid_post", layer_idx1], cache["resid_post", layer_idx2]
        result: Tensor = (second - first).norm(dim=-1) / first.norm(dim=-1)
        return result

    @checked
    def feature_attribution(self, input_ids: Any, target_ids: int | Sequence[int]) -> Tensor:
        """Returns what each input token does for the logits of some tokens, (targets, batch, position).

        Gradient times input, as `LogitAttributor.logit_attribution`.

        Args:
            input_ids: Tokens, or a text.
            target_ids: The tokens whose logits after the last position are attributed.

        Raises:
            ArgumentError: There is no such token, or none is given.
        """
        targets = [target_ids] if isinstance(target_ids, int) else list(target_ids)
        if not targets:
            raise ArgumentError("expected the tokens whose logits are attributed, got none")
        attributor = LogitAttributor(self.model)
        return torch.stack([attributor.logit_attribution(input_ids, target) for target in targets])
