"""Runs of a model with one activation changed in many ways, which compute nothing twice.

The plain way runs the whole model once for each change. Here a change costs what it changes:

- Blocks before the changed one are not run: a row begins with the residual stream of the base run. One sweep
  goes through the layers, and rows join the batch at their layer, so that a block runs once for many of them.
- Inside the changed block, everything before the changed activation is computed once. For the output of a
  head the attention of the block is the base run's, only its part of the linear map after it changes.
- Attention is causal: at positions before the first one that is changed, a row equals the base run. Rows hold
  the positions from there on; keys and values before it come from the base run.
- Logits are computed at the positions that are read.

Where the blocks of a model cannot be called one by one, or give other logits than the model when this is
tried, changes are rows of passes of the whole model with edits.
"""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.modules import without_wrapper
from ...core.outputs import main_tensor
from ..model.blockwise import LOGITS_AT_ONCE, BlockwiseRunner, nearly_equal
from ..model.families import Anatomy
from ..model.hooked_model import HookedModel
from .base_run import BaseRun
from .branches import Branches
from .changes import Change, Replacement

Read = Callable[[Tensor], Tensor]
"""From logits (rows, texts, positions, tokens) to values (rows, texts)."""


class PatchedRuns:
    """The runs of some texts with an activation changed.

    Args:
        model: The model.
        inputs: Its inputs, of texts of one length, or of texts padded on the right.
        replacement: The activation and its new numbers.
        first: The first position whose logits are read.
        unchanged: How many positions the new numbers leave as they are, at the beginning.
        batch_size: How many texts times changes run at once; by default as many as keep the device busy.
    """

    def __init__(
        self,
        model: HookedModel,
        inputs: dict[str, Any],
        replacement: Replacement,
        *,
        first: int = 0,
        unchanged: int = 0,
        batch_size: int | None = None,
    ) -> None:
        self.model, self.inputs, self.replacement = model, inputs, replacement
        self._first, self._unchanged, self._batch_size = first, unchanged, batch_size
        self._base: BaseRun | None = None
        self._branches: Branches | None = None

    def values(self, changes: Sequence[Change], read: Read) -> Iterator[tuple[Sequence[Change], Tensor]]:
        """Yields some changes and the values (changes, texts) that are read of their runs, until all came.

        Args:
            changes: The changes.
            read: What is read of the logits.
        """
        ordered = sorted(changes, key=lambda one: (one.position or 0, one.layer))
        if self._base is None and ordered:
            self._prepare(ordered)
        if self._base is None:
            size = self._rows_of_passes()
            for place in range(0, len(ordered), size):
                chunk = ordered[place : place + size]
                yield chunk, read(self._plain(chunk))
            return
        waiting = ordered
        while waiting:
            start = self._start(waiting[0])
            positions = self._base.length - start
            size = rows_at_once(self._base.ids, positions, self._batch_size)
            chunk, waiting = sorted(waiting[:size], key=lambda one: one.layer), waiting[size:]
            yield chunk, self._read(self._sweep(chunk, start), read)

    def _start(self, change: Change) -> int:
        """The first position at which a row differs from the base run and is read or has an effect."""
        assert self._base is not None
        touched = self._unchanged if change.position is None else change.position
        return min(touched, self._first, self._base.length - 1) if self._base.cached else 0

    def _sweep(self, changes: Sequence[Change], start: int) -> Tensor:
        """The outputs (changes, texts, positions, width) of the last block, in the order of the layers."""
        assert self._base is not None and self._branches is not None
        rows: Tensor | None = None
        for layer in range(changes[0].layer, self._base.parts.layers):
            if rows is not None:
                rows = self._base.call(layer, rows)
            here = [one for one in changes if one.layer == layer]
            if here:
                new = self._branches(here, start)
                rows = new if rows is None else torch.cat([rows, new.to(rows.device)])
        assert rows is not None
        return rows

    def _read(self, rows: Tensor, read: Read) -> Tensor:
        """What is read of the logits, some rows at a time."""
        assert self._base is not None
        vectors = self._positions(rows)
        positions = vectors.shape[2]
        numbers = self._base.texts * positions * self._base.parts.vocabulary
        size = max(1, LOGITS_AT_ONCE // numbers)
        return torch.cat([read(self._base.logits(part)) for part in vectors.split(size)])

    def _positions(self, rows: Tensor) -> Tensor:
        """The part of rows (changes, texts, positions, width) that is read."""
        assert self._base is not None
        start = self._base.length - rows.shape[2]
        return rows[:, :, self._first - start :]

    def _rows_of_passes(self) -> int:
        """How many changes are rows of one pass of the whole model."""
        lengths = {one.shape[self.replacement.position_axis] for one in self.replacement.values.values()}
        main = self.inputs.get("input_ids")
        positions = max(lengths) if main is None else main.shape[1]
        main = next(one for one in self.inputs.values() if isinstance(one, Tensor)) if main is None else main
        return rows_at_once(main, positions, self._batch_size)

    def _plain(self, changes: Sequence[Change]) -> Tensor:
        """The logits (changes, texts, positions, tokens) of a pass of the whole model with a row for each."""
        replacement, count = self.replacement, len(changes)

        def putting(layer: int) -> Callable[[Tensor], None]:
            def put(value: Tensor) -> None:
                for row, change in zip(value.unflatten(0, (count, -1)), changes, strict=True):
                    if change.layer == layer:
                        replacement.put(row, replacement.new(layer, row), change)

            return put

        edits = {replacement.name(layer): putting(layer) for layer in {one.layer for one in changes}}
        with self.model.edit(edits):
            logits = read_logits(self.model, repeated(self.inputs, count))
        result: Tensor = self._kept(logits).unflatten(0, (count, -1))
        return result

    def _kept(self, tensor: Tensor) -> Tensor:
        """The positions of a tensor (texts, positions, ...) that are read."""
        return tensor[:, self._first :]

    def _prepare(self, changes: Sequence[Change]) -> None:
        """Makes the base run for a way of computing that gives the logits of the model, if there is one."""
        try:
            parts = self.model.parts
            ids = self.inputs["input_ids"]
            runner = BlockwiseRunner(parts)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # no language model with blocks that are known
            return
        tried = _one_of_each_kind(changes, parts)
        expected = self._plain(tried)
        for cached in (True, False):
            if self._works(parts, runner, ids, cached, tried, expected):
                return
        self._base = None

    def _works(
        self,
        parts: Anatomy,
        runner: BlockwiseRunner,
        ids: Tensor,
        cached: bool,
        tried: Sequence[Change],
        expected: Tensor,
    ) -> bool:
        try:
            self._base = BaseRun(parts, runner, ids, cached)
            self._branches = Branches(self._base, self.model.points, self.replacement)
            valid = self._kept(self._valid())
            for start, group in groupby(zip(tried, expected, strict=True), lambda pair: self._start(pair[0])):
                changes, logits = zip(*group, strict=True)
                found = self._base.logits(self._positions(self._sweep(changes, start)))
                if not nearly_equal(found[:, valid], torch.stack(logits)[:, valid]):
                    raise ArchitectureError("rows compute something else than the model")
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the block of an unknown model may raise any error when it is called in this way
            return False
        return True

    def _valid(self) -> Tensor:
        """Which positions are tokens, (texts, positions)."""
        mask = self.inputs.get("attention_mask")
        return (torch.ones_like(self.inputs["input_ids"]) if mask is None else mask).bool()


def rows_at_once(ids: Tensor, positions: int, batch_size: int | None) -> int:
    """Returns how many changes run at once.

    On a CPU more than about a thousand tokens leave its cache and gain nothing.

    Args:
        ids: The texts, (texts, T).
        positions: How many positions of each are computed.
        batch_size: How many texts times changes, or None.
    """
    tokens = 1024 if ids.device.type == "cpu" else 16384
    return max(1, (batch_size or tokens // positions) // len(ids))


def repeated(inputs: dict[str, Any], rows: int) -> dict[str, Any]:
    """Returns the inputs of a model with all texts so many times, one time after the other."""
    return {
        name: one.repeat(rows, *[1] * (one.dim() - 1)) if isinstance(one, Tensor) else one
        for name, one in inputs.items()
    }


def read_logits(model: HookedModel, inputs: dict[str, Any], *, last: bool = False) -> Tensor:
    """Returns the logits (texts, positions, tokens); those of a classifier have one position.

    Args:
        model: The model.
        inputs: Its inputs.
        last: Only at the last position.

    Raises:
        ArchitectureError: The model gives no logits.
    """
    inner = without_wrapper(model.model)
    short = last and "logits_to_keep" in signature(type(inner).forward).parameters
    output = model.model(**inputs, **({"logits_to_keep": 1} if short else {}))
    if not hasattr(output, "logits"):
        raise ArchitectureError(
            f"{type(inner).__name__} gives no logits: give the model with its head, such as "
            f"AutoModelForCausalLM"
        )
    logits = main_tensor(output)
    logits = logits if logits.dim() > 2 else logits[:, None]
    return logits[:, -1:] if last else logits


def _one_of_each_kind(changes: Sequence[Change], parts: Anatomy) -> list[Change]:
    """The first change, the last one, and one in each other kind of block, in the order of the layers."""
    ordered = sorted(changes, key=lambda one: one.layer)
    kinds: dict[str, Change] = {}
    for layer, change in {one.layer: one for one in reversed(ordered)}.items():
        kinds[repr(parts.module(parts.blocks[layer]))] = change
    return sorted({ordered[0], ordered[-1], *kinds.values()}, key=ordered.index)
