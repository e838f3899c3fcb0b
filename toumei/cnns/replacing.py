"""Other functions in the place of torch's, however a network calls them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


class Replacing(TorchFunctionMode):
    """Calls other functions in the place of some of torch's, from modules, functions and methods alike.

    Args:
        replacements: What to call, with the same arguments, by what it replaces.

    Example:
        >>> import torch
        >>> with Replacing({torch.relu: torch.neg}):
        ...     torch.relu(torch.ones(2))
        tensor([-1., -1.])
    """

    def __init__(self, replacements: Mapping[Function, Function]) -> None:
        super().__init__()
        self.replacements = replacements

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Returns what the function returns, or the one in its place."""
        return self.replacements.get(func, func)(*args, **(kwargs or {}))
