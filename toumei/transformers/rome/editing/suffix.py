"""The logits as a function of a subject's value: the suffix of blocks after an edited module.

The blocks before the module do not change while a value is optimized, so they run once. The head runs only at
the positions that are needed. If the blocks of a model compute something else when they are called one by
one, the whole model runs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....core.hooks import hooked
from ....core.outputs import main_tensor
from ...model.blockwise import BlockwiseRunner, nearly_equal
from ...model.families import Anatomy
from ...model.tokens import padded
from .requests import SubjectText


class Suffix:
    """The logits of some texts as a function of a vector that is added to a value.

    The value is the output of one module at the subject's last token.

    Args:
        parts: The model.
        layer: The layer of the value.
        stream: Whether the value is the output of the block; else it is the output of its down-projection.
        texts: The texts, which are padded on the right.
    """

    def __init__(self, parts: Anatomy, layer: int, stream: bool, texts: Sequence[SubjectText]) -> None:
        self.parts, self.stream = parts, stream
        self.module = parts.block(layer) if stream else parts.down(layer)
        self.tokens, _ = padded([text.ids for text in texts], parts.device)
        self.subjects = torch.tensor([text.subject for text in texts])
        self.layers = range(layer + 1 if stream else layer, parts.layers)
        with torch.no_grad():
            self.runner = BlockwiseRunner(parts)
            self.calls = self.runner.calls(self.tokens[:1])
            names = [self.module, *([] if stream else parts.blocks[layer - 1 : layer]), parts.blocks[-1]]
            with hooked(parts.model, parts.runs(names), stop=True, detach=True) as found:
                parts.model(self.tokens, use_cache=False)
            values = found[self.module].reshape(*self.tokens.shape, -1)
            if stream:
                self.vectors = values
            elif layer:
                self.vectors = found[parts.blocks[layer - 1]]
            else:
                self.vectors = self.runner.calls(self.tokens)[0].vectors
            last = self._last_output(self.vectors) if self.layers else self.vectors
            self.runs_whole_model = not nearly_equal(last, found[parts.blocks[-1]].reshape(last.shape))
        self.values = values[range(len(texts)), self.subjects.to(values.device)]

    def logits(self, rows: Sequence[int], positions: Sequence[Sequence[int]], added: Tensor) -> Tensor:
        """Returns the logits (positions, tokens) at some positions of some texts, one text after the other.

        Args:
            rows: The indices of the texts.
            positions: For each of these texts the positions.
            added: For each of these texts the vector that is added to its value, (rows, values).
        """
        length = self.tokens.shape[1]
        where = torch.arange(len(rows)) * length + self.subjects[list(rows)]

        def add(output: Tensor) -> Tensor:
            flat = output.reshape(-1, output.shape[-1])
            return flat.index_add(0, where.to(flat.device), added.to(flat)).view(output.shape)

        if self.runs_whole_model:
            with hooked(self.parts.model, edit={self.module: add}):
                logits = main_tensor(self.parts.model(self.tokens[list(rows)], use_cache=False))
            return torch.cat([logits[number, list(wanted)] for number, wanted in enumerate(positions)])
        vectors = self.vectors[list(rows)]
        if self.stream:
            vectors = self._last_output(add(vectors))
        else:
            with hooked(self.parts.model, edit={self.module: add}):
                vectors = self._last_output(vectors)
        picked = [vectors[number, list(wanted)] for number, wanted in enumerate(positions)]
        return self.runner.logits(torch.cat(picked), self.tokens[:1, :1])

    def _last_output(self, vectors: Tensor) -> Tensor:
        """The output of the last block; the blocks are called one by one."""
        for layer in self.layers:
            vectors = self.calls[layer].repeat(self.parts.module(self.parts.blocks[layer]), vectors)
        return vectors
