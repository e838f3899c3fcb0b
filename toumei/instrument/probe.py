"""Instruments a model: a probe tracks the operations and tensors of its forward passes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.activations import Activations
from ..core.blocks import block
from ..core.checks import checked, layer_names
from ..core.devices import as_device
from ..core.errors import ArgumentError, LayerError, TrackingError
from ..core.hooks import hooked, listening
from ..core.interrupts import until_the_end
from ..core.modules import check_model, without_wrapper, wrapped_forward
from ..core.summaries import counted, listed
from ..core.targets import CallEdit, Edit
from .attention_weights import AttentionWeights
from .graph import OperationGraph, name_filter
from .nodes import Operation, TensorNode
from .recorder import Recorder
from .tensors import TensorFiles, TensorMap
from .values import moved

Predicate = Callable[[TensorNode], bool]
Only = Iterable["str | TensorNode | Operation | Predicate"] | str | Predicate | None


@block
@checked
def instrument(model: nn.Module) -> Iterator["Probe"]:
    """Yields a probe that tracks forward passes of a model.

    The model is left as it is: hooks are on it only while something is tracked, so that the probe can track
    after the block, too. The output of the model is that of the
    plain pass bit for bit. One thing is PyTorch's: `nn.TransformerEncoderLayer` and `nn.MultiheadAttention`
    leave their fused path, as they do under any hook, so that their outputs are those of
    ``torch.backends.mha.set_fastpath_enabled(False)``. Compiled parts run as they were written.

    Args:
        model: Any module.

    Raises:
        ArgumentError: It is no `nn.Module`.
        ArchitectureError: Hooks do not run inside the model, as in scripted ones.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> tracker.build_map()
        TensorMap(2 tensors: 0/linear#0, 1/relu#0)
    """
    yield Probe(model)


class Probe:
    """Tracks forward passes of a model; see `instrument`.

    Attributes:
        model: The model.

    Example:
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> len(tracker.build_graph())
        2
    """

    def __init__(self, model: nn.Module) -> None:
        check_model(model)
        self.model = model
        self._tracking = False

    def __repr__(self) -> str:
        return f"Probe({type(self.model).__name__})"

    @block
    @checked
    def track(
        self,
        only: Only = None,
        *,
        batched: bool = False,
        device: str | torch.device | None = None,
        folder: str | Path | None = None,
    ) -> Iterator["Tracker"]:
        """Yields a tracker of the forward passes in the block.

        Args:
            only: Which tensors are kept. None keeps the results of all operations, an empty list none of
                them. Names are those of the engine: operations, modules, runs, parts; nodes of a graph stand
                for their names. Patterns with ``*`` or ``?``, such as ``h.*.attn/softmax``, and functions of
                a `TensorNode` choose among the results of operations. Where all are names, the other
                operations are not looked at, and there is no graph.
            batched: Whether several passes may run. By default a second one is an error.
            device: Where kept tensors go, by default they stay where they are.
            folder: A folder for the tensors, as ``.safetensors``. Those of each pass are written after it;
                then none of them stay in memory.

        Raises:
            TrackingError: The probe tracks already.
            LayerError: A name of a module that the model does not have.
        """
        if self._tracking:
            raise TrackingError(f"the {type(self.model).__name__} is tracked already: end that block first")
        tracker = Tracker(self.model, _Choice(layer_names(self.model, only)), batched, device, folder)
        with until_the_end() as cleanup:
            cleanup.add(self._end_tracking)
            self._tracking = True
            with tracker._passes():
                yield tracker

    def _end_tracking(self) -> None:
        self._tracking = False


class _Choice:
    """Which tensors are kept."""

    def __init__(self, only: Only) -> None:
        self.everything = only is None
        if isinstance(only, str) or callable(only):
            only = [only]
        chosen: list[Any] = [] if only is None else list(only)
        self.names: list[str] = []
        self.weights: dict[str, AttentionWeights] = {}
        self.filters: dict[str, Predicate] = {}
        for one in chosen:
            if isinstance(one, AttentionWeights):
                self.weights[one.name] = one
            elif isinstance(one, TensorNode | Operation | str):
                name = one if isinstance(one, str) else one.name
                if "*" in name or "?" in name or "@" in name:
                    self.filters[name] = _named(name)
                else:
                    self.names.append(name)
            elif callable(one):
                self.filters[getattr(one, "__name__", repr(one))] = one
            else:
                raise ArgumentError(
                    f"expected names, patterns, nodes of a graph or functions of a TensorNode in only=, got "
                    f"{type(one).__name__}"
                )
        self.by_name = bool(self.names or self.weights) and not self.filters
        if self.filters:
            self.filters |= {name: _named(name) for name in self.names}

    def __call__(self, node: TensorNode) -> bool:
        return self.everything or any(fits(node) for fits in self.filters.values())


def _named(name: str) -> Predicate:
    fits = name_filter(name)
    return lambda node: fits(node.name)


class Tracker:
    """What was tracked of forward passes; `Probe.track` makes it.

    Example:
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track(["0"]) as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> tracker.build_map()["0"].shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        choice: _Choice,
        batched: bool,
        device: str | torch.device | None,
        folder: str | Path | None,
    ) -> None:
        self._model, self._choice, self._batched = model, choice, batched
        self._device = None if device is None else as_device(device)
        self._kept: Any = [] if folder is None else TensorFiles(folder)
        self._recorder: Recorder | None = None
        self._begun = 0

    def __repr__(self) -> str:
        return f"Tracker({type(self._model).__name__}, {counted(self._begun, 'pass')})"

    def build_graph(self) -> OperationGraph:
        """Returns the graph of the last forward pass; where it failed, up to there.

        Raises:
            TrackingError: No forward pass ran, or only named tensors were tracked.
        """
        self._check_begun()
        if self._recorder is None:
            raise TrackingError(
                "only named tensors were tracked, and no graph: use track(), or track(only=[]) to keep none"
            )
        return self._recorder.graph()

    def build_map(self) -> TensorMap:
        """Returns the tensors that were kept.

        Raises:
            TrackingError: No forward pass ran.
            LayerError: A pattern that fits no operation that ran.
        """
        self._check_begun()
        kept = TensorMap(list(self._kept), self._batched)
        if self._recorder is not None and self._recorder.done:
            tensors = [node for node in self._recorder.graph().tensors.values() if node.producer is not None]
            for name, fits in self._choice.filters.items():
                if not any(map(fits, tensors)):
                    ran = listed((node.name for node in tensors), 8)
                    raise LayerError(f"{name!r} fits no tensor of the pass: it had {ran}")
        return kept

    @contextmanager
    def _passes(self) -> Iterator[None]:
        """Tracks the passes in the block."""
        if not self._choice.by_name:
            with listening(self._model, _Listener(self)):
                yield
            return
        derived: dict[str, Tensor] = {}
        edits = _storing(self._choice.weights.values(), derived)
        inner = without_wrapper(self._model)
        with (
            hooked(self._model, self._choice.names, edits, detach=True) as activations,
            wrapped_forward(inner, self._around(activations, derived)),
        ):
            yield

    def _around(self, activations: Activations, derived: dict[str, Tensor]) -> Callable[..., Any]:
        nothing = activations.state()

        def around(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self._begin()
            activations.reset(nothing)
            derived.clear()
            try:
                output = forward(*args, **kwargs)
            except BaseException:
                if not self._batched:  # where half a pass would be taken for one of several whole ones
                    self._keep(self._moved({name: activations[name] for name in activations} | derived))
                raise
            self._keep(self._moved({name: activations[name] for name in self._choice.names} | derived))
            return output

        return around

    def _moved(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            kept[name] = moved(tensor, self._device, kept)
        return kept

    def _begin(self) -> None:
        if self._begun and not self._batched:
            raise TrackingError(
                f"a forward pass of the {type(self._model).__name__} was tracked already: use "
                f"track(batched=True) for several"
            )
        self._begun += 1

    def _keep(self, tensors: Mapping[str, Tensor]) -> None:
        self._kept.append(tensors)

    def _check_begun(self) -> None:
        if not self._begun:
            raise TrackingError(
                f"no forward pass of the {type(self._model).__name__} ran in the block: call the model itself"
            )


def _storing(weights: Iterable[AttentionWeights], derived: dict[str, Tensor]) -> dict[str, Edit]:
    """Edits that change nothing and store the attention weights of their calls."""

    def edit(node: AttentionWeights) -> CallEdit:
        def store(tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            derived[node.name] = node.of_call(args, kwargs)
            return tensor

        return CallEdit(store)

    return {str(node.producer): edit(node) for node in weights}


class _Listener:
    """Begins a recorder for each pass."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._recorder: Recorder | None = None  # of the pass that runs

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tracker = self._tracker
        tracker._begin()
        choice = tracker._choice
        recorder = Recorder(without_wrapper(tracker._model), choice, tracker._device, choice.weights.values())
        self._recorder = tracker._recorder = recorder
        self.enter, self.leave, self.call = recorder.enter, recorder.leave, recorder.call
        self.moved = recorder.moved
        recorder.begin(args, kwargs)

    def end(self, output: Any) -> None:
        recorder, self._recorder = self._recorder, None
        assert recorder is not None
        recorder.end(output)
        self._tracker._keep(recorder.values.results)

    def fail(self, error: BaseException) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:  # the pass had not begun, or was over
            return
        recorder.fail(error)
        if not self._tracker._batched:  # where half a pass would be taken for one of several whole ones
            self._tracker._keep(recorder.values.results)
