"""What each node wrote in a pass, and the gradients of what each node read."""

from collections.abc import Callable, Iterator
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ...core.modules import without_wrapper
from .wiring import Stage, Wiring, wide

Inputs = dict[str, Any]


class RecordedRun:
    """A pass over some prompts.

    Args:
        wiring: The nodes of the model.
        inputs: The inputs of the model.
        metric: From logits (texts, tokens) at the last position to a number whose gradients are wanted.
        start: The residual stream to begin with, in place of the embeddings.

    Attributes:
        logits: At the last position, (texts, tokens).
    """

    def __init__(
        self,
        wiring: Wiring,
        inputs: Inputs,
        metric: Callable[[Tensor], Tensor] | None = None,
        start: Tensor | None = None,
    ) -> None:
        self._wiring = wiring
        names = list(dict.fromkeys(_names(wiring, gradients=metric is not None)))
        last = None if metric is None else lambda logits: metric(at_last(logits))
        edits = {} if start is None else {wiring.start: lambda tensor: start.to(tensor)}
        with wiring.model.edit(edits):
            logits, self._cache = wiring.model.run_with_cache(inputs, names, metric=last, **shortened(wiring))
        self.logits = at_last(logits).detach()

    def written(self) -> Tensor:
        """Returns what each node wrote, (writers, texts, positions, width)."""
        cache = self._cache
        found = self.embeddings()
        for stage in self._wiring.stages:
            if stage.kind == "attn":
                inputs = self._wiring.attention[stage.layer]
                added = cache[stage.output] if inputs.after.kind != "none" else None
                found.append(inputs.written(cache["z", stage.layer].detach(), added))
            elif stage.kind == "mlp":
                found.append(wide(cache[stage.output].detach())[None])
        return torch.cat(found)

    def embeddings(self) -> list[Tensor]:
        """Returns what each embedding wrote, (1, texts, positions, width)."""
        start = wide(self._cache[self._wiring.start].detach())
        if len(self._wiring.embeddings) == 1:
            return [start[None]]
        both = [wide(self._cache[f"hook_{one}"].detach()) for one in self._wiring.embeddings]
        return [one.expand_as(start)[None] for one in both]

    def gradients(self) -> Iterator[tuple[Stage, Tensor]]:
        """Yields each part and the gradients of the stream as each of its inputs sees it, before the norm.

        They have the shape (readers, texts, positions, width). An MLP's is what the gradient of the stream
        before it has more than that after it, and heads that read the same stream do not explain.
        """
        grad = self._cache.grad
        streams = list(dict.fromkeys(stage.stream for stage in self._wiring.stages))
        following = dict(pairwise(streams))
        of_heads: dict[str, Tensor] = {}
        for stage in self._wiring.stages:
            if stage.kind == "attn":
                heads = {letter: grad[letter, stage.layer] for letter in "qkv"}
                inputs = self._wiring.attention[stage.layer]
                found = inputs.pulled(self._cache[stage.stream], heads)
                of_heads[stage.stream] = found.sum(0)
            else:
                found = wide(grad[stage.stream])
                if stage.kind == "mlp":
                    found = found - wide(grad[following[stage.stream]])
                    if stage.stream in of_heads:
                        found = found - of_heads[stage.stream]
                found = found[None]
            yield stage, found


def at_last(logits: Tensor) -> Tensor:
    """Returns the logits (texts, tokens) at the last position; those of a classifier have one position."""
    return logits[:, -1] if logits.dim() > 2 else logits


def shortened(wiring: Wiring) -> dict[str, Any]:
    """Returns the option that computes logits at the last position only, where the model has it."""
    known = signature(type(without_wrapper(wiring.model.model)).forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}


def _names(wiring: Wiring, gradients: bool) -> Iterator[Any]:
    """What has to be recorded."""
    yield wiring.start
    if len(wiring.embeddings) > 1:
        yield from (f"hook_{name}" for name in wiring.embeddings)
    for stage in wiring.stages:
        if stage.kind == "attn":
            yield "z", stage.layer
            if wiring.attention[stage.layer].after.kind != "none":
                yield stage.output
            if gradients:
                yield from ((letter, stage.layer) for letter in "qkv")
        elif stage.kind == "mlp":
            yield stage.output
        if gradients:
            yield stage.stream
