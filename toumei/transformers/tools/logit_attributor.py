"""LogitAttributor: what the logit of a token comes from, by input tokens and by parts of the model."""

from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ..heads.rollout import attention_rollout
from .base import HookedTool, check_position
from .direct import direct_attribution


class LogitAttributor(HookedTool):
    """Attributes the logit of a token after the last position.

    The names and promises are those of Arrakis' tool ``logit``.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> tool = LogitAttributor(HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> tokens = torch.tensor([[0, 3, 1, 4, 3]])
        >>> attribution = tool.component_attribution(tokens, 1)
        >>> {name: round(float(value)) for name, value in attribution.items()}
        {'embed': 0, 'pos_embed': 0, '0_attn_out': 0, '1_attn_out': 20, 'bias': 0}
    """

    @checked
    def logit_attribution(self, input_ids: Any, target_idx: int) -> Tensor:
        """Returns gradient times input for each token, (batch, position).

        The input is the embedded tokens. In a model that is linear in them they sum to the logit; those of
        `integrated_gradients` have such a sum in any model.

        Args:
            input_ids: Tokens, or a text.
            target_idx: The token whose logit is attributed.

        Raises:
            ArgumentError: There is no such token.
        """
        return self._path(input_ids, target_idx, torch.ones(1))

    @checked
    def integrated_gradients(self, input_ids: Any, target_idx: int, steps: int = 32) -> Tensor:
        """Returns integrated gradients for each token, (batch, position), against embeddings of zeros.

        They sum to the difference of the logits of both, up to the error of the sum over steps at the middle
        of intervals (Sundararajan et al. 2017, arXiv:1703.01365).

        Args:
            input_ids: Tokens, or a text.
            target_idx: The token whose logit is attributed.
            steps: How many gradients the integral is made of.

        Raises:
            ArgumentError: There is no such token.
        """
        check_counts(1, steps=steps)
        return self._path(input_ids, target_idx, (torch.arange(steps) + 0.5) / steps)

    @checked
    def component_attribution(self, input_ids: Any, target_idx: int) -> dict[str, Tensor]:
        """Returns what each part of the residual stream adds to the logit, (batch,), by its name.

        Direct logit attribution: the parts with the divisor of the final norm of this pass, and what biases
        after the stream add. They sum to the logit before a scale or soft cap.

        Args:
            input_ids: Tokens, or a text.
            target_idx: The token whose logit is attributed.

        Raises:
            ArgumentError: There is no such token.
            ArchitectureError: The stream is no sum, as in BERT, or the model has no logits.
        """
        labels, values = direct_attribution(self.model, input_ids, target_idx)
        return dict(zip(labels, values[:, :, -1].unbind(), strict=True))

    @checked
    def track_token_circulation(self, input_ids: Any, target_token: int, n_layers: int = 5) -> Tensor:
        """Returns how much of a token each position holds after each of the first layers.

        By attention rollout, (layers, batch, position); see `toumei.transformers.attention_rollout`.

        Args:
            input_ids: Tokens, or a text.
            target_token: The position of the token in the text.
            n_layers: How many layers; fewer if the model has fewer.

        Raises:
            ArgumentError: There is no such position.
        """
        check_counts(1, n_layers=n_layers)
        layers = sorted(self.model.points.attentions)[:n_layers]
        cache = self._cache(input_ids, [("pattern", layer) for layer in layers])
        patterns = [cache["pattern", layer].cpu() for layer in layers]
        check_position("target_token", target_token, patterns[0].shape[-1])
        rollouts = [attention_rollout(patterns[: count + 1]) for count in range(len(layers))]
        return torch.stack([one[:, :, target_token] for one in rollouts])

    def _path(self, input_ids: Any, target: int, scales: Tensor) -> Tensor:
        """The mean of the gradients at the scaled embeddings, times the embeddings."""
        tokens = self.model.to_tokens(input_ids)
        name = self._embedding
        start = self._cache(tokens, [name])[name]
        total = torch.zeros_like(start)
        for scale in scales.tolist():
            point = (start * scale).requires_grad_()
            with torch.enable_grad(), self.model.edit({name: _replaced(point)}):
                score = self._target_logits(self.model(tokens), target).sum()
                (gradient,) = torch.autograd.grad(score, point, allow_unused=True)
            if gradient is None:
                raise ArgumentError("the logits do not depend on the tokens by any gradient")
            total += gradient
        return (total / len(scales) * start).sum(-1)


def _replaced(value: Tensor) -> Any:
    return lambda tensor: value
