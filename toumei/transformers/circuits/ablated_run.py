"""A pass in which some edges are cut: what a node reads has other contributions of some writers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .recorded_run import Inputs, at_last, shortened
from .wiring import Stage, Wiring, wide

Edit = Callable[[Tensor], Tensor | None]


class AblatedRun:
    """A pass in which inputs of nodes are replaced.

    An input is the stream plus, for each writer whose edge to it is cut, what replaces the writer's
    contribution minus the contribution in this pass. So the rest of the stream, biases for example, is as
    the pass computes it. Queries, keys and values are computed anew for each head from its input. Where an
    MLP reads the stream, the stream itself is changed, and changed back at the next place where it is read.

    Args:
        wiring: The nodes of the model.
        replaced: What replaces the contribution of each writer, (writers, 1 or texts, 1 or positions, width).
        cut: Which edges are cut, (readers, writers) or (rows, readers, writers); texts come in rows then, all
            texts of the first row first.
    """

    def __init__(self, wiring: Wiring, replaced: Tensor, cut: Tensor) -> None:
        self._wiring = wiring
        self._cut = cut[None] if cut.dim() == 2 else cut
        self._needed = self._cut.any(1).any(0).nonzero().flatten().tolist()
        self._replaced = replaced
        self._changes: Tensor | None = (
            None  # of the needed writers, (writers, rows x texts, positions, width)
        )
        self._true: dict[str, Tensor] = {}
        self._shift: Tensor | None = None
        self._heads: Tensor | None = None
        self._projected: dict[tuple[int, str], Tensor] = {}
        self._texts = 0  # in all rows

    def logits(self, inputs: Inputs) -> Tensor:
        """Returns the logits at the last position, (rows x texts, tokens).

        Args:
            inputs: The inputs of the model, for one row; the other rows have the same.
        """
        rows = len(self._cut)
        repeated = {
            name: one.repeat(rows, *[1] * (one.dim() - 1)) if isinstance(one, Tensor) else one
            for name, one in inputs.items()
        }
        self._texts = next(len(one) for one in repeated.values() if isinstance(one, Tensor))
        model = self._wiring.model
        with torch.no_grad():
            return at_last(model.run_with_hooks(repeated, self._edits(), **shortened(self._wiring)))

    def _edits(self) -> list[tuple[Any, Edit]]:
        """What is done at each activation."""
        wiring, edits = self._wiring, list[tuple[Any, Edit]]()
        if len(wiring.embeddings) > 1:
            edits += [(f"hook_{name}", self._noting((name,))) for name in wiring.embeddings]
        by_stream: dict[str, list[Stage]] = {}
        for stage in wiring.stages:
            by_stream.setdefault(stage.stream, []).append(stage)
        edits += [(name, self._at_stream(name, stages)) for name, stages in by_stream.items()]
        for stage in wiring.stages:
            edits += self._at_stage(stage, [one.kind for one in by_stream[stage.stream]])
        return edits

    def _at_stage(self, stage: Stage, kinds: list[str]) -> list[tuple[Any, Edit]]:
        """What is done inside a part."""
        if stage.kind == "logits":
            return []
        needed = any(self._wiring.writers[place] in stage.writers for place in self._needed)
        if stage.kind == "mlp":
            return [(stage.output, self._noting(stage.writers))] if needed else []
        edits: list[tuple[Any, Edit]] = []
        shifted = any(self._cut_of(one).any() for one in self._sharing(stage))
        if shifted or bool(self._cut_of(stage).any()):
            edits += [((letter, stage.layer), self._input(stage, letter)) for letter in "qkv"]
        if needed:
            edits.append((("z", stage.layer), self._note_heads))
            edits.append((stage.output, self._noting(stage.writers, stage.layer)))
        return edits

    def _sharing(self, stage: Stage) -> list[Stage]:
        """The MLP that reads the same stream as heads."""
        stages = self._wiring.stages
        return [one for one in stages if one.stream == stage.stream and one.kind == "mlp"]

    def _cut_of(self, stage: Stage) -> Tensor:
        """The edges into a part from needed writers that are cut, (rows, readers, needed)."""
        start = self._wiring.readers.index(stage.readers[0])
        return self._cut[:, start : start + len(stage.readers)][:, :, self._needed]

    def _at_stream(self, name: str, stages: list[Stage]) -> Edit:
        """Keeps the stream for the heads that read it, and changes it for an MLP or the logits."""

        def edit(tensor: Tensor) -> Tensor | None:
            true = wide(tensor) if self._shift is None else wide(tensor) - self._shift
            if name == self._wiring.start and len(self._wiring.embeddings) == 1:
                self._note(self._wiring.embeddings, true[None])
            before, self._shift = self._shift, None
            for stage in stages:
                if stage.kind == "attn":
                    self._true[stage.stream] = true
                else:
                    change = self._change_for(stage, true)
                    self._shift = None if change is None else change[0]
            if self._shift is not None:
                return (true + self._shift).to(tensor.dtype)
            return None if before is None else true.to(tensor.dtype)

        return edit

    def _change_for(self, stage: Stage, like: Tensor) -> Tensor | None:
        """What is added to the stream for each input of a part, (readers, rows x texts, ...)."""
        cut = self._cut_of(stage)
        if not bool(cut.any()):
            return None
        assert self._changes is not None
        changes = self._changes.unflatten(1, (len(cut), -1)).flatten(2)
        added = torch.einsum("rvw,wrn->vrn", cut.to(changes), changes)
        return added.reshape(cut.shape[1], *like.shape)

    def _input(self, stage: Stage, letter: str) -> Edit:
        def edit(tensor: Tensor) -> Tensor:
            if (stage.layer, letter) not in self._projected:
                self._read(stage)
            return self._projected.pop((stage.layer, letter)).to(tensor.dtype)

        return edit

    def _read(self, stage: Stage) -> None:
        """Computes the queries, keys and values of a layer."""
        true = self._true.pop(stage.stream)
        change = self._change_for(stage, true)
        streams = true.expand(len(stage.readers), *true.shape)
        inputs = self._wiring.attention[stage.layer]
        for letter, value in inputs.read(streams if change is None else streams + change):
            self._projected[stage.layer, letter] = value

    def _note_heads(self, tensor: Tensor) -> None:
        self._heads = tensor

    def _noting(self, writers: tuple[str, ...], layer: int | None = None) -> Edit:
        """Notes what is written."""

        def note(tensor: Tensor) -> None:
            if layer is None:
                self._note(writers, wide(tensor)[None])
            else:
                assert self._heads is not None
                self._note(writers, self._wiring.attention[layer].written(self._heads, tensor))

        return note

    def _note(self, writers: tuple[str, ...], written: Tensor) -> None:
        """Keeps how far the replacement of each needed writer is from what it wrote."""
        first = self._wiring.writers.index(writers[0])
        for row, place in enumerate(self._needed):
            if not first <= place < first + len(writers):
                continue
            value = written[place - first]
            new = self._replaced[place].to(value)
            if self._changes is None:
                shape = len(self._needed), self._texts, *value.shape[1:]
                self._changes = torch.zeros(shape, dtype=value.dtype, device=value.device)
            self._changes[row] = new.repeat(self._texts // len(new), 1, 1) - value
