"""Causal tracing in one sweep over the layers, which computes nothing twice.

The plain strategy runs the whole model for each pair of a token and a layer. Four facts save most of that
work. They change the result by rounding only:

- In the layers before the restored state, a patched run equals the corrupted run. So one sweep through the
  layers computes the rows of all cells: a row joins the batch after the layer in which it is restored.
- Attention is causal. At positions before the restored token, a patched run equals the corrupted run too. So
  rows hold only the positions from that token on. The keys and values before it come from the corrupted run.
- Windows that begin at the same layer are the same run until one of them ends; there they branch. In the
  block where a window begins, only the restored token changes.
- Only the last position reaches the answer. So the last block and the head are computed for this position
  only. If a state cannot reach it, or determines it alone, the score is known without computing.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ....core.errors import ArchitectureError
from ....core.hooks import hooked
from ...model.blockwise import BlockCall, BlockwiseRunner, nearly_equal
from ...model.families import Anatomy
from ...model.prefix_cache import Filled, PrefixCache, placeholder_cache
from .noise import Corruption
from .runs import LogitMetric, Plan, Run, overwriting_edit, record


class Branch(NamedTuple):
    """The origin of a row of a sweep in one block.

    Attributes:
        parent: The row before the block that it continues; None for the corrupted run.
        overwritten: Whether the output of the module of the block is overwritten.
    """

    parent: int | None
    overwritten: bool


class Overwriting(NamedTuple):
    """The outputs that replace those of the modules of a plan.

    Attributes:
        token: The position at which they are replaced.
        values: For each block the outputs (1 or samples, T, width) to take; no list replaces nothing.
    """

    token: int
    values: list[Tensor] | None


class LayerSweep:
    """The sweeps of one prompt, with some samples of noise.

    Args:
        parts: Where the parts of the model are.
        runner: Calls the blocks of the model one by one.
        ids: The prompt (1, T).
        corruption: The noise, a row for each sample.
        plan: Which states a cell restores.
        cached: Whether rows hold only the positions from the restored token on. The attention layers must
            take keys and values from a cache for that.
        leaks: Whether tokens mix after the restored modules of the last block.
    """

    def __init__(
        self,
        parts: Anatomy,
        runner: BlockwiseRunner,
        ids: Tensor,
        corruption: Corruption,
        plan: Plan,
        cached: bool,
        leaks: bool = False,
    ) -> None:
        self.parts, self.runner, self.ids, self.plan, self.cached = parts, runner, ids, plan, cached
        self.leaks = leaks
        self._blocks = [parts.module(name) for name in parts.blocks]
        self._calls: dict[tuple[int, int], list[BlockCall]] = {}
        self._modules = plan.modules(parts)
        self.run = record(parts, ids, self._modules, corruption, cached)
        with hooked(parts.model, edit={parts.embedding: corruption.edit}):
            rows = ids.expand(len(corruption.values), -1)
            self._inputs = [runner.calls(rows)[0].vectors, *self.run.blocks[:-1]]

    @property
    def length(self) -> int:
        """The number of tokens of the prompt."""
        return self.ids.shape[1]

    def low(self, metric: LogitMetric) -> Tensor:
        """Returns the metric (samples,) of the corrupted run."""
        return metric(self.runner.logits(self.run.blocks[-1][:, -1], self.ids[:, -1:]))

    def token(self, token: int, cells: Sequence[int], clean: Run, metric: LogitMetric) -> Tensor:
        """Returns the metric (cells, samples) with states of one token restored, from one sweep.

        Args:
            token: The position of the token.
            cells: The layers of the cells, in ascending order.
            clean: The run without noise.
            metric: From logits (N, tokens) to values (N,).
        """
        overwriting = Overwriting(token, self.run.modules if self.plan.kind == "hidden" else clean.modules)
        start = token if self.cached else 0
        rows = self._inputs[0].new_empty(0)
        row_of: dict[int, int] = {}  # the row of each cell that differs from the corrupted run already
        for layer in range(self.plan.layers):
            # After the last block only the last position counts; overwriting another one changes nothing.
            counts = layer < self.plan.layers - 1 or token == self.length - 1 or self.leaks
            branches = {
                cell: Branch(row_of.get(cell), counts and self.plan.touches(cell, layer)) for cell in cells
            }
            order = sorted({b for b in branches.values() if b != (None, False)}, key=_old_rows_first)
            rows = self._advance(layer, rows, order, overwriting)
            row_of = {cell: order.index(branch) for cell, branch in branches.items() if branch in order}
            for cell in cells:
                if self.plan.restores(cell, layer):
                    restored = self.run.blocks[layer][:, start:].clone()
                    restored[:, token - start] = clean.blocks[layer][:, token]
                    rows = restored[None] if not len(rows) else torch.cat([rows, restored[None]])
                    row_of[cell] = len(rows) - 1
        logits = self.runner.logits(rows[:, :, -1].flatten(0, 1), self.ids[:, -1:])
        result: Tensor = metric(logits).unflatten(0, rows.shape[:2])[[row_of[cell] for cell in cells]]
        return result

    def _advance(self, layer: int, rows: Tensor, order: list[Branch], overwriting: Overwriting) -> Tensor:
        """The rows (rows, samples, positions, width) after a block; after the last, their last position."""
        old = [branch for branch in order if branch.parent is not None]
        pieces = []
        if old:
            parents = [branch.parent for branch in old]
            chosen = rows if parents == list(range(len(rows))) else rows[parents]
            pieces.append(self._block(layer, chosen, [branch.overwritten for branch in old], overwriting))
        if len(order) > len(old):
            pieces.append(self._begin(layer, overwriting)[None])
        if not pieces:
            return rows
        if layer == self.plan.layers - 1:
            pieces = [piece[:, :, -1:] for piece in pieces]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _begin(self, layer: int, overwriting: Overwriting) -> Tensor:
        """A row that first differs from the corrupted run in this block, where only one token changes."""
        if not self.cached:
            return self._block(layer, self._inputs[layer][None], [True], overwriting)[0]
        token = overwriting.token
        inputs = self._inputs[layer][None, :, token : token + 1]
        row = self.run.blocks[layer][:, token:].clone()
        row[:, :1] = self._call(layer, inputs, token, [True], overwriting)[0]
        return row

    def _block(self, layer: int, rows: Tensor, overwritten: list[bool], overwriting: Overwriting) -> Tensor:
        """The output of a block for rows that end at the last position."""
        start = self.length - rows.shape[2]
        last = layer == self.plan.layers - 1
        if last and self.cached and rows.shape[2] > 1 and not self.leaks:
            return self._last_position(rows, start)
        return self._call(layer, rows, start, overwritten, overwriting)

    def _last_position(self, rows: Tensor, start: int) -> Tensor:
        """The output of the last block at the last position; elsewhere only keys and values are computed."""
        layer, end = self.plan.layers - 1, self.length - 1
        block, cache = self._blocks[layer], self._prefix(layer, start, len(rows), stop=True)
        flat = rows.flatten(0, 1).to(self.run.blocks[layer].device)
        try:
            self._arguments(start, end)[layer].repeat(block, flat[:, :-1], cache)
        except Filled:
            cache = PrefixCache(cache.keys, cache.values, 1)
        output = self._arguments(end, end + 1)[layer].repeat(block, flat[:, -1:], cache)
        result: Tensor = output.unflatten(0, rows.shape[:2])
        return result

    def _call(
        self, layer: int, rows: Tensor, start: int, overwritten: list[bool], overwriting: Overwriting
    ) -> Tensor:
        """The output of a block for rows at the positions from `start` on, with some rows overwritten."""
        token, values = overwriting
        copies, samples, positions = rows.shape[:3]
        flat = rows.flatten(0, 1).to(self.run.blocks[layer].device)
        cache = self._prefix(layer, start, copies) if self.cached else None
        edit = {}
        if values is not None and any(overwritten):
            chosen = torch.tensor(overwritten, device=flat.device).repeat_interleave(samples)
            new = values[layer][:, token].expand(samples, -1).repeat(copies, 1)
            edit[self._modules[layer]] = overwriting_edit(chosen, token - start, new, self.parts.width)
        call = self._arguments(start, start + positions)[layer]
        with hooked(self.parts.model, edit=edit) if edit else nullcontext():
            result: Tensor = call.repeat(self._blocks[layer], flat, cache).unflatten(0, (copies, samples))
            return result

    def _prefix(self, layer: int, start: int, copies: int, stop: bool = False) -> PrefixCache:
        keys, values = self.run.keys[layer], self.run.values[layer]
        return PrefixCache(keys[..., :start, :], values[..., :start, :], copies, stop)

    def _arguments(self, start: int, end: int) -> list[BlockCall]:
        """The arguments with which the model calls its blocks for these positions, once for each token."""
        if (start, end) not in self._calls:
            # the arguments for the previous token are dropped: their masks are large
            self._calls = {key: calls for key, calls in self._calls.items() if key[0] == self.length - 1}
            cache = placeholder_cache(self.plan.layers, start, self.ids.device) if self.cached else None
            self._calls[start, end] = self.runner.calls(self.ids[:, start:end], cache)
        return self._calls[start, end]

    def check(self, logits: Tensor) -> None:
        """Checks that blocks which are called one by one compute the same as in the model.

        Args:
            logits: The logits (samples, tokens) of the corrupted run, from a plain forward pass.

        Raises:
            ArchitectureError: They compute something else.
        """
        start = min(1, self.length - 1) if self.cached else 0
        rows, nothing = self._inputs[0][:, start:].expand(2, -1, -1, -1), Overwriting(start, None)
        for layer, block in enumerate(self.run.blocks):
            rows = self._block(layer, rows, [False] * 2, nothing)
            _check_close(rows, block[:, -rows.shape[2] :], f"block {layer}")
        vectors = rows[0, :, -1]
        _check_close(self.runner.logits(vectors, self.ids[:, -1:]), logits, "the head")


def _old_rows_first(branch: Branch) -> tuple[bool, int, bool]:
    return branch.parent is None, branch.parent or 0, branch.overwritten


def _check_close(found: Tensor, expected: Tensor, what: str) -> None:
    if not nearly_equal(found, expected):
        raise ArchitectureError(f"{what} computes something else when it is called outside of the model")
