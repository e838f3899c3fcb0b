"""Path patching that runs no more blocks than the paths go through.

With frozen MLPs a sender changes the stream by the same vectors from its block on, so that no block between
the sender and a receiver runs. With free MLPs the blocks between them run, with frozen heads. The second run,
in which receivers have other inputs, begins at the first receiver. Both begin at the first position in which
the texts differ, and logits are computed at the last one.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...core.hooks import hooked
from ...core.targets import CallEdit
from ..model.activation_cache import ActivationCache
from ..model.hook_points import Point
from ..model.hook_search import HookPoints
from ..model.pass_state import PassState
from ..model.point_edits import NamedChange, engine_edit
from ..model.point_names import full_name
from .base_run import BaseRun
from .branches import Branches
from .changes import Change, Replacement

Seen = dict[tuple[int, str], Tensor]
"""Inputs of receivers, by layer and kind."""


class PathSweep:
    """The logits that senders make through paths to some receivers.

    Args:
        base: The run that is changed.
        points: The hook points of the model.
        sent: What senders have in the other run.
        frozen: What stays as it is in the base run, by short name: z of all heads, and maybe ``mlp_out``.
        receivers: Layer, head and kind of each input that paths end in; none for the logits.
        start: The first position at which anything changes.

    Attributes:
        start: The first position that runs.
    """

    def __init__(
        self,
        base: BaseRun,
        points: HookPoints,
        sent: Replacement,
        frozen: dict[str, ActivationCache],
        receivers: Sequence[tuple[int, int, str]],
        start: int,
    ) -> None:
        self._base, self._points, self._what = base, points, sent.what
        self._branches = Branches(base, points, sent)
        self._frozen, self.start = frozen, start if base.cached else 0
        self._heads: dict[tuple[int, str], list[int]] = {}
        for layer, head, kind in receivers:
            self._heads.setdefault((layer, kind), []).append(head)

    def logits(self, senders: Sequence[Change]) -> Tensor:
        """Returns the logits (senders, texts, tokens) at the last position.

        Args:
            senders: In the order of their layers.
        """
        if self._heads:
            rows = self._with_inputs(self._seen(senders), len(senders))
        else:
            end = self._base.parts.layers
            rows = dict(self._arriving(senders, [end]))[end]
        return self._base.logits(rows[:, :, -1])

    def _arriving(self, senders: Sequence[Change], ends: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """The streams (senders, texts, positions, width) before some layers, those of the first run."""
        rows: Tensor | None = None
        for layer in range(senders[0].layer, max(ends) + 1):
            if rows is not None and layer in ends:
                yield layer, self._filled(rows, layer, len(senders))
            if layer == max(ends):
                return
            if rows is not None:
                rows = self._onward(layer, rows)
            here = [one for one in senders if one.layer == layer]
            if here:
                new = self._leaving(here)
                rows = new if rows is None else torch.cat([rows, new.to(rows.device)])

    def _filled(self, rows: Tensor, layer: int, count: int) -> Tensor:
        """The rows, and those of the base run for senders that come later."""
        missing = self._base.before(layer, self.start).expand(count - len(rows), -1, -1, -1)
        return torch.cat([rows, missing.to(rows.device)])

    def _leaving(self, senders: Sequence[Change]) -> Tensor:
        """The streams after the layer of some senders."""
        layer = senders[0].layer
        edits = {}
        if self._what == "z" and "mlp_out" in self._frozen:
            edits = self._kept("mlp_out", layer)
        with hooked(self._base.parts.model, edit=edits):
            return self._branches(senders, self.start)

    def _kept(self, what: str, layer: int) -> dict[str, CallEdit]:
        """An edit that gives all rows what they have in the base run; none where the layer has no such."""
        point = self._points.points.get(full_name((what, layer)))
        if point is None:
            return {}
        value = self._frozen[what][what, layer][:, self.start :]

        def keep(tensor: Tensor, *_: object) -> Tensor:
            rows = tensor.numel() // value.numel()
            return value.expand(rows, *value.shape).reshape(tensor.shape).to(tensor.dtype)

        return {point.layer: CallEdit(keep)}

    def _onward(self, layer: int, rows: Tensor) -> Tensor:
        """The streams after a layer whose heads keep their outputs, and whose MLP may."""
        if "mlp_out" in self._frozen:
            added = self._base.after(layer, self.start) - self._base.before(layer, self.start)
            return rows + added.to(rows.device)
        kept = self._frozen["z"][full_name(("z", layer))] if self._has("z", layer) else None
        if kept is None:
            return self._base.call(layer, rows)
        value = kept[:, self.start :].repeat(len(rows), 1, 1, 1)
        return self._edited(layer, rows, {"z": lambda tensor, _: value.to(tensor)})

    def _has(self, what: str, layer: int) -> bool:
        return full_name((what, layer)) in self._points.points

    def _edited(self, layer: int, rows: Tensor, changes: dict[str, NamedChange]) -> Tensor:
        """The output of a block with some activations changed."""
        state = PassState(batch=len(rows) * self._base.texts)
        by_place: dict[str, list[tuple[Point | str, NamedChange]]] = {}
        for what, change in changes.items():
            point = self._points.points[full_name((what, layer))]
            by_place.setdefault(point.layer, []).append((point, change))
        edits = {place: engine_edit(listed, state) for place, listed in by_place.items()}
        with hooked(self._base.parts.model, edit=edits):
            return self._base.call(layer, rows)

    def _seen(self, senders: Sequence[Change]) -> Seen:
        """The inputs of receivers in the first run; they keep theirs in layers that no path reaches."""
        seen: Seen = {}

        def noting(place: tuple[int, str]) -> NamedChange:
            def note(tensor: Tensor, _: str) -> Tensor:
                seen[place] = tensor.clone()
                return tensor

            return note

        for layer, rows in self._arriving(senders, [layer for layer, _ in self._heads]):
            kinds = [kind for place, kind in self._heads if place == layer]
            self._edited(layer, rows, {kind: noting((layer, kind)) for kind in kinds})
        return seen

    def _with_inputs(self, seen: Seen, count: int) -> Tensor:
        """The streams after the last block with these inputs of receivers, those of the second run."""

        def replacing(place: tuple[int, str]) -> NamedChange:
            def replace(tensor: Tensor, _: str) -> Tensor:
                tensor[:, :, self._heads[place]] = seen[place][:, :, self._heads[place]]
                return tensor

            return replace

        first = min(layer for layer, _ in seen)
        rows = self._base.before(first, self.start).expand(count, -1, -1, -1)
        for layer in range(first, self._base.parts.layers):
            kinds = [kind for place, kind in seen if place == layer]
            rows = self._edited(layer, rows, {kind: replacing((layer, kind)) for kind in kinds})
        return rows
