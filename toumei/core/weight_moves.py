"""Tells the loading and moving of weights and inputs by accelerate from what modules compute."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .functions import Function
from .interrupts import Cleanup
from .listening import Listener
from .modules import wrap_forward


class WeightMoves:
    """Hides from a listener how accelerate loads weights before a module runs.

    An input that comes to another device is told as a move.

    Args:
        model: The model.
        cleanup: Gets the steps that end it.
    """

    def __init__(self, model: nn.Module, cleanup: Cleanup) -> None:
        self._moving = False
        for module in model.modules():
            if (name := computing_forward(module)) != "forward":
                wrap_forward(module, self._around(True), cleanup)
                wrap_forward(module, self._around(False), cleanup, attribute=name)

    def call(
        self, listener: Listener, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Calls a function, and tells the listener of it if it is part of what the model computes."""
        if not self._moving:
            return listener.call(function, args, kwargs)
        output = function(*args, **kwargs)
        before = args[0] if args else None
        if isinstance(before, Tensor) and isinstance(output, Tensor) and _are_apart(before, output):
            listener.moved(before, output)
        return output

    def _around(self, moving: bool) -> Callable[..., Any]:
        def around(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            before, self._moving = self._moving, moving
            try:
                return forward(*args, **kwargs)
            finally:
                self._moving = before

        return around


def _are_apart(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors with numbers are on different devices."""
    return first.device != second.device and not first.is_meta and not second.is_meta


def computing_forward(module: nn.Module) -> str:
    """Returns the attribute with the forward of a module that only computes, inside hooks of accelerate."""
    return "_old_forward" if {"_hf_hook", "_old_forward"} <= vars(module).keys() else "forward"
