"""What the tools share: a hooked model, and checks of what they are asked about."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, LayerError
from ..model.activation_cache import ActivationCache
from ..model.hooked_model import HookedModel
from ..model.point_names import Key


class HookedTool:
    """A tool that looks into a model; all of them leave it as it is.

    Args:
        model: The model.
    """

    @checked
    def __init__(self, model: HookedModel) -> None:
        self.model = model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    def _cache(self, given: Any, names: Iterable[str | Key]) -> ActivationCache:
        with torch.no_grad():
            return self.model.run_with_cache(given, list(names))[1]

    def _stream_parts(self, given: Any, layer: int) -> tuple[tuple[str, ...], Tensor]:
        """The names of what was added to the stream before a layer, and the tensors (parts, ...)."""
        layers = self.model.layers
        if not 0 <= layer <= layers:
            raise LayerError(f"layers are from 0 to {layers - 1}, and {layers} is the end, got {layer}")
        names = [name for name in self.model.points.points if name.endswith(("embed", "_out"))]
        cache = self._cache(given, [*names, "blocks.0.hook_resid_pre"])
        parts, labels = cache.decompose_resid(None if layer == layers else layer)
        return labels, parts

    @property
    def _embedding(self) -> str:
        """The name of the embedded tokens; where positions cannot be told apart, of their sum with these."""
        return "hook_embed" if "hook_embed" in self.model.points.points else "blocks.0.hook_resid_pre"

    def _check_layer(self, layer: int) -> None:
        if layer not in self.model.points.attentions:
            known = ", ".join(map(str, sorted(self.model.points.attentions)))
            raise LayerError(f"layers with attention are {known}, got {layer}")

    def _check_head(self, layer: int, head: int) -> None:
        self._check_layer(layer)
        heads = self.model.points.attentions[layer].num_heads
        if not 0 <= head < heads:
            raise ArgumentError(f"layer {layer} has heads 0 to {heads - 1}, got {head}")

    def _target_logits(self, logits: Tensor, target: int) -> Tensor:
        """The logits (batch,) of a token after the last position."""
        if not 0 <= target < logits.shape[-1]:
            raise ArgumentError(f"tokens are from 0 to {logits.shape[-1] - 1}, got {target}")
        return logits[:, -1, target]


def check_position(name: str, position: int, length: int) -> None:
    """Makes sure that a text has a position.

    Raises:
        ArgumentError: It is shorter.
    """
    if not 0 <= position < length:
        raise ArgumentError(f"{name} is from 0 to {length - 1}, got {position}")
