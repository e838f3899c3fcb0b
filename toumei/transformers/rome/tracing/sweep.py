"""Causal tracing in one sweep over the layers: nothing is computed twice and nothing that is known already.

The plain way runs the whole model for each pair of a token and a layer. Four facts save most of that, and
change the result by rounding only:

- Below the restored state a patched run is the corrupted run. So the rows of all cells are swept through the
  layers once: a row joins behind the layer where it is restored.
- Attention is causal. Before the restored token a patched run is the corrupted run too, so rows hold only the
  positions from that token on, and the keys and values in front of it come from the corrupted run.
- Windows that begin at the same layer are the same run until one of them ends, and then they fork. In the
  block where a window begins, only the restored token changes.
- Only the last position reaches the answer. The last block is computed for it alone, from the keys and
  values of all; the head likewise. And a state that cannot reach it, or is all that reaches it, is known.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....core.errors import ArchitectureError
from ....core.hooks import hooked
from ...model.blockwise import BlockwiseRunner, Call, same
from ...model.families import Anatomy
from ...model.prefix_cache import Filled, PrefixCache, placeholder_cache
from .noise import Corruption
from .runs import Measure, Plan, Run, overwriting, record

Row = tuple[int | None, bool]  # the row it comes from, None for the corrupted run; whether it is overwritten


class Sweep:
    """The sweeps of one prompt, with a set of samples.

    Args:
        parts: Where the parts of the model are.
        skeleton: The model without its blocks.
        ids: The prompt (1, T).
        corruption: The noise, a row for each sample.
        plan: Which states a cell restores.
        cached: Whether rows hold only the positions from the restored token on, which needs attention
            layers that take keys and values from a cache.
        leaks: Whether tokens meet behind the restored modules of the last block.
    """

    def __init__(
        self,
        parts: Anatomy,
        skeleton: BlockwiseRunner,
        ids: Tensor,
        corruption: Corruption,
        plan: Plan,
        cached: bool,
        leaks: bool = False,
    ) -> None:
        self.parts, self.skeleton, self.ids, self.plan, self.cached = parts, skeleton, ids, plan, cached
        self.leaks = leaks
        self._blocks = [parts.module(name) for name in parts.blocks]
        self._calls: dict[tuple[int, int], list[Call]] = {}
        self._modules = plan.modules(parts)
        self.run = record(parts, ids, self._modules, corruption, cached)
        with hooked(parts.model, edit={parts.embedding: corruption.edit}):
            rows = ids.expand(len(corruption.values), -1)
            self._inputs = [skeleton.calls(rows)[0].vectors, *self.run.blocks[:-1]]

    @property
    def length(self) -> int:
        """How many tokens the prompt has."""
        return self.ids.shape[1]

    def low(self, measure: Measure) -> Tensor:
        """Returns the measure (samples,) of the corrupted run."""
        return measure(self.skeleton.logits(self.run.blocks[-1][:, -1], self.ids[:, -1:]))

    def token(self, token: int, cells: Sequence[int], clean: Run, measure: Measure) -> Tensor:
        """Returns the measure (cells, samples) when states of one token are restored, swept together.

        Args:
            token: The token.
            cells: The layers of the cells, in ascending order.
            clean: The run without noise.
            measure: From logits (N, tokens) to values (N,).
        """
        values = self.run.modules if self.plan.kind == "hidden" else clean.modules
        start = token if self.cached else 0
        rows = self._inputs[0].new_empty(0)
        place: dict[int, int] = {}
        for layer in range(self.plan.layers):
            # Behind the last block only the last position counts, where overwriting another one is not seen.
            seen = layer < self.plan.layers - 1 or token == self.length - 1 or self.leaks
            wanted: dict[int, Row] = {
                cell: (place.get(cell), seen and self.plan.touches(cell, layer)) for cell in cells
            }
            order = sorted({row for row in wanted.values() if row != (None, False)}, key=_old_rows_first)
            rows = self._advance(layer, token, rows, order, values)
            place = {cell: order.index(row) for cell, row in wanted.items() if row in order}
            for cell in cells:
                if self.plan.restores(cell, layer):
                    restored = self.run.blocks[layer][:, start:].clone()
                    restored[:, token - start] = clean.blocks[layer][:, token]
                    rows = restored[None] if not len(rows) else torch.cat([rows, restored[None]])
                    place[cell] = len(rows) - 1
        logits = self.skeleton.logits(rows[:, :, -1].flatten(0, 1), self.ids[:, -1:])
        return measure(logits).unflatten(0, rows.shape[:2])[[place[cell] for cell in cells]]

    def _advance(
        self, layer: int, token: int, rows: Tensor, order: list[Row], values: list[Tensor]
    ) -> Tensor:
        """The rows (rows, samples, positions, width) behind a block; behind the last, their last position."""
        old = [(parent, touched) for parent, touched in order if parent is not None]
        pieces = []
        if old:
            parents = [parent for parent, _ in old]
            same = parents == list(range(len(rows)))
            pieces.append(
                self._block(layer, token, rows if same else rows[parents], [t for _, t in old], values)
            )
        if len(order) > len(old):
            pieces.append(self._begin(layer, token, values)[None])
        if not pieces:
            return rows
        if layer == self.plan.layers - 1:
            pieces = [piece[:, :, -1:] for piece in pieces]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _begin(self, layer: int, token: int, values: list[Tensor]) -> Tensor:
        """A row that first differs in this block, where only the token's own vector changes."""
        if not self.cached:
            return self._block(layer, token, self._inputs[layer][None], [True], values)[0]
        inputs = self._inputs[layer][None, :, token : token + 1]
        row = self.run.blocks[layer][:, token:].clone()
        row[:, :1] = self._call(layer, inputs, token, [True], token, values)[0]
        return row

    def _block(
        self, layer: int, token: int, rows: Tensor, touched: list[bool], values: list[Tensor] | None = None
    ) -> Tensor:
        """The output of a block for rows that hold the positions up to the last."""
        start = self.length - rows.shape[2]
        last = layer == self.plan.layers - 1
        if last and self.cached and rows.shape[2] > 1 and not self.leaks:
            return self._last_position(rows, start)
        return self._call(layer, rows, start, touched, token, values)

    def _last_position(self, rows: Tensor, start: int) -> Tensor:
        """The last block's output at the last position: of the others only keys and values are computed."""
        layer, end = self.plan.layers - 1, self.length - 1
        block, cache = self._blocks[layer], self._prefix(layer, start, len(rows), stop=True)
        flat = rows.flatten(0, 1).to(self.run.blocks[layer].device)
        try:
            self._arguments(start, end)[layer].repeat(block, flat[:, :-1], cache)
        except Filled:
            cache = PrefixCache(cache.keys, cache.values, 1)
        output = self._arguments(end, end + 1)[layer].repeat(block, flat[:, -1:], cache)
        return output.unflatten(0, rows.shape[:2])

    def _call(
        self,
        layer: int,
        rows: Tensor,
        start: int,
        touched: list[bool],
        token: int,
        values: list[Tensor] | None,
    ) -> Tensor:
        """The output of a block for rows at the positions from `start` on, some overwritten at the token."""
        copies, samples, positions = rows.shape[:3]
        flat = rows.flatten(0, 1).to(self.run.blocks[layer].device)
        cache = self._prefix(layer, start, copies) if self.cached else None
        edit = {}
        if values is not None and any(touched):
            chosen = torch.tensor(touched, device=flat.device).repeat_interleave(samples)
            new = values[layer][:, token].expand(samples, -1).repeat(copies, 1)
            edit[self._modules[layer]] = overwriting(chosen, token - start, new, self.parts.width)
        call = self._arguments(start, start + positions)[layer]
        with hooked(self.parts.model, edit=edit):
            return call.repeat(self._blocks[layer], flat, cache).unflatten(0, (copies, samples))

    def _prefix(self, layer: int, start: int, copies: int, stop: bool = False) -> PrefixCache:
        keys, values = self.run.keys[layer], self.run.values[layer]
        return PrefixCache(keys[..., :start, :], values[..., :start, :], copies, stop)

    def _arguments(self, start: int, end: int) -> list[Call]:
        """How the model calls its blocks for these positions, asked for once while they are needed."""
        if (start, end) not in self._calls:
            # without those of the token before: their masks are large
            self._calls = {key: own for key, own in self._calls.items() if key[0] == self.length - 1}
            cache = placeholder_cache(self.plan.layers, start, self.ids.device) if self.cached else None
            self._calls[start, end] = self.skeleton.calls(self.ids[:, start:end], cache)
        return self._calls[start, end]

    def check(self, logits: Tensor) -> None:
        """Checks that blocks called one by one compute what the model computes.

        Args:
            logits: Of the corrupted run, (samples, tokens), from a plain forward pass.

        Raises:
            ArchitectureError: They do not.
        """
        start = min(1, self.length - 1) if self.cached else 0
        rows = self._inputs[0][:, start:].expand(2, -1, -1, -1)
        for layer, block in enumerate(self.run.blocks):
            rows = self._block(layer, start, rows, [False] * 2)
            _check_close(rows, block[:, -rows.shape[2] :], f"block {layer}")
        vectors = rows[0, :, -1]
        _check_close(self.skeleton.logits(vectors, self.ids[:, -1:]), logits, "the head")


def _old_rows_first(row: Row) -> tuple[bool, int, bool]:
    parent, touched = row
    return parent is None, parent or 0, touched


def _check_close(found: Tensor, expected: Tensor, what: str) -> None:
    if not same(found, expected):
        raise ArchitectureError(f"{what} called on its own does not compute what it computes in the model")
