"""A run of a model over some texts whose blocks can be called again for other rows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.hooks import hooked
from ..model.blockwise import BlockCall, BlockwiseRunner
from ..model.families import Anatomy
from ..model.prefix_cache import PrefixCache, cache_option, placeholder_cache


class BaseRun:
    """The residual stream of some texts before and after each block, from which other runs branch off.

    Args:
        parts: Where the parts of the model are.
        runner: Calls the blocks of the model one by one.
        ids: Token ids (texts, T). Shorter texts are padded on the right; attention must be causal then.
        cached: Whether to keep keys and values, so that runs can begin at any position.

    Attributes:
        streams: (texts, T, width) before the first block, and after each one.
    """

    def __init__(self, parts: Anatomy, runner: BlockwiseRunner, ids: Tensor, cached: bool) -> None:
        from transformers import DynamicCache

        self.parts, self.runner, self.ids, self.cached = parts, runner, ids, cached
        self._blocks = [parts.module(name) for name in parts.blocks]
        cache: Any = DynamicCache() if cached else None
        options = cache_option(parts.model, cache) if cached else {}
        with hooked(parts.model, parts.runs(parts.blocks), stop=True, detach=True, clone=False) as found:
            parts.model(input_ids=ids, use_cache=cached, **options)
        first = runner.calls(ids)[0].vectors
        self.streams = [first, *(found[name] for name in parts.blocks)]
        layers = cache.layers if cached else []
        self._keys = [layer.keys for layer in layers]
        self._values = [layer.values for layer in layers]
        self._calls: dict[int, list[BlockCall]] = {}

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """How many positions there are."""
        return self.ids.shape[1]

    def before(self, layer: int, start: int) -> Tensor:
        """Returns the input (texts, positions, width) of a block from a position on."""
        return self.streams[layer][:, start:]

    def after(self, layer: int, start: int) -> Tensor:
        """Returns the output of a block from a position on."""
        return self.streams[layer + 1][:, start:]

    def call(self, layer: int, vectors: Tensor, block: nn.Module | None = None) -> Tensor:
        """Returns the output of a block for other inputs at the last positions.

        Args:
            layer: The layer.
            vectors: (copies, texts, positions, width); the positions before these are those of the base run.
            block: What to call in place of the block.
        """
        copies, _, positions = vectors.shape[:3]
        start = self.length - positions
        cache = None
        if self.cached:
            keys, values = self._keys[layer][..., :start, :], self._values[layer][..., :start, :]
            cache = PrefixCache(keys, values, copies)
        flat = vectors.flatten(0, 1).to(self.streams[layer + 1].device)
        output = self._arguments(start)[layer].repeat(block or self._blocks[layer], flat, cache)
        return output if block is not None else output.unflatten(0, (copies, -1))

    def logits(self, vectors: Tensor) -> Tensor:
        """Returns the logits (..., tokens) for outputs (..., width) of the last block."""
        logits = self.runner.logits(vectors.flatten(0, -2), self.ids[:1, -1:])
        result: Tensor = logits.unflatten(0, vectors.shape[:-1])
        return result

    def _arguments(self, start: int) -> Sequence[BlockCall]:
        """The arguments with which the model calls its blocks for one text from a position on."""
        if start not in self._calls:
            self._calls.clear()  # their masks are large
            layers = self.parts.layers
            cache = placeholder_cache(layers, start, self.ids.device) if self.cached else None
            with torch.no_grad():
                self._calls[start] = self.runner.calls(self.ids[:1, start:], cache)
        return self._calls[start]
