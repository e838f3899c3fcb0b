"""The engine: records, edits and stops at the modules of any model while a `with` block lasts.

All names are found before the first hook is registered, and every hook is gone after the block, however it
ends. Nothing else in the package registers a hook.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .errors import ArgumentError, LayerError, OverwrittenError, ShapeError, UnreachedLayerError
from .modules import find_modules
from .outputs import main_tensor, with_main_tensor

Edit = Callable[[Tensor], Tensor]


class _Stop(Exception):
    """Ends a forward pass behind the last module that is needed; never leaves this file."""


class Activations(Mapping[str, Tensor]):
    """The main tensors that recorded modules returned, by layer name.

    `activations[name]` is the output of the module's last call; `calls(name)` has all of them when they were
    recorded with ``every=True``, else the last. Iterating goes over the layers that were reached.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._calls: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in names}

    def calls(self, name: str) -> list[Tensor]:
        """Returns the recorded outputs of a layer in the order of its calls.

        Raises:
            LayerError: The layer is not being recorded.
            UnreachedLayerError: It is, but the forward pass never ran it.
            OverwrittenError: An operation wrote into the recorded tensor afterwards.
        """
        if name not in self._calls:
            raise LayerError(
                f"layer {name!r} is not recorded: recorded are {', '.join(self._calls) or 'no layers'}"
            )
        if not self._calls[name]:
            raise UnreachedLayerError(f"layer {name!r} is recorded, but the forward pass never reached it")
        for tensor, version in self._calls[name]:
            if _version(tensor) != version:
                raise OverwrittenError(
                    f"the output of layer {name!r} was overwritten in place by a later operation: "
                    f"record it with clone=True"
                )
        return [tensor for tensor, _ in self._calls[name]]

    def reached(self, name: str) -> bool:
        """Returns whether the layer is recorded and a forward pass ran it."""
        return bool(self._calls.get(name))

    def __getitem__(self, name: str) -> Tensor:
        return self.calls(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, calls in self._calls.items() if calls)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.reached(name)

    def __repr__(self) -> str:
        return f"Activations({', '.join(f'{name}: {tuple(self[name].shape)}' for name in self)})"

    def _add(self, name: str, tensor: Tensor, every: bool) -> None:
        if not every:
            self._calls[name].clear()
        self._calls[name].append((tensor, _version(tensor)))


@contextmanager
def hooked(
    model: nn.Module,
    record: Iterable[str] = (),
    edit: Mapping[str, Edit] | None = None,
    *,
    stop: bool | Mapping[str, int] = False,
    detach: bool = False,
    clone: bool = True,
    every: bool = False,
    inputs: bool = False,
) -> Iterator[Activations]:
    """Yields the activations that are recorded, and edits others, in the forward passes inside the block.

    Args:
        model: Any module.
        record: Names of the layers to record. The empty name is the model itself.
        edit: A function for each layer to edit, from its main tensor to another one of the same shape. It
            gets a copy, so it may write in place. A recording of the same layer sees the edited tensor.
        stop: End the forward pass as soon as every recorded and edited layer has run once, and with it the
            block, silently. For layers that run several times in a pass give the number of runs to wait
            for, as ``{name: runs}``; layers that are not named there count once.
        detach: Cut the recorded tensors off the graph.
        clone: Hand the layers that follow a copy of a recorded tensor, so that a later operation in place (a
            ReLU, say) cannot overwrite it. Gradients flow through the recorded tensor all the same. Without
            it recording costs nothing, and reading an overwritten tensor raises an error (but not under
            `torch.inference_mode`, where torch does not notice).
        every: Keep the outputs of all calls of a module, not only of the last.
        inputs: Record the main tensor that a layer is given as it stands after the call, not what it returns.

    Raises:
        LayerError: A name that the model does not have; no hook has been registered then.
        ShapeError: An edit returned a tensor of another shape.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with hooked(model, record=["1"], edit={"0": torch.abs}) as activations:
        ...     output = model(torch.ones(1, 3))
        >>> activations
        Activations(1: (1, 4))
    """
    record, edit = tuple(dict.fromkeys(record)), dict(edit or {})
    modules = find_modules(model, (*record, *edit))
    activations = Activations(record)
    watches: dict[nn.Module, _Watch] = {}
    pending = _Pending(stop, modules)
    for name, module in modules.items():
        watch = watches.setdefault(module, _Watch(activations, pending, detach, clone, every, inputs))
        watch.names.append(name)
        watch.edits.extend([edit[name]] if name in edit else [])
    with ExitStack() as stack:
        for module, watch in watches.items():
            stack.callback(module.register_forward_hook(watch).remove)
        try:
            yield activations
        except _Stop as signal:
            if signal.args[0] is not pending:  # an outer block asked for it
                raise


def run(model: nn.Module, *inputs: Any, record: Iterable[str], **options: Any) -> Activations:
    """Returns the activations of one forward pass, which ends behind the last recorded layer.

    Args:
        model: Any module.
        *inputs: Its positional inputs.
        record: Names of the layers to record.
        **options: The other arguments of `hooked`.

    Raises:
        LayerError: A name that the model does not have.

    Example:
        >>> import torch
        >>> run(nn.Sequential(nn.ReLU(), nn.Flatten()), -torch.ones(1, 2), record=["0"])["0"]
        tensor([[0., 0.]])
    """
    with hooked(model, record, **{"stop": True, **options}) as activations:
        model(*inputs)
    return activations


def _version(tensor: Tensor) -> int:
    """How often a tensor was written into; in inference mode torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


class _Pending:
    """Counts down the runs that a stopping pass still has to wait for."""

    def __init__(self, stop: bool | Mapping[str, int], modules: Mapping[str, nn.Module]) -> None:
        self.stops = stop is not False
        wanted = dict(stop) if isinstance(stop, Mapping) else {}
        if strangers := [name for name in wanted if name not in modules]:
            raise ArgumentError(
                f"stop counts the runs of {strangers[0]!r}, which is neither recorded nor edited"
            )
        self._left: dict[nn.Module, int] = {}
        for name, module in modules.items():
            self._left[module] = max(wanted.get(name, 1), self._left.get(module, 1))

    def over(self, module: nn.Module) -> bool:
        """Counts a run of the module and says whether it was the last one needed."""
        if not self.stops:
            return False
        self._left[module] -= 1
        return all(left <= 0 for left in self._left.values())


@dataclass(eq=False)
class _Watch:
    """The one forward hook of a module: edits its output, records it, and may end the pass."""

    activations: Activations
    pending: _Pending
    detach: bool
    clone: bool
    every: bool
    inputs: bool
    names: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        tensor = original = main_tensor(output)
        for function in self.edits:
            tensor = self._edited(function, tensor)
        recorded = [name for name in self.names if name in self.activations._calls]
        for name in recorded:
            shown = main_tensor(args) if self.inputs else tensor
            self.activations._add(name, shown.detach() if self.detach else shown, self.every)
        if self.pending.over(module):
            raise _Stop(self.pending)
        if recorded and self.clone and not self.inputs:
            tensor = tensor.clone()
        return output if tensor is original else with_main_tensor(output, tensor)

    def _edited(self, function: Edit, tensor: Tensor) -> Tensor:
        edited = function(tensor.clone())
        if not isinstance(edited, Tensor) or edited.shape != tensor.shape:
            got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise ShapeError(
                f"the edit of layer {self.names[0]!r} must return {tuple(tensor.shape)}, got {got}"
            )
        return edited
