"""What can be told of all modules and functions that a model runs."""

from typing import Any, Protocol

from torch import Tensor, nn

from .functions import Function


class Listener(Protocol):
    """Is told what happens in the forward passes of a model; see `toumei.core.hooks.listening`."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Is called before a pass, with the inputs of the model."""

    def end(self, output: Any) -> None:
        """Is called after a pass, with the output of the model."""

    def fail(self, error: BaseException) -> None:
        """Is called when a pass ends with an error."""

    def enter(self, module: nn.Module) -> None:
        """Is called before a module inside the model runs."""

    def leave(self, module: nn.Module, output: Any) -> None:
        """Is called after a module inside the model ran, with its output, or failed."""

    def call(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function of torch; what it returns takes the place of what the function returns."""

    def moved(self, before: Tensor, after: Tensor) -> None:
        """Is called when a tensor was copied to the device on which the next module runs."""
