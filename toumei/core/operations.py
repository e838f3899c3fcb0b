"""Listens to the operations of some modules, and only while one of them is the innermost module that runs."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .functions import Function, FunctionMode, canonical_name
from .targets import Target
from .threads import HomeThread


class OperationStack:
    """The modules whose operations are listened to, those that run now, and the ones inside them.

    A mode of functions is on while a module of these runs itself and off while a module inside it runs, so
    that an operation belongs to the innermost module and no other function is slowed down.
    """

    def __init__(self) -> None:
        self._stack: list[Listener | nn.Module] = []
        self._listeners: list[Listener] = []
        self._home = HomeThread()

    def listener(self, targets: Mapping[str, Target]) -> "Listener":
        """Returns what listens to one module, for operations by name."""
        self._listeners.append(Listener(self._stack, targets))
        return self._listeners[-1]

    def pause(self, module: nn.Module, *_: Any) -> None:
        """Is called before an inner module runs."""
        if not self._home.here():
            return
        if self._stack:
            _switch(self._stack[-1], False)
        self._stack.append(module)

    def resume(self, module: nn.Module, *_: Any) -> None:
        """Is called after an inner module ran, or failed, maybe before it was paused for."""
        if not self._home.here():
            return
        if self._stack and self._stack[-1] is module:
            self._stack.pop()
        if self._stack:
            _switch(self._stack[-1], True)

    def clear(self) -> None:
        """Switches off what an interrupted pass left on."""
        for _ in self._listeners:  # those that lie on top of others go first
            for listener in self._listeners:
                listener.off()
        self._stack.clear()


def _switch(running: "Listener | nn.Module", on: bool) -> None:
    if isinstance(running, Listener):
        running.on() if on else running.off()


class Listener:
    """Hands the wanted operations of one module to their targets."""

    def __init__(self, stack: "list[Listener | nn.Module]", targets: Mapping[str, Target]) -> None:
        self.ran: Counter[str] = Counter()  # what the module called in the pass
        self._stack, self._targets = stack, dict(targets)
        self._mode: FunctionMode | None = None  # while it is entered
        self._muted = False
        for target in targets.values():
            target.runs.others = self.ran

    def listening(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the forward of the module and listens to it."""
        depth = len(self._stack)
        if depth:  # the module calls itself
            _switch(self._stack[-1], False)
        self._stack.append(self)
        self.on()
        try:
            return forward(*args, **kwargs)
        finally:
            self.off()
            del self._stack[depth:]
            if depth:
                _switch(self._stack[-1], True)

    def on(self) -> None:
        """Listens from here on."""
        self._muted = False
        if self._mode is None:
            self._mode = FunctionMode(self._handle)  # before it is entered: an interrupt leaves nothing on
            self._mode.__enter__()

    def off(self) -> None:
        """Does not listen from here on; another mode that lies on top of this one stays."""
        if self._mode is not None and self._mode.is_innermost():
            self._mode.__exit__(None, None, None)
            self._mode = None
        self._muted = self._mode is not None

    def _handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._muted:
            return function(*args, **kwargs)
        name, in_place = canonical_name(function)
        target = self._targets.get(name)
        if target is None:
            output = function(*args, **kwargs)
            if _has_tensor(output):
                self.ran[name] += 1
            return output
        if target.waits() and _may_write(in_place, args, kwargs):
            # on a copy, since what the function keeps for its backward pass must not be written into later
            written, copy = args[0], args[0].clone()
            output = function(copy, *args[1:], **kwargs)
            if output is not copy:
                return self._seen(target, name, output, args, kwargs)
            return written.copy_(self._seen(target, name, output, args, kwargs))
        output = function(*args, **kwargs)
        return self._seen(target, name, output, args, kwargs) if _has_tensor(output) else output

    def _seen(self, target: Target, name: str, output: Any, args: Any, kwargs: Any) -> Any:
        self.ran[name] += 1
        return target(output, args, kwargs)


def inner_modules(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Returns the modules inside some modules, each once; those of TorchScript take no hooks."""
    inner = dict.fromkeys(inner for module in modules for inner in list(module.modules())[1:])
    return [module for module in inner if not isinstance(module, torch.jit.ScriptModule)]


def _has_tensor(output: Any) -> bool:
    if isinstance(output, Tensor):
        return True
    return isinstance(output, tuple | list) and any(isinstance(part, Tensor) for part in output)


def _may_write(in_place: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function may overwrite its first argument."""
    if not args or not isinstance(args[0], Tensor):
        return False
    return in_place or bool(kwargs.get("inplace")) or any(value is True for value in args[1:])
