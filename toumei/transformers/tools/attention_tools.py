"""AttentionTools: patterns of a head, and passes without a head or with two heads merged."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...core.blocks import block
from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ..model.hooked_model import HookedModel
from .base import HookedTool, check_position


class AttentionTools(HookedTool):
    """Shows what a head attends to, and switches heads off or merges them for a time.

    The names and promises are those of Arrakis' tool ``attention``.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=16))
        >>> tools = AttentionTools(model)
        >>> tokens = torch.tensor([[0, 3, 1, 4, 3]])
        >>> tools.attention_patterns(tokens, 1, 0)[0, -1].argmax()  # the token after the first 3
        tensor(2)
        >>> with tools.ablate_head(1, 0):
        ...     float(model(tokens).detach().abs().max())
        0.0
    """

    @checked
    def attention_patterns(self, input_ids: Any, layer_idx: int, head_idx: int) -> Tensor:
        """Returns the attention weights (batch, query, key) of a head.

        Args:
            input_ids: Tokens, or a text; see `HookedModel`.
            layer_idx: The layer.
            head_idx: The head.

        Raises:
            ArgumentError: There is no such head.
            LayerError: There is no such layer.
        """
        self._check_head(layer_idx, head_idx)
        return self._cache(input_ids, [("pattern", layer_idx)])["pattern", layer_idx][:, head_idx]

    @checked
    def top_attended_ids(
        self,
        input_ids: Any,
        layer_idx: int,
        head_idx: int,
        num_tokens: int = 5,
        *,
        query: int | None = None,
    ) -> Tensor:
        """Returns the ids (batch, num_tokens) of the tokens that a head attends to most, the first one first.

        Args:
            input_ids: Tokens, or a text.
            layer_idx: The layer.
            head_idx: The head.
            num_tokens: How many; fewer if the text is shorter.
            query: The position that attends; by default all count alike.

        Raises:
            ArgumentError: There is no such head or position.
            LayerError: There is no such layer.
        """
        check_counts(1, num_tokens=num_tokens)
        tokens = self.model.to_tokens(input_ids)
        patterns = self.attention_patterns(tokens, layer_idx, head_idx)
        if query is not None:
            check_position("query", query, patterns.shape[1])
        received = patterns.mean(1) if query is None else patterns[:, query]
        places = received.topk(min(num_tokens, received.shape[1])).indices
        return tokens.to(places.device).gather(1, places)

    @checked
    @block
    def ablate_head(self, layer_idx: int, head_idx: int) -> Iterator[HookedModel]:
        """Sets the output of a head to 0 in all passes of the block; the bias after the heads stays.

        Raises:
            ArgumentError: There is no such head.
            LayerError: There is no such layer.
        """
        self._check_head(layer_idx, head_idx)

        def ablate(z: Tensor) -> Tensor:
            z[:, :, head_idx] = 0
            return z

        with self.model.edit({("z", layer_idx): ablate}) as model:
            yield model

    @checked
    @block
    def merge_heads(
        self, layer_idx: int, head_idx1: int, head_idx2: int, alpha: float = 0.5
    ) -> Iterator[HookedModel]:
        """Lets two heads attend by the same weights in all passes of the block, a mixture of both.

        Args:
            layer_idx: The layer.
            head_idx1: The first head; its weights are taken times ``alpha``.
            head_idx2: The second head; its weights are taken times ``1 - alpha``.
            alpha: From 0 to 1.

        Raises:
            ArgumentError: There is no such head, or alpha lies outside.
            LayerError: There is no such layer.
        """
        for head in (head_idx1, head_idx2):
            self._check_head(layer_idx, head)
        if not 0 <= alpha <= 1:
            raise ArgumentError(f"alpha is from 0 to 1, got {alpha}")

        def merge(pattern: Tensor) -> Tensor:
            both = alpha * pattern[:, head_idx1] + (1 - alpha) * pattern[:, head_idx2]
            merged = pattern.clone()
            merged[:, [head_idx1, head_idx2]] = torch.stack([both, both], 1)
            return merged

        with self.model.edit({("pattern", layer_idx): merge}) as model:
            yield model
