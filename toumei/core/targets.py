"""What the engine waits for in a forward pass: runs of modules and operations, to record, edit or stop at."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from .activations import Activations, Runs
from .errors import ArchitectureError, LayerError, ShapeError
from .functions import canonical_name
from .modules import find_modules
from .names import Layer, parse_layer
from .outputs import main_tensor, with_main_tensor

Edit = Callable[[Tensor], Tensor]
_MOST_ATTEMPTS = 4  # passes until the number of runs must have settled


class Stop(BaseException):
    """Ends a forward pass after the last run that is needed; never leaves the engine.

    It is no `Exception`, so that a model which catches those lets it through.
    """


@dataclass(eq=False)
class Wanted:
    """One layer that is recorded under some names, edited, or both."""

    layer: Layer
    keys: tuple[str, ...]
    edit: Edit | None
    done: bool = False
    edited: bool = False


@dataclass(eq=False)
class Pass:
    """The forward passes of the model inside a block: where one begins and when it may end.

    Attributes:
        every: Whether names without a number mean all runs.
        stops: Whether a pass ends once everything is done.
    """

    every: bool
    stops: bool = False
    running: bool = False
    targets: list["Target"] = field(default_factory=list)
    counters: list[Counter[str]] = field(default_factory=list)

    @property
    def wanted(self) -> list[Wanted]:
        """All that is waited for."""
        return [wanted for target in self.targets for wanted in target.wanted]

    def around(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a forward pass of the model, again if it was edited before its last run was known."""
        if self.running:  # the model calls itself
            return forward(*args, **kwargs)
        for _ in range(_MOST_ATTEMPTS):
            self._begin()
            try:
                output = forward(*args, **kwargs)
            finally:
                self.running = False
            unsettled = [target for target in self.targets if target.settle()]
            if not unsettled:
                return output
            if not _replayable((args, kwargs)):
                break
        name, runs = unsettled[0].layer.source, unsettled[0].runs.count
        raise ArchitectureError(
            f"{name!r} ran {runs} times in a forward pass that cannot be begun again to edit the last run: "
            f"name the run, such as {name + '#0'!r}, or edit every run with every=True"
        )

    def check_stop(self) -> None:
        """Ends the pass if everything is done."""
        if self.stops and all(wanted.done for target in self.targets for wanted in target.wanted):
            raise Stop(self)

    def _begin(self) -> None:
        self.running = True
        for target in self.targets:
            target.begin()
        for counter in self.counters:
            counter.clear()


class Target:
    """A module, or an operation inside it, at whose runs something happens."""

    def __init__(self, module: nn.Module, layer: Layer, forward_pass: Pass) -> None:
        self.module, self.layer, self.operation = module, layer, layer.operation
        self.runs, self.wanted = Runs(), list[Wanted]()
        self._pass = forward_pass
        self._expected = 1  # runs in a pass
        forward_pass.targets.append(self)

    def add(self, wanted: Wanted, activations: Activations, detach: bool, clone: bool, inputs: bool) -> None:
        """Adds something to wait for."""
        self.wanted.append(wanted)
        self._activations, self._detach, self._clone, self._inputs = activations, detach, clone, inputs

    def begin(self) -> None:
        """Prepares for a forward pass."""
        self.runs.count = 0
        for wanted in self.wanted:
            wanted.done = False

    def settle(self) -> bool:
        """Returns whether an edit of the last run met another run in the pass that is over."""
        awaited = not self._pass.every and any(
            wanted.edit and wanted.layer.run is None for wanted in self.wanted
        )
        if not awaited or self.runs.count in (0, self._expected):
            return False
        self._expected = self.runs.count
        return True

    def edited(self, layer: Layer) -> bool:
        """Returns whether the edit of a layer has run."""
        return any(wanted.edited for wanted in self.wanted if wanted.layer == layer)

    def waits(self) -> bool:
        """Returns whether the next run is one of those that are wanted."""
        count = self.runs.count
        return any(wanted.layer.run is None or wanted.layer.run == count for wanted in self.wanted)

    def hook(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """The forward hook of a module."""
        return self(output, args or kwargs)

    def __call__(self, output: Any, given: Any) -> Any:
        """Returns the output of a run, with edits, after recording what is wanted of it."""
        number = self.runs.count
        self.runs.count += 1
        wanted = [one for one in self.wanted if one.layer.run is None or one.layer.run == number]
        for one in wanted:
            if one.edit is not None and self._is_meant(one.layer, number):
                output = self._edit(one, output)
        for one in wanted:
            if one.keys:
                output = self._record(one, output, given)
            one.done = True
        self._pass.check_stop()
        return output

    def _is_meant(self, layer: Layer, number: int) -> bool:
        if layer.run is not None or self._pass.every or not self._pass.running:
            return True
        return number == self._expected - 1

    def _edit(self, wanted: Wanted, output: Any) -> Any:
        part = wanted.layer.part
        tensor = main_tensor(output, part)
        assert wanted.edit is not None
        edited = wanted.edit(tensor.clone())
        if not isinstance(edited, Tensor) or edited.shape != tensor.shape:
            got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise ShapeError(
                f"the edit of layer {str(wanted.layer)!r} must return {tuple(tensor.shape)}, got {got}"
            )
        wanted.edited = True
        return with_main_tensor(output, edited, part)

    def _record(self, wanted: Wanted, output: Any, given: Any) -> Any:
        part = wanted.layer.part
        tensor = main_tensor(given if self._inputs else output, part)
        shown = tensor.detach() if self._detach else tensor
        for key in wanted.keys:
            self._activations._add(key, shown, self._pass.every)
        if self._clone and not self._inputs:
            return with_main_tensor(output, tensor.clone(), part)
        return output


def resolve(model: nn.Module, names: Iterable[str]) -> dict[str, Layer]:
    """Returns the layers that names mean, whose modules the model has.

    Modules whose names have characters of the grammar, such as ``a/b``, come before what else the name may
    mean. Functions of torch are found by each of their names.

    Raises:
        LayerError: A module that the model does not have, or a list of modules, which never runs.
        UnitError: A name that cannot be read.
    """
    names = list(names)
    odd: list[str] = []
    if any(_SPECIAL.intersection(str(name)) for name in names):
        known = (name for name, _ in model.named_modules(remove_duplicate=False))
        odd = sorted((name for name in known if _SPECIAL.intersection(name)), key=len, reverse=True)
    layers = {name: _layer(name, odd) for name in names}
    for name, module in find_modules(model, [layer.module for layer in layers.values()]).items():
        if name and type(module).forward is nn.Module.forward and "forward" not in vars(module):
            inner = ", ".join(f"{name}.{child}" for child, _ in module.named_children()) or "none"
            raise LayerError(
                f"layer {name!r} is a {type(module).__name__}, which holds modules and never runs: name one "
                f"of them, {inner}"
            )
    return layers


_SPECIAL = frozenset("/#[]:")


def _layer(name: str, odd: Iterable[str]) -> Layer:
    for module in odd:
        if isinstance(name, str) and name.startswith(module) and name[len(module) :][:1] in ("", *"/#["):
            return replace(parse_layer(name[len(module) :]), module=module)
    layer = parse_layer(name)
    if layer.operation is None:
        return layer
    return replace(layer, operation=canonical_name(layer.operation)[0])


def _replayable(value: Any) -> bool:
    """Whether a pass may be begun again with these inputs: nothing in them, such as a cache, remembers it."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_replayable, value.values()))
    if isinstance(value, tuple | list):
        return all(map(_replayable, value))
    return value is None or isinstance(value, Tensor | bool | int | float | str)
