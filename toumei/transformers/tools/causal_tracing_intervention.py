"""CausalTracingIntervention: what a prediction depends on, by changing states of the pass."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from .base import HookedTool, check_position


class TokenTrace(NamedTuple):
    """A causal trace of the probability of a token after the last position.

    Attributes:
        clean: The probability in the plain pass.
        corrupted: The probability with noise on the embedded tokens.
        restored: (layers, positions) The probability with noise and one state of the plain pass, the residual
            stream after a layer at a position.

    Example:
        >>> trace = TokenTrace(clean=0.9, corrupted=0.1, restored=torch.tensor([[0.1, 0.8]]))
        >>> trace.restored.argmax()
        tensor(1)
    """

    clean: float
    corrupted: float
    restored: Tensor


class CausalTracingIntervention(HookedTool):
    """Changes states of a pass and shows what becomes of the prediction.

    The names and promises are those of Arrakis' tool ``causal``. `toumei.transformers.CausalTracer` traces
    facts with subjects, MLPs and attention, and averages over many; this is its idea for any tokens.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> tool = CausalTracingIntervention(HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> trace = tool.trace_token_probability(torch.tensor([[0, 3, 1, 4, 3]]), 1, positions=[2])
        >>> trace.restored.shape, round(trace.clean, 2)
        (torch.Size([2, 5]), 1.0)
        >>> round(float(trace.restored[0, 2]), 2)  # the token after the first 3
        1.0
    """

    @checked
    @torch.no_grad()
    def trace_token_probability(
        self,
        input_ids: Any,
        target_idx: int,
        *,
        positions: Sequence[int] | None = None,
        noise: float = 3.0,
        samples: int = 4,
        seed: int = 0,
    ) -> TokenTrace:
        """Returns the probability of a token when noise corrupts tokens and single states are restored.

        Args:
            input_ids: The tokens of one text, or the text.
            target_idx: The token whose probability after the last position is traced.
            positions: The positions that noise corrupts; by default all.
            noise: How strong it is, in standard deviations of the embedded tokens.
            samples: How many draws of noise the probabilities are the mean of.
            seed: Draws the noise.

        Raises:
            ArgumentError: There are several texts, or no such position or token.
        """
        check_counts(1, samples=samples)
        tokens = self.model.to_tokens(input_ids)
        if len(tokens) != 1:
            raise ArgumentError(f"one text is traced, got {len(tokens)}")
        length, layers = tokens.shape[1], self.model.layers
        places = list(range(length) if positions is None else positions)
        for place in places:
            check_position("position", place, length)
        cache = self._cache(tokens, [self._embedding, *(("resid_post", layer) for layer in range(layers))])
        start = cache[self._embedding]
        if not abs(noise) < 1e30:
            raise ArgumentError(f"noise is a finite number, got {noise}")
        strength = noise * float(start[0, places].std())
        drawn = torch.randn(samples, 1, len(places), start.shape[-1], generator=make_generator(seed))
        drawn = strength * drawn.expand(-1, length, -1, -1).flatten(0, 1).to(start)
        rows = tokens.expand(samples * length, -1)

        def corrupt(stream: Tensor) -> Tensor:
            stream[:, places] += drawn
            return stream

        def restore(clean: Tensor) -> Any:
            def change(stream: Tensor) -> Tensor:
                by_sample = stream.unflatten(0, (samples, length))
                here = torch.arange(length)
                by_sample[:, here, here] = clean[0]
                result: Tensor = by_sample.flatten(0, 1)
                return result

            return change

        with self.model.edit({self._embedding: corrupt}):
            noisy = self._probabilities(rows, target_idx)
            restored = []
            for layer in range(layers):
                with self.model.edit({("resid_post", layer): restore(cache["resid_post", layer])}):
                    found = self._probabilities(rows, target_idx)
                restored.append(found.unflatten(0, (samples, length)).mean(0).cpu())
        clean = float(self._probabilities(tokens, target_idx)[0])
        return TokenTrace(clean, float(noisy.mean()), torch.stack(restored))

    @checked
    @torch.no_grad()
    def intervene_on_neuron(
        self, input_ids: Any, layer_idx: int, neuron_idx: int, scale: float = 0.0
    ) -> Tensor:
        """Returns the logits (batch, position, tokens) with the activation of a neuron scaled.

        Args:
            input_ids: Tokens, or a text.
            layer_idx: The layer.
            neuron_idx: The neuron of its MLP, after the activation function and any gate.
            scale: What its activation is multiplied with at all positions; 0 switches it off.

        Raises:
            ArgumentError: There is no such neuron, or the scale is not finite.
            LayerError: The layer has no MLP.
        """
        if not math.isfinite(scale):
            raise ArgumentError(f"scale is a finite number, got {scale}")

        def change(activations: Tensor) -> Tensor:
            if not 0 <= neuron_idx < activations.shape[-1]:
                raise ArgumentError(
                    f"layer {layer_idx} has neurons 0 to {activations.shape[-1] - 1}, got {neuron_idx}"
                )
            activations[..., neuron_idx] *= scale
            return activations

        with self.model.edit({("post", layer_idx): change}):
            return self.model(input_ids)

    def _probabilities(self, tokens: Tensor, target: int) -> Tensor:
        logits = self.model(tokens)
        return self._target_logits(logits.float().log_softmax(-1), target).exp()
