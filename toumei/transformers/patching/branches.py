"""Rows that leave the base run inside a block: everything before that place is computed once for all rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError
from ...core.hooks import hooked
from ...core.outputs import main_tensor, with_main_tensor
from ...core.targets import CallEdit
from ...instrument import LinearMap
from ..model.blockwise import with_module
from ..model.hook_points import ComputedPoint, HookPoint
from ..model.hook_search import HookPoints
from ..model.recording import output_weight
from .base_run import BaseRun
from .changes import Change, Replacement

_PLAIN_AXES = (("batch",), ("position",), ("width",))


class Branches:
    """The outputs of blocks for rows in which an activation is changed.

    Args:
        base: The base run.
        points: The hook points of the model.
        replacement: The activation, and its new numbers.
    """

    def __init__(self, base: BaseRun, points: HookPoints, replacement: Replacement) -> None:
        self._base, self._points, self._replacement = base, points, replacement
        self._refused: set[int] = set()  # layers whose block takes no vectors with an axis for the rows

    def __call__(self, changes: Sequence[Change], start: int) -> Tensor:
        """Returns the outputs (changes, texts, positions, width) of a block from a position on.

        Args:
            changes: Changes of one layer.
            start: The first position, at or before those that are changed.
        """
        layer, what = changes[0].layer, self._replacement.what
        if what == "resid_pre":
            rows = self._replacement.rows(self._base.before(layer, start), changes, start)
            return self._base.call(layer, rows)
        if what == "resid_post":
            return self._replacement.rows(self._base.after(layer, start), changes, start)
        if layer not in self._refused:
            branching = self._branching(changes, start)
            try:
                if branching is not None:
                    return self._shared(layer, start, *branching, len(changes))
            except torch.OutOfMemoryError:
                raise
            except Exception:  # a block of any architecture may raise any error for these vectors
                pass
            self._refused.add(layer)
        return self._edited(changes, start)

    def _shared(
        self, layer: int, start: int, name: str, change: Callable[[Tensor, Any], Tensor], count: int
    ) -> Tensor:
        """One call of a block in which a module returns (changes, texts, positions, width)."""
        prefix = self._base.parts.blocks[layer] + "."
        if not name.startswith(prefix):
            raise ArchitectureError(f"{name!r} is not in the block {prefix!r}")
        stand_in = _Branching(self._base.parts.module(name), change)
        block = with_module(self._base.parts.module(prefix[:-1]), name[len(prefix) :].split("."), stand_in)
        inputs = self._base.before(layer, start)
        output = self._base.call(layer, inputs[None], block)
        expected = (count, *inputs.shape)
        if output.shape != expected:
            raise ArchitectureError(f"the block returns {tuple(output.shape)}, expected {expected}")
        return output

    def _branching(
        self, changes: Sequence[Change], start: int
    ) -> tuple[str, Callable[[Tensor, Any], Tensor]] | None:
        """A module whose output can be changed in place of the activation, and how; None without one."""
        layer, what = changes[0].layer, self._replacement.what
        if what == "z" and layer in self._points.outputs:
            linear, weight = self._points.outputs[layer], output_weight(self._points, layer)
            return linear.module, self._through_map(changes, start, weight)
        if what == "post" and layer in self._points.networks:
            down = self._points.networks[layer].down
            return down.module, self._through_map(changes, start, _neuron_weight(self._points, down))
        point = self._points.points.get(self._replacement.name(layer))
        if not isinstance(point, HookPoint) or point.axes != _PLAIN_AXES or "/" in point.layer:
            return None
        if not point.layer.endswith("#0") or point.columns is not None:
            return None

        def change(output: Tensor, _: Any) -> Tensor:
            return self._replacement.rows(output, changes, start)

        return point.layer.removesuffix("#0"), change

    def _through_map(
        self, changes: Sequence[Change], start: int, weight: Tensor
    ) -> Callable[[Tensor, Any], Tensor]:
        """Changes the output of a linear map by what the change of its input makes of it.

        Args:
            changes: The changes.
            start: The first position.
            weight: (units, numbers of a unit, width).
        """
        layer = changes[0].layer
        units = sorted({one.unit for one in changes if one.unit is not None})

        def change(output: Tensor, given: Tensor) -> Tensor:
            value = given if self._replacement.what == "post" else given.unflatten(-1, weight.shape[:2])
            delta = self._replacement.new(layer, value, start) - value
            if self._replacement.what == "post":
                delta = delta[..., None]
            effects = torch.einsum("ntuh,uhw->untw", delta[:, :, units], weight[units].to(delta))
            by_unit: dict[int | None, Tensor] = dict(zip(units, effects, strict=True))
            if any(one.unit is None for one in changes):
                by_unit[None] = torch.einsum("ntuh,uhw->ntw", delta, weight.to(delta))
            rows = torch.stack([output] * len(changes))
            for row, one in zip(rows, changes, strict=True):
                place = slice(None) if one.position is None else one.position - start
                row[:, place] += by_unit[one.unit][:, place]
            return rows

        return change

    def _edited(self, changes: Sequence[Change], start: int) -> Tensor:
        """The same from a block that computes everything for each row."""
        layer, replacement, texts = changes[0].layer, self._replacement, self._base.texts
        point, count = self._points.points[replacement.name(layer)], len(changes)

        def put(value: Tensor) -> Tensor:
            value = value.clone().unflatten(0, (count, texts))
            for row, one in zip(value, changes, strict=True):
                replacement.put(row, replacement.new(layer, row, start), one, start)
            return value.flatten(0, 1)

        def edit(tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
            if isinstance(point, HookPoint):
                return point.write(tensor, put(point.read(tensor, count * texts)), count * texts)
            assert isinstance(point, ComputedPoint) and point.replace is not None
            return point.replace(put(point.compute(args, kwargs)), args, kwargs)

        inputs = self._base.before(layer, start).expand(count, -1, -1, -1)
        with hooked(self._base.parts.model, edit={point.layer: CallEdit(edit)}):
            return self._base.call(layer, inputs)


class _Branching(nn.Module):
    """Calls a module of the model and makes several rows of its output; its attributes are the module's."""

    def __init__(self, module: nn.Module, change: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.__dict__["_module"], self.__dict__["_change"] = module, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.__dict__["_module"](*args, **kwargs)
        given = args[0] if args else next(iter(kwargs.values()))
        return with_main_tensor(output, self.__dict__["_change"](main_tensor(output), given))


def _neuron_weight(points: HookPoints, down: LinearMap) -> Tensor:
    """The weights (neurons, 1, width) by which neurons write into the stream."""
    weight = points.graph.memory.model.get_parameter(down.weight.name).detach()
    neurons = down.in_features
    return (weight if len(weight) == neurons and down.operation.function != "linear" else weight.T)[:, None]
