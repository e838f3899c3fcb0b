"""Forward passes inside a block: where one begins, when it may end, and how one is begun again."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import local
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .activations import Activations, Runs
from .errors import ArchitectureError
from .functions import tensors_among
from .generators import rewinding
from .modules import device_and_dtype
from .names import Layer
from .threads import HomeThread

_MOST_ATTEMPTS = 4  # passes until the number of runs must have settled


class Stop(BaseException):
    """Ends a forward pass after the last run that is needed; never leaves the engine.

    It is no `Exception`, so that a model which catches those lets it through.
    """


class Awaited(Protocol):
    """What a pass waits for at one module or operation."""

    layer: Layer
    runs: Runs

    @property
    def done(self) -> bool:
        """Whether nothing more can come in this pass."""

    @property
    def edits_last(self) -> bool:
        """Whether the last run is edited, which is known only after the pass."""

    def begin(self) -> None:
        """Prepares for a forward pass."""

    def settle(self) -> bool:
        """Returns whether an edit of the last run met another run in the pass that is over."""

    def state(self) -> Any:
        """Returns what `reset` goes back to."""

    def reset(self, state: Any) -> None:
        """Forgets what happened since."""


class _Open(local):
    def __init__(self) -> None:
        self.passes: list[Pass] = []


_open = _Open()


@dataclass(eq=False)
class Pass:
    """The forward passes of a model inside a block.

    Attributes:
        model: The model.
        activations: What is recorded.
        every: Whether names without a number mean all runs.
        detach: Whether recorded tensors are cut off the graph.
        clone: Whether the layers that follow get a copy of a recorded tensor.
        inputs: Whether what goes into layers is recorded, not what comes out.
        stops: Whether a pass ends once everything is done.
        running: Whether the model runs now.
        paused: Whether forward passes do not count now.
        targets: What is waited for.
        counters: What ran in the modules whose operations are named.
        home: The thread whose forward passes count.
    """

    model: nn.Module
    activations: Activations
    every: bool
    detach: bool
    clone: bool
    inputs: bool
    stops: bool
    running: bool = False
    paused: bool = False
    targets: list[Awaited] = field(default_factory=list)
    counters: list[Counter[str]] = field(default_factory=list)
    home: HomeThread = field(default_factory=HomeThread)

    def open(self) -> None:
        """Lets passes that are begun again reset this one, too."""
        _open.passes.append(self)

    def close(self) -> None:
        """Ends what `open` began."""
        if self in _open.passes:
            _open.passes.remove(self)
        self.targets.clear()  # they refer to this pass: without the circle its tensors are freed at once

    def around(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a forward pass of the model, again if it was edited before its last run was known."""
        if self.running or self.paused:  # the model calls itself, or nobody asks
            return forward(*args, **kwargs)
        again = any(target.edits_last for target in self.targets)
        for _ in range(_MOST_ATTEMPTS):
            before = _Before(self.model, args, kwargs) if again else None
            self._begin()
            try:
                output = forward(*args, **kwargs)
            finally:
                self.running = False
            unsettled = [target for target in self.targets if target.settle()] if again else []
            if not unsettled:
                return output
            if before is None or not before.restored():
                break
        name, runs = unsettled[0].layer.source, unsettled[0].runs.count
        raise ArchitectureError(
            f"{name!r} ran {runs} times in a forward pass that cannot be begun again to edit the last run: "
            f"name the run, such as {name + '#0'!r}, or edit every run with every=True"
        )

    def check_stop(self) -> None:
        """Ends the pass if everything is done."""
        if self.stops and all(target.done for target in self.targets):
            raise Stop(self)

    def state(self) -> Any:
        """Returns what `reset` goes back to."""
        return (
            self.activations.state(),
            [target.state() for target in self.targets],
            list(map(Counter, self.counters)),
        )

    def reset(self, state: Any) -> None:
        """Forgets what happened since."""
        activations, targets, counters = state
        self.activations.reset(activations)
        for target, one in zip(self.targets, targets, strict=True):
            target.reset(one)
        for counter, counts in zip(self.counters, counters, strict=True):
            counter.clear()
            counter.update(counts)

    def _begin(self) -> None:
        self.running = True
        for target in self.targets:
            target.begin()
        for counter in self.counters:
            counter.clear()


class _Before:
    """What a forward pass may change, as it was before, so that a pass that is begun again is the first one.

    It is what other blocks recorded, the generators of random numbers, the buffers of modules in training
    mode, and the inputs, which are not given back: where they changed, the pass cannot be begun again.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._plain = _replayable((args, kwargs))
        self._inputs = [(one, one.detach().clone()) for one in tensors_among((*args, *kwargs.values()))]
        self._passes = [(one, one.state()) for one in _open.passes]
        self._rewind = rewinding(device_and_dtype(model)[0])
        training = (module for module in model.modules() if module.training)
        self._buffers = [(one, one.clone()) for module in training for one in module.buffers(recurse=False)]

    def restored(self) -> bool:
        """Goes back, unless the inputs are not as they were; returns whether it did."""
        if not self._plain or not all(_same(one, value) for one, value in self._inputs):
            return False
        for one, state in self._passes:
            one.reset(state)
        self._rewind()
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        return True


def _same(one: Tensor, other: Tensor) -> bool:
    both_nan = one.isnan() & other.isnan()
    return bool(((one == other) | both_nan).all())


def _replayable(value: Any) -> bool:
    """Whether a pass may be begun again with these inputs: nothing in them, such as a cache, remembers it."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_replayable, value.values()))
    if isinstance(value, tuple | list):
        return all(map(_replayable, value))
    return value is None or isinstance(value, Tensor | bool | int | float | str)
