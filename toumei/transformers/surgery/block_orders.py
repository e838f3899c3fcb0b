"""The loss of a language model with its blocks in other orders, without running again what stays the same."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...core.errors import ArchitectureError
from ...core.outputs import main_tensor
from ..model.blockwise import LOGITS_AT_ONCE, BlockwiseRunner, nearly_equal
from ..model.families import Anatomy
from .layers import arrange_layers


class BlockOrders:
    """The next-token losses of texts of one length for any order of the blocks.

    An order runs from the first block on that differs; the stream before it is that of the whole model. Each
    block is called with the masks and positions that the model gives it.

    Args:
        parts: Where the parts of the model are.
        tokens: The texts (texts, T).
    """

    def __init__(self, parts: Anatomy, tokens: Tensor) -> None:
        self._parts, self._tokens = parts, tokens
        self._blocks = [parts.module(name) for name in parts.blocks]
        self._runner: BlockwiseRunner | None = None
        self._streams: list[Tensor] = []

    def losses(self, order: Sequence[int]) -> Tensor:
        """Returns the mean loss of each text (texts,) in nats, float64 on the CPU."""
        if self._runner is None:
            return self._plain(order)
        same = next(
            (place for place, layer in enumerate(order) if layer != place),
            min(len(order), len(self._blocks)),
        )
        stream = self._streams[same]
        for layer in order[same:]:
            stream = self._call(layer, stream)
        return torch.stack([self._loss(self._logits(row), ids) for row, ids in self._rows(stream)])

    def prepare(self, order: Sequence[int]) -> None:
        """Makes the streams of the model ready, if an order runs on them as it does in the model itself."""
        try:
            runner = BlockwiseRunner(self._parts)
            self._calls = runner.calls(self._tokens)
            self._streams = [self._calls[0].vectors]
            for layer in range(len(self._blocks)):
                self._streams.append(self._call(layer, self._streams[-1]))
            self._runner = runner
            if not nearly_equal(self.losses(order), self._plain(order)):
                raise ArchitectureError("blocks compute something else than the model")
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the block of an unknown model may raise any error when it is called in this way
            self._runner, self._streams = None, []

    def _call(self, layer: int, vectors: Tensor) -> Tensor:
        place = next(self._blocks[layer].parameters()).device
        return self._calls[layer].repeat(self._blocks[layer], vectors.to(place))

    def _rows(self, stream: Tensor) -> "zip[tuple[Tensor, Tensor]]":
        return zip(stream, self._tokens, strict=True)

    def _logits(self, vectors: Tensor) -> Tensor:
        """The logits of the positions of one text that have a next token."""
        assert self._runner is not None
        runner, ids = self._runner, self._tokens[:1, -1:]
        size = max(1, LOGITS_AT_ONCE // self._parts.vocabulary)
        return torch.cat([runner.logits(part, ids) for part in vectors[:-1].split(size)])

    def _plain(self, order: Sequence[int]) -> Tensor:
        """The same from passes of the whole model, one text at a time."""
        with arrange_layers(self._parts.model, order):
            found = []
            for ids in self._tokens:
                logits = main_tensor(self._parts.model(ids[None], use_cache=False))
                found.append(self._loss(logits[0, :-1], ids))
        return torch.stack(found)

    def _loss(self, logits: Tensor, ids: Tensor) -> Tensor:
        return cross_entropy(logits.float(), ids[1:].to(logits.device)).double().cpu()
