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
tried, each change is a pass of the model with an edit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.outputs import main_tensor
from ..model.blockwise import BlockwiseRunner, nearly_equal
from ..model.families import Anatomy, anatomy
from ..model.hooked_model import HookedModel
from .base_run import BaseRun
from .branches import Branches
from .changes import Change, Replacement

TOKENS_AT_ONCE = 8192
_LOGITS_AT_ONCE = 2**26
Read = Callable[[Tensor], Tensor]
"""From logits (rows, texts, positions, tokens) to values (rows, texts)."""


class PatchedRuns:
    """The runs of some texts with an activation changed.

    Args:
        model: The model.
        inputs: Its inputs, of texts of one length, or of texts padded on the right.
        replacement: The activation and its new numbers.
        first: The first position whose logits are read.
        last: How many positions at the end are not read.
        unchanged: How many positions the new numbers leave as they are, at the beginning.
        batch_size: How many texts times changes run at once; by default as many as have 8192 tokens.
    """

    def __init__(
        self,
        model: HookedModel,
        inputs: dict[str, Any],
        replacement: Replacement,
        *,
        first: int = 0,
        last: int = 0,
        unchanged: int = 0,
        batch_size: int | None = None,
    ) -> None:
        self.model, self.inputs, self.replacement = model, inputs, replacement
        self._first, self._last, self._unchanged, self._batch_size = first, last, unchanged, batch_size
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
            for change in ordered:
                yield [change], read(self._plain(change)[None])
            return
        waiting = ordered
        while waiting:
            start = self._start(waiting[0])
            positions = self._base.length - start
            rows = self._batch_size or TOKENS_AT_ONCE // positions
            size = max(1, rows // self._base.texts)
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
        size = max(1, _LOGITS_AT_ONCE // numbers)
        return torch.cat([read(self._base.logits(part)) for part in vectors.split(size)])

    def _positions(self, rows: Tensor) -> Tensor:
        """The part of rows (changes, texts, positions, width) that is read."""
        assert self._base is not None
        start, end = self._base.length - rows.shape[2], self._base.length - self._last
        return rows[:, :, self._first - start : end - start]

    def _plain(self, change: Change) -> Tensor:
        """The logits (texts, positions, tokens) of one change by a pass of the whole model."""
        replacement = self.replacement

        def put(value: Tensor) -> None:
            replacement.put(value, replacement.new(change.layer, value), change)

        with self.model.edit({replacement.name(change.layer): put}):
            return self._kept(read_logits(self.model, self.inputs))

    def _kept(self, tensor: Tensor) -> Tensor:
        """The positions of a tensor (texts, positions, ...) that are read."""
        return tensor[:, self._first : tensor.shape[1] - self._last]

    def _prepare(self, changes: Sequence[Change]) -> None:
        """Makes the base run for a way of computing that gives the logits of the model, if there is one."""
        try:
            parts = anatomy(self.model.model)
            ids = self.inputs["input_ids"]
            runner = BlockwiseRunner(parts)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # no language model with blocks that are known
            return
        tried = _one_of_each_kind(changes, parts)
        expected = {change: self._plain(change) for change in tried}
        for cached in (True, False):
            if self._works(parts, runner, ids, cached, expected):
                return
        self._base = None

    def _works(
        self,
        parts: Anatomy,
        runner: BlockwiseRunner,
        ids: Tensor,
        cached: bool,
        expected: dict[Change, Tensor],
    ) -> bool:
        try:
            self._base = BaseRun(parts, runner, ids, cached)
            self._branches = Branches(self._base, self.model.points, self.replacement)
            for change, logits in expected.items():
                rows = self._positions(self._sweep([change], self._start(change)))
                found = self._base.logits(rows[0])
                valid = self._kept(self._valid())
                if not nearly_equal(found[valid], logits[valid]):
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


def read_logits(model: HookedModel, inputs: dict[str, Any]) -> Tensor:
    """Returns the logits (texts, positions, tokens); those of a classifier have one position.

    Raises:
        ArchitectureError: The model gives no logits.
    """
    output = model.model(**inputs)
    logits = main_tensor(output)
    if not hasattr(output, "logits"):
        raise ArchitectureError(
            f"{type(model.model).__name__} gives no logits: give the model with its head, such as "
            f"AutoModelForCausalLM"
        )
    return logits if logits.dim() > 2 else logits[:, None]


def _one_of_each_kind(changes: Sequence[Change], parts: Anatomy) -> list[Change]:
    """The first change, the last one, and one in each other kind of block."""
    ordered = sorted(changes, key=lambda one: one.layer)
    kinds: dict[str, Change] = {}
    for layer, change in {one.layer: one for one in reversed(ordered)}.items():
        kinds[repr(parts.module(parts.blocks[layer]))] = change
    return list(dict.fromkeys([ordered[0], ordered[-1], *kinds.values()]))
