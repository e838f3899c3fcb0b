"""Records the hook points of a pass, and their gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.activations import Activations, version_of
from ...core.errors import ArgumentError, OverwrittenError
from ...core.hooks import hooked
from ...core.modules import without_wrapper
from ...core.targets import CallEdit, Edit
from ...core.tensors import whole
from .activation_cache import ActivationCache, Lazy
from .hook_points import Args, ComputedPoint, DerivedPoint, HookPoint, Kwargs
from .hook_search import HookPoints
from .pass_state import PassState

_TRANSPOSES = ("T", "t", "mT", "transpose", "permute")


class Recording:
    """What is recorded of a pass.

    Args:
        model: The model.
        points: Its hook points.
        names: What to record: names of points, or native names.
        state: What is known of the pass.
        gradients: Whether the tensors stay in the graph of autograd, for `gradients`.
        stop: Whether the pass ends as soon as everything is recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        points: HookPoints,
        names: Sequence[str],
        state: PassState,
        gradients: bool,
        stop: bool = False,
    ) -> None:
        self._model, self._points, self._names, self._stop = model, points, names, stop
        self._state, self._with_gradients = state, gradients
        self._calls: dict[str, tuple[Any, Any]] = {}
        self._written: dict[str, Tensor] = {}
        self._activations: Activations | None = None
        self._batch = 1
        self._record: dict[str, str] = {}
        self._edits: dict[str, Edit] = {}
        self._clone = False
        for name in names:
            self._want(name)

    def _want(self, name: str) -> None:
        """Notes what the engine has to do for a name."""
        point = self._points.points.get(_held(name), name)
        layer = point if isinstance(point, str) else point.layer
        computed = isinstance(point, ComputedPoint)
        if computed:
            self._edits[layer] = CallEdit(self._storing(layer, self._with_gradients))
        if not computed or self._with_gradients:
            self._record[layer] = layer
        if self._with_gradients and not computed:
            self._edits.setdefault(layer, _differentiable)
        self._clone |= self._points.in_place if isinstance(point, str) else point.overwritten

    def _storing(self, layer: str, differentiable: bool) -> Callable[[Tensor, Any, Any], Tensor]:
        def store(tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
            self._calls[layer] = _detached(args, kwargs)
            return _differentiable(tensor) if differentiable else tensor

        return store

    @contextmanager
    def active(self) -> Iterator["Recording"]:
        """Records the pass in the block."""
        options = {"detach": not self._with_gradients, "clone": self._clone, "stop": self._stop}
        noting = self._state.noting(without_wrapper(self._model))
        with hooked(self._model, self._record, self._edits, **options) as self._activations, noting:
            try:
                yield self
            finally:  # also of a pass that ends early
                self._written, self._batch = dict(self._state.written), self._state.batch

    def cache(self) -> ActivationCache:
        """Returns the activations."""
        values = {name: self._value(name) for name in self._names}
        return ActivationCache(values, self._points, batch=self._batch)

    def gradients(self, score: object) -> ActivationCache:
        """Returns the activations and the gradients of a score.

        Raises:
            ArgumentError: The score is no number, or depends on no activation.
        """
        if not isinstance(score, Tensor) or score.numel() != 1:
            shape = f" of shape {tuple(score.shape)}" if isinstance(score, Tensor) else ""
            raise ArgumentError(
                f"the metric returns one number for all logits, got {type(score).__name__}{shape}"
            )
        if not score.requires_grad:
            raise ArgumentError("the metric does not depend on the logits by differentiable operations")
        recorded = [layer for layer in self._record if self._tensor(layer).requires_grad]
        found = torch.autograd.grad(score, list(map(self._tensor, recorded)), allow_unused=True)
        pairs = zip(recorded, found, strict=True)
        by_layer = {
            layer: torch.zeros_like(self._tensor(layer)) if one is None else one for layer, one in pairs
        }
        grads = {name: one for name in self._names if (one := self._gradient(name, by_layer)) is not None}
        values = {name: self._value(name) for name in self._names}
        detached = {name: one.detach() if isinstance(one, Tensor) else one for name, one in values.items()}
        return ActivationCache(detached, self._points, grads=grads, batch=self._batch)

    def _gradient(self, name: str, by_layer: dict[str, Tensor]) -> Tensor | None:
        """The gradient of a point, None where it has none."""
        point = self._points.points.get(name, None if name in self._points.names else name)
        layer = getattr(point, "layer", point)
        if layer not in by_layer or isinstance(point, DerivedPoint):
            return None
        if isinstance(point, HookPoint):
            return point.read(by_layer[layer], self._batch)
        if not isinstance(point, ComputedPoint):
            return by_layer[layer]
        weights = self._points.points[name.replace("attn_scores", "pattern")]
        if point.gradient is None or not isinstance(weights, ComputedPoint | HookPoint):
            return None
        args, kwargs = self._calls[layer]
        if isinstance(weights, HookPoint):  # the softmax returns them
            used = weights.read(self._tensor(layer), self._batch)
        else:
            used = self._written.get(weights.name, weights.compute(args, kwargs))
        return point.gradient(by_layer[layer], used.detach(), args, kwargs)

    def _tensor(self, layer: str) -> Tensor:
        assert self._activations is not None
        return self._activations[layer]

    def _value(self, name: str) -> Tensor | Lazy:
        """The tensor of a name, or what computes it."""
        if name in self._written:
            return self._written[name].detach()
        point = self._points.points.get(_held(name), name)
        if isinstance(point, str):
            return self._tensor(point)
        if isinstance(point, ComputedPoint):
            args, kwargs = self._calls[point.layer]
            used = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
            return unchanged(name, used, lambda: point.compute(args, kwargs))
        tensor, batch = self._tensor(point.layer), self._batch
        if isinstance(point, DerivedPoint):
            return unchanged(name, [tensor], lambda: point.read(tensor.detach(), batch))
        held = point.read(tensor, batch)
        if not name.endswith("attn.hook_result"):
            return held
        layer = int(name.split(".")[1])
        parameter = output_parameter(self._points, layer)
        return unchanged(name, [held, parameter], lambda: _results(held.detach(), self._points, layer))


def _results(heads: Tensor, points: HookPoints, layer: int) -> Tensor:
    """What each head of a layer writes into the stream."""
    with torch.no_grad():
        return torch.einsum("bphd,hdw->bphw", heads, output_weight(points, layer).to(heads))


def _detached(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """The arguments of a call outside of the graph of autograd."""
    return (
        tuple(one.detach() if isinstance(one, Tensor) else one for one in args),
        {key: one.detach() if isinstance(one, Tensor) else one for key, one in kwargs.items()},
    )


def _held(name: str) -> str:
    """What a point is computed from: the results of heads from their outputs."""
    return name.replace("hook_result", "hook_z") if name.endswith("attn.hook_result") else name


def _differentiable(tensor: Tensor) -> Tensor:
    """The tensor in the graph of autograd, as its first one where no weight needs a gradient."""
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_()


def unchanged(name: str, used: Sequence[Tensor], compute: Callable[[], Tensor]) -> Lazy:
    """Returns a function that computes an activation, and refuses once a tensor it uses was written into.

    Args:
        name: The name of the activation.
        used: The tensors that it is computed from.
        compute: The function.
    """
    versions = [(one, version_of(one)) for one in used]

    def checked() -> Tensor:
        if any(version_of(one) != version for one, version in versions):
            raise OverwrittenError(
                f"{name!r} is computed when it is asked for, and a tensor or weight that it needs was "
                f"changed since the pass: run the pass again, or ask for it before the change"
            )
        return compute()

    return checked


def output_parameter(points: HookPoints, layer: int) -> Tensor:
    """Returns the parameter by which a layer's heads write into the stream, as the model has it."""
    return points.graph.memory.model.get_parameter(points.outputs[layer].weight.name)


def output_weight(points: HookPoints, layer: int) -> Tensor:
    """Returns the weights (heads, head width, width) by which a layer's heads write into the stream.

    Args:
        points: The hook points.
        layer: The layer, one of ``points.outputs``.
    """
    linear = points.outputs[layer]
    weight = whole(output_parameter(points, layer))
    used = points.graph.producer(linear.operation.args[-1]) if linear.operation.function == "matmul" else None
    if linear.operation.function == "linear" or (used is not None and used.function in _TRANSPOSES):
        weight = weight.T
    return weight.unflatten(0, (points.attentions[layer].num_heads, -1))
