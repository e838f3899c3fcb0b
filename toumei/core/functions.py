"""The one interceptor of torch functions, and the one table of their names.

A function of torch has many names: `torch.relu`, `Tensor.relu`, `F.relu`, `relu_`, ``a + b``, ``a += b``.
`canonical_name` gives all of them one. `FunctionMode` hands every call to a handler. Nothing else in the
package subclasses `TorchFunctionMode` or reads the names of functions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from torch import Tensor
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from .compiled import uncompiled
from .interrupts import until_the_end

Function = Callable[..., Any]
Handler = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]

# Names of torch for the same function, without ``special_`` in front and underscores around.
_ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "expit": "sigmoid",
    "fix": "trunc",
    "gammainc": "igamma",
    "gammaincc": "igammac",
    "gammaln": "lgamma",
    "ger": "outer",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "linalg_det": "det",
    "linalg_diagonal": "diagonal",
    "linalg_householder_product": "orgqr",
    "linalg_inv": "inverse",
    "linalg_matmul": "matmul",
    "linalg_matrix_exp": "matrix_exp",
    "linalg_matrix_norm": "matrix_norm",
    "linalg_matrix_power": "matrix_power",
    "linalg_pinv": "pinverse",
    "linalg_slogdet": "slogdet",
    "linalg_vector_norm": "vector_norm",
    "logsigmoid": "log_sigmoid",
    "moveaxis": "movedim",
    "multigammaln": "mvlgamma",
    "multiply": "mul",
    "ndim": "dim",
    "ndimension": "dim",
    "negative": "neg",
    "nelement": "numel",
    "not_equal": "ne",
    "psi": "digamma",
    "row_stack": "vstack",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "trapz": "trapezoid",
    "true_divide": "div",
}
# Python's operators, without underscores around; others have the name of the function.
_OPERATORS = {
    "and": "bitwise_and",
    "bool": "is_nonzero",
    "complex": "item",
    "div": "div",
    "float": "item",
    "floordiv": "floor_divide",
    "index": "item",
    "int": "item",
    "invert": "bitwise_not",
    "long": "item",
    "lshift": "bitwise_left_shift",
    "mod": "remainder",
    "nonzero": "is_nonzero",
    "or": "bitwise_or",
    "pos": "positive",
    "rshift": "bitwise_right_shift",
    "truediv": "div",
    "xor": "bitwise_xor",
}
_BINARY = "add sub mul matmul div truediv floordiv mod pow and or xor lshift rshift"
_COMMUTATIVE = frozenset(("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor"))
# Methods in place that are no variant of the function, or property, that has their name without underscore.
_UNLIKE_THEIR_NAMESAKES = frozenset(("bernoulli_", "normal_", "requires_grad_"))


@lru_cache(maxsize=4096)
def canonical_name(function: Function | str) -> tuple[str, bool]:
    """Returns one name for a function, its methods and operators, and whether it works in place.

    An operator with its operands swapped is another function, with an ``r`` in front, unless they commute:
    ``rdiv``, ``rsub``. A property of tensors has a name too, as in ``shape``. Functions that return
    indices too, such as ``F.max_pool2d_with_indices``, have the name of those that do not.

    Args:
        function: What a `FunctionMode` or `torch.fx` calls, or the name of a method.

    Example:
        >>> import torch
        >>> canonical_name(torch.special.expit), canonical_name(torch.Tensor.__rtruediv__)
        (('sigmoid', False), ('rdiv', False))
        >>> canonical_name("__itruediv__"), canonical_name("relu_"), canonical_name("_max_pool2d")
        (('div', True), ('relu', True), ('max_pool2d', False))
    """
    name = function if isinstance(function, str) else _torch_name(function)
    if name in ("__get__", "__set__", "__delete__"):
        return _property(function, name)
    if name.startswith("__") and name.endswith("__"):
        return _operator(name[2:-2])
    if name in _UNLIKE_THEIR_NAMESAKES:
        return name, True
    plain = name.strip("_").removeprefix("special_").removesuffix("_with_indices")
    return _ALIASES.get(plain, plain), name.endswith("_")


def overwrites(function: Function, kwargs: Mapping[str, Any]) -> bool:
    """Returns whether a call overwrites its first argument, by its name or since it is told ``inplace=True``.

    Example:
        >>> import torch
        >>> overwrites(torch.relu_, {}), overwrites(torch.nn.functional.relu, {"inplace": True})
        (True, True)
    """
    return canonical_name(function)[1] or bool(kwargs.get("inplace"))


def returns_indices(function: Function, kwargs: Mapping[str, Any]) -> bool:
    """Returns whether a pooling returns the indices of what it chose as well.

    Example:
        >>> import torch
        >>> returns_indices(torch.nn.functional.max_pool2d_with_indices, {})
        True
    """
    return bool(kwargs.get("return_indices")) or _torch_name(function).endswith("_with_indices")


def tensors_among(values: Iterable[Any]) -> list[Tensor]:
    """Returns the tensors among arguments or results, also those in lists and tuples.

    Example:
        >>> import torch
        >>> tensors_among((torch.ones(1), 2, [torch.zeros(1)]))
        [tensor([1.]), tensor([0.])]
    """
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_among(value)
    return found


class FunctionMode(TorchFunctionMode):
    """Hands every call of a torch function inside the block to a handler.

    Args:
        handler: Gets the function, its positional and its keyword arguments; what it returns takes the place
            of what the function returns. Functions that it calls are not handed to it again.

    Example:
        >>> import torch
        >>> x = torch.ones(2)
        >>> with FunctionMode(lambda function, args, kwargs: -function(*args, **kwargs)):
        ...     y = x.relu()
        >>> y
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


def innermost_handler() -> Handler | None:
    """Returns the handler that gets calls first, None without one.

    Example:
        >>> innermost_handler() is None
        True
    """
    mode = _get_current_function_mode()
    return mode.handler if isinstance(mode, FunctionMode) else None


@contextmanager
def intercepted(handler: Handler) -> Iterator[None]:
    """Hands every call of a torch function inside the block to a handler, as `FunctionMode` does.

    The mode is gone after the block, also if Ctrl-C comes meanwhile. Compiled code runs as it was written.

    Example:
        >>> import torch
        >>> x = torch.ones(2)
        >>> with intercepted(lambda function, args, kwargs: -function(*args, **kwargs)):
        ...     y = x.relu()
        >>> y
        tensor([-1., -1.])
    """
    mode, heard = FunctionMode(handler), DisableTorchFunction()

    def leave() -> None:
        heard.__exit__(None, None, None)  # as before, where Ctrl-C came while a handler was not listening
        if mode.is_innermost():
            mode.__exit__(None, None, None)

    with until_the_end() as cleanup:
        cleanup.enter(uncompiled())
        cleanup.add(leave)
        with heard:  # it remembers whether functions are heard now
            pass
        mode.__enter__()
        yield


def _torch_name(function: Any) -> str:
    """The name of a function with the underscores that torch gives it, and the library that it is from."""
    name: str = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", None) or ""
    if module == "_operator":  # Python's, as `torch.fx` calls them
        return f"__{name.strip('_')}__"
    if module.startswith(("torch.foreach", "torch.distributed")):
        return f"{module.split('.')[1]}_{name}"
    if module.startswith("torch._ops."):  # an operator of the dispatcher, maybe one of its overloads
        library, name = module.removeprefix("torch._ops."), name.split(".")[0]
        return name if library in ("aten", "prims") else f"{library}_{name}"
    return name


def _property(function: Any, access: str) -> tuple[str, bool]:
    """The name of what reads, sets or deletes a property of tensors."""
    owner = getattr(function, "__self__", None)
    named = owner if hasattr(owner, "__name__") else getattr(owner, "fget", None)
    name: str = getattr(named, "__name__", "property")
    if access == "__get__":
        return _ALIASES.get(name, name), False
    return f"{access.strip('_')}_{name}", True


def _operator(name: str) -> tuple[str, bool]:
    """The name of the function of an operator, given without underscores."""
    if name[:1] in ("i", "r") and name[1:] in _BINARY.split():
        plain = _OPERATORS.get(name[1:], name[1:])
        in_place = name[0] == "i"
        return plain if in_place or plain in _COMMUTATIVE else f"r{plain}", in_place
    return _OPERATORS.get(name, name), name in ("setitem", "delitem")
