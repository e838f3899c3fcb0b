"""A hash of the whole content of an object: of its class and attributes, of tensors, and of code."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from .errors import ArgumentError
from .fingerprint import bits_of

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_NAMED = (type, BuiltinFunctionType, ModuleType)


def content_hash(given: Any) -> str:
    """Returns a hash that is the same for equal content, in each process, and another for other content.

    Tensors and arrays count with their numbers, functions as `function_parts` says, other objects with what
    pickle would keep of them, classes with their names.

    Args:
        given: Anything that pickle takes, functions of any kind, and what holds them.

    Raises:
        ArgumentError: Its content cannot be read, such as that of an open file.

    Example:
        >>> import torch
        >>> content_hash([1, torch.zeros(2)]) == content_hash([1, torch.zeros(2)])
        True
        >>> content_hash(lambda x: x + 1) == content_hash(lambda x: x + 2)
        False
    """
    try:
        return _Reader().read(given)
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        kind = type(given).__name__
        raise ArgumentError(f"the content of {kind} {repr(given)[:60]} cannot be read: {error}") from error


def function_parts(function: Any) -> dict[str, str]:
    """Returns hashes of all that the results of a function may depend on beside its argument, by name.

    These are its code, its defaults, the variables that it encloses and the global ones that it names; of an
    object that is called the attributes and the code of its class. An object may say instead what counts of
    it, in its attribute ``sweep_content``.

    Raises:
        ArgumentError: Some content cannot be read.

    Example:
        >>> factor = 3
        >>> list(function_parts(lambda x: factor * x))
        ['code', 'defaults', 'global factor']
    """
    if isinstance(function, FunctionType):
        parts = {name: content_hash(part) for name, part in _parts_of(function)}
        named = {name: function.__globals__[name] for name in _globals_of(function)}
        return parts | {
            f"global {name}": content_hash(part) for name, part in named.items() if _readable(part)
        }
    if isinstance(function, partial):
        inner = {f"function {name}": part for name, part in function_parts(function.func).items()}
        return {**inner, "arguments": content_hash((function.args, function.keywords))}
    if isinstance(function, MethodType):
        inner = {f"object {name}": part for name, part in function_parts(function.__self__).items()}
        return {**function_parts(function.__func__), **inner}
    attributes = getattr(function, "__dict__", None)
    if attributes is None or isinstance(function, _NAMED) or hasattr(function, "sweep_content"):
        return {"code": content_hash(function)}
    called = next(
        (vars(kind)["__call__"] for kind in type(function).__mro__ if "__call__" in vars(kind)), None
    )
    names = {name: content_hash(value) for name, value in attributes.items()}
    return {"code": content_hash((type(function), called)), **names}


class _Reader:
    """Reads objects; one that is met again is not read again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, str]] = {}

    def read(self, given: Any) -> str:
        """Returns the hash of an object."""
        if isinstance(given, _PLAIN):
            return _hash([type(given).__name__, repr(given)])
        if id(given) in self._known:
            return self._known[id(given)][1]
        self._known[id(given)] = given, "inside itself"
        digest = _hash([type(given).__qualname__, *self._lines(given)])
        self._known[id(given)] = given, digest
        return digest

    def _lines(self, given: Any) -> Iterator[str]:
        if isinstance(given, Tensor):
            yield f"{given.dtype} {tuple(given.shape)} {given.requires_grad} {bits_of(given)}"
        elif isinstance(given, np.ndarray) and not given.dtype.hasobject:
            yield f"{given.dtype} {given.shape}"
            yield hashlib.sha256(np.ascontiguousarray(given).tobytes()).hexdigest()
        elif isinstance(given, _NAMED):
            yield f"{getattr(given, '__module__', '')} {getattr(given, '__qualname__', given.__name__)}"
        elif isinstance(given, (set, frozenset)):
            yield from sorted(map(self.read, given))
        elif isinstance(given, FunctionType):
            yield from map(self.read, (item for part in _parts_of(given) for item in part))
        elif isinstance(given, CodeType):
            yield from map(self.read, (given.co_code, given.co_consts, given.co_names, given.co_varnames))
        elif hasattr(given, "sweep_content"):
            yield self.read(given.sweep_content)
        else:
            yield from map(self.read, _reduced(given))


def _reduced(given: Any) -> Iterable[Any]:
    """What an object is made of."""
    if type(given) in (list, tuple):
        parts: Iterable[Any] = given
        return parts
    if type(given) is dict:
        return [part for pair in given.items() for part in pair]
    reduced = given.__reduce_ex__(4)
    if isinstance(reduced, str):
        return [reduced]
    made, args, state, items, pairs = [*reduced, *[None] * 5][:5]
    return [made, args, state, list(items or ()), list(pairs or ())]


def _parts_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    yield "code", code
    yield "defaults", (function.__defaults__, function.__kwdefaults__)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name, _held(cell)


def _globals_of(function: FunctionType) -> list[str]:
    """The global variables that a function reads, and those of the functions of its module that it calls."""
    found: dict[str, None] = {}
    ahead = [function.__code__]
    while ahead:
        for name in _names_in(ahead.pop()):
            if name in function.__globals__ and name not in found:
                found[name] = None
                value = function.__globals__[name]
                if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
                    ahead.append(value.__code__)
    return list(found)


def _names_in(code: CodeType) -> list[str]:
    """The names that code reads, with those of functions inside it."""
    inner = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names_in(one)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _readable(part: Any) -> bool:
    """Whether a global variable counts; one that cannot be read, such as a logger, does not."""
    try:
        content_hash(part)
    except ArgumentError:
        return False
    return True


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
