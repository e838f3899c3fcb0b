"""LogitLens: what the layers of a model say about a token."""

from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from .base import HookedTool
from .direct import direct_attribution


class LogitLens(HookedTool):
    """Reads the logit of a token after each layer.

    The names and promises are those of Arrakis' tool ``logit_lens``. `toumei.transformers.logit_lens` shows
    probabilities and the likeliest tokens of all layers as a result that can be drawn.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> lens = LogitLens(HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> tokens = torch.tensor([[0, 3, 1, 4, 3]])
        >>> [round(float(lens.logit_lens(tokens, 1, layer)[0, -1])) for layer in range(2)]
        [0, 20]
    """

    @checked
    def layer_attributions(self, input_ids: Any, target_idx: int) -> Tensor:
        """Returns what each layer adds to the logit of a token after the last position, (layers, batch).

        Both attention and MLP of a layer count. With the embedding and biases it sums to the logit before a
        scale or soft cap; see `LogitAttributor.component_attribution`.

        Args:
            input_ids: Tokens, or a text.
            target_idx: The token.

        Raises:
            ArgumentError: There is no such token.
            ArchitectureError: The stream is no sum, as in BERT, or the model has no logits.
        """
        labels, values = direct_attribution(self.model, input_ids, target_idx)
        names = [label.split("_", 1)[0] for label in labels]
        layers = sorted({int(name) for name in names if name.isdigit()})
        by_layer = [
            sum(value for name, value in zip(names, values[:, :, -1], strict=True) if name == str(layer))
            for layer in layers
        ]
        return torch.stack([torch.as_tensor(one) for one in by_layer])

    @checked
    @torch.no_grad()
    def logit_lens(self, input_ids: Any, target_idx: int, layer_idx: int) -> Tensor:
        """Returns the logit of a token after each position, read from the stream after a layer.

        Final norm, unembedding, scales and soft caps are the model's: it runs with its last stream replaced.

        Args:
            input_ids: Tokens, or a text.
            target_idx: The token.
            layer_idx: The layer; the last one has the logits of the model.

        Returns:
            (batch, position)

        Raises:
            ArgumentError: There is no such token.
            LayerError: There is no such layer.
        """
        tokens = self.model.to_tokens(input_ids)
        stream = self._cache(tokens, [("resid_post", layer_idx)])["resid_post", layer_idx]
        with self.model.edit({("resid_post", self.model.layers - 1): lambda last: stream}):
            logits = self.model(tokens)
        self._target_logits(logits, target_idx)
        return logits[..., target_idx]
