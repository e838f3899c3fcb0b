"""What a model makes of a subject's value: the blocks behind an edited module, run again and again.

The blocks before it do not change while a value is optimized, so they run once; the head runs only at the
positions that are asked for. A model whose blocks compute something else when they are called one by one runs
as a whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....core.hooks import hooked
from ....core.outputs import main_tensor
from ...model.blockwise import BlockwiseRunner, same
from ...model.families import Anatomy
from .requests import Row, padded


class Suffix:
    """The logits of some texts as a function of what is added to a value at the subject's last token.

    Args:
        parts: The model.
        layer: The block where the value is.
        stream: Whether it is the block's output; else what the block's down-projection returns.
        texts: The texts (rows), which are filled up on the right: a causal model does not see the filling.
    """

    def __init__(self, parts: Anatomy, layer: int, stream: bool, texts: Sequence[Row]) -> None:
        self.parts, self.stream = parts, stream
        self.site = parts.block(layer) if stream else parts.down(layer)
        self.tokens, _ = padded([text.ids for text in texts], parts.device)
        self.subjects = torch.tensor([text.subject for text in texts])
        self.layers = range(layer + 1 if stream else layer, parts.layers)
        with torch.no_grad():
            self.skeleton = BlockwiseRunner(parts)
            self.calls = self.skeleton.calls(self.tokens[:1])
            names = [self.site, *([] if stream else parts.blocks[layer - 1 : layer]), parts.blocks[-1]]
            with hooked(parts.model, names, stop=True, detach=True) as found:
                parts.model(self.tokens, use_cache=False)
            values = found[self.site].reshape(*self.tokens.shape, -1)
            if stream:
                self.vectors = values
            elif layer:
                self.vectors = found[parts.blocks[layer - 1]]
            else:
                self.vectors = self.skeleton.calls(self.tokens)[0].vectors
            last = self._behind(self.vectors) if self.layers else self.vectors
            # one by one they must compute what they compute in the model
            self.whole = not same(last, found[parts.blocks[-1]].reshape(last.shape))
        self.values = values[range(len(texts)), self.subjects.to(values.device)]

    def logits(self, rows: Sequence[int], places: Sequence[Sequence[int]], added: Tensor) -> Tensor:
        """Returns the logits (positions, tokens) at places of some texts.

        Args:
            rows: Which texts.
            places: For each of them the positions that are wanted.
            added: For each of them what is added to the value, (rows, values).
        """
        length = self.tokens.shape[1]
        where = torch.arange(len(rows)) * length + self.subjects[list(rows)]

        def add(output: Tensor) -> Tensor:
            flat = output.reshape(-1, output.shape[-1])
            return flat.index_add(0, where.to(flat.device), added.to(flat)).view(output.shape)

        if self.whole:
            with hooked(self.parts.model, edit={self.site: add}):
                logits = main_tensor(self.parts.model(self.tokens[list(rows)], use_cache=False))
            return torch.cat([logits[number, list(wanted)] for number, wanted in enumerate(places)])
        vectors = self.vectors[list(rows)]
        with hooked(self.parts.model, edit={} if self.stream else {self.site: add}):
            vectors = self._behind(add(vectors) if self.stream else vectors)
        picked = [vectors[number, list(wanted)] for number, wanted in enumerate(places)]
        return self.skeleton.logits(torch.cat(picked), self.tokens[:1, :1])

    def _behind(self, vectors: Tensor) -> Tensor:
        """The output of the last block, of blocks that are called one by one."""
        for layer in self.layers:
            vectors = self.calls[layer].repeat(self.parts.module(self.parts.blocks[layer]), vectors)
        return vectors
