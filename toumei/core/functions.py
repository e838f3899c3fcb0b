"""The one interceptor of torch functions, and the one table of their names.

A function of torch has many names: `torch.relu`, `Tensor.relu`, `F.relu`, `relu_`, ``a + b``, ``a += b``.
`canonical_name` gives all of them one. `FunctionMode` hands every call to a handler; nothing else in the
package subclasses `TorchFunctionMode`.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch.overrides import TorchFunctionMode, _get_current_function_mode

Function = Callable[..., Any]
Handler = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]

_ALIASES = {
    "absolute": "abs",
    "clip": "clamp",
    "divide": "div",
    "float_power": "pow",
    "iadd": "add",
    "idiv": "div",
    "imul": "mul",
    "ipow": "pow",
    "isub": "sub",
    "itruediv": "div",
    "linalg_vector_norm": "vector_norm",
    "multiply": "mul",
    "radd": "add",
    "rmul": "mul",
    "rtruediv": "rdiv",
    "special_expit": "sigmoid",
    "subtract": "sub",
    "true_divide": "div",
    "truediv": "div",
}
_OPERATORS_IN_PLACE = frozenset(("__idiv__", "__imul__", "__ipow__", "__itruediv__"))


@cache
def canonical_name(function: str) -> tuple[str, bool]:
    """Returns one name for a function, its methods and operators, and whether it works in place.

    Example:
        >>> canonical_name("__itruediv__"), canonical_name("relu_"), canonical_name("_max_pool2d")
        (('div', True), ('relu', True), ('max_pool2d', False))
    """
    name = function.strip("_")
    in_place = function in _OPERATORS_IN_PLACE or (function.endswith("_") and not function.startswith("__"))
    return _ALIASES.get(name, name), in_place


class FunctionMode(TorchFunctionMode):
    """Hands every call of a torch function inside the block to a handler.

    Args:
        handler: Gets the function, its positional and its keyword arguments; what it returns takes the place
            of what the function returns. Functions that it calls are not handed to it again.

    Example:
        >>> import torch
        >>> x = torch.ones(2)
        >>> with FunctionMode(lambda function, args, kwargs: -function(*args, **kwargs)):
        ...     result = torch.relu(x)
        >>> result
        tensor([-1., -1.])
    """

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Returns what the handler returns."""
        return self.handler(func, args, kwargs or {})

    def is_innermost(self) -> bool:
        """Returns whether this is the mode that was entered last."""
        return _get_current_function_mode() is self


def replacing(replacements: Mapping[Function, Function]) -> FunctionMode:
    """Returns a block in which other functions are called in the place of some of torch's.

    Args:
        replacements: What to call, with the same arguments, by what it replaces.

    Example:
        >>> import torch
        >>> with replacing({torch.relu: torch.neg}):
        ...     torch.relu(torch.ones(2))
        tensor([-1., -1.])
    """
    return FunctionMode(lambda function, args, kwargs: replacements.get(function, function)(*args, **kwargs))
