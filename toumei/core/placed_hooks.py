"""What a block puts up in a model: where hooks stand, what they record and edit, and how they go again."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .activations import Activations, not_reached
from .errors import ArgumentError, UnreachedLayerError
from .interrupts import Cleanup, uninterrupted
from .kinds import as_names, shown
from .modules import check_model, eager, layer_name, without_wrapper, wrap_forward
from .operations import OperationStack, inner_modules
from .passes import Pass
from .targets import CallEdit, Edit, Place, Target, find_places
from .threads import begin_alone
from .weight_moves import computing_forward


class PlacedHooks:
    """What `hooked` puts up: the forward pass that it watches, and what is recorded and edited in it."""

    def __init__(
        self,
        model: nn.Module,
        record: Iterable[str] | Mapping[str, str],
        edit: Mapping[str, Edit] | None = None,
        *,
        stop: bool,
        **options: Any,
    ) -> None:
        check_model(model)
        self.given, self.model = model, without_wrapper(model)
        names, self.edits = _names(record, self.model), _edits(edit)
        self.places = find_places(self.model, [*names.values(), *self.edits])
        activations = Activations({key: self.places[name].layer for key, name in names.items()})
        stops = stop and all(place.layer.run is not None for place in self.places.values())
        self.forward_pass = Pass(model=self.model, activations=activations, stops=stops, **options)
        self.targets = _targets(self.places, self.forward_pass)
        for key, name in names.items():
            self.targets[name].want(self.places[name].layer).keys.append(key)
        for name, function in self.edits.items():
            self.targets[name].want(self.places[name].layer).edit = function
        activations.count({name: self.targets[name].runs for name in self.edits})
        activations.count({key: self.targets[name].runs for key, name in names.items()})

    def install(self, cleanup: Cleanup) -> None:
        """Registers the hooks until the steps of a `Cleanup` are taken."""
        begin_alone(self.model, cleanup)
        with uninterrupted():
            cleanup.enter(eager(self.given, [place.layer.module for place in self.places.values()]))
            _install(self.model, dict.fromkeys(self.targets.values()), self.forward_pass, cleanup)

    def check_edits(self) -> None:
        """Fails if an edit was not reached."""
        for name in self.edits:
            layer, target = self.places[name].layer, self.targets[name]
            if not target.edited(layer):
                raise UnreachedLayerError(not_reached(layer, target.runs))


def remove(handles: Iterable[RemovableHandle]) -> None:
    """Takes hooks away."""
    for handle in handles:
        handle.remove()


def _names(record: Iterable[str] | Mapping[str, str], model: nn.Module) -> dict[str, str]:
    """What is recorded, by the keys of the activations; modules of the model by their names."""
    if isinstance(record, str):
        raise ArgumentError(
            f"expected an iterable of names to record, got the string {record!r}: give [{record!r}]"
        )
    if isinstance(record, Mapping):
        return dict(record)
    if not isinstance(record, Iterable) or isinstance(record, nn.Module | Tensor):
        raise ArgumentError(f"expected an iterable of names to record, got {shown(record)}")
    return {name: name for name in as_names([layer_name(model, name) for name in record])}


def _edits(edit: Mapping[str, Edit] | None) -> dict[str, Edit]:
    if edit is not None and not isinstance(edit, Mapping):
        raise ArgumentError(f"expected a dictionary of edits by the names of layers, got {shown(edit)}")
    edits: dict[str, Any] = dict(edit or {})
    for name, function in edits.items():
        if not callable(function) and not isinstance(function, CallEdit):
            kind = type(function).__name__
            raise ArgumentError(f"expected a function of a tensor as the edit of {name!r}, got {kind}")
    return edits


def _targets(places: Mapping[str, Place], forward_pass: Pass) -> dict[str, Target]:
    """The targets by name; all layers that name the same module or operation have one."""
    made: dict[tuple[nn.Module, str | None], Target] = {}
    found = {}
    for name, (layer, module) in places.items():
        place = (module, layer.operation)
        if place not in made:
            made[place] = Target(module, layer, forward_pass)
        found[name] = made[place]
    return found


def _install(model: nn.Module, targets: Collection[Target], forward_pass: Pass, cleanup: Cleanup) -> None:
    """Registers all hooks, and adds the steps that take them away."""
    operations: dict[nn.Module, dict[str, Target]] = {}
    handles: list[RemovableHandle] = []
    cleanup.add(lambda: remove(handles))
    for target in targets:
        if target.operation is None:
            handles.append(target.module.register_forward_hook(target.hook, with_kwargs=True))
        else:
            operations.setdefault(target.module, {})[target.operation] = target
    if operations:
        listening = OperationStack()
        cleanup.add(listening.clear)
        for module, named in operations.items():
            listener = listening.listener(named)
            forward_pass.counters.append(listener.ran)
            wrap_forward(
                module, listener.listening, cleanup, innermost=True, attribute=computing_forward(module)
            )
        for module in inner_modules(operations):
            handles.append(module.register_forward_pre_hook(listening.pause))
            handles.append(module.register_forward_hook(listening.resume, always_call=True))
    if targets:
        wrap_forward(model, forward_pass.around, cleanup)
        cleanup.add(forward_pass.close)
        forward_pass.open()
