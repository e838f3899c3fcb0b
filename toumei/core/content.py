"""A hash of the whole content of an object: of its class and attributes, of tensors, and of code."""

import copyreg
import gc
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import cached_property, cmp_to_key, lru_cache, partial
from struct import Struct
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import ReferenceType

import numpy as np
import torch
from torch import Tensor, nn

from .errors import ArgumentError
from .fingerprint import bits_of, fingerprint_of
from .kinds import shown
from .reached_code import Held, Part, Reading, functions_of, reached_from

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_NO_SETTINGS = ("training", "name_or_path")  # of modules
_NAMED = (type, BuiltinFunctionType, ModuleType)
_GLOBAL_GENERATORS = {
    id(function.__self__): name  # type: ignore[attr-defined]
    for name, function in (("random", random.random), ("numpy.random", np.random.random))
}
"""The generators from which functions such as `random.random` draw: what they hold is no setting."""


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
    return content_and_code(given)[0]


def content_and_code(given: Any) -> tuple[str, list[Held]]:
    """Returns the hash of an object as `content_hash` does, and the functions and classes that it holds.

    Raises:
        ArgumentError: Its content cannot be read.
    """
    reader = _Reader(strict=True)
    try:
        return reader.read(given), list(reader.code.values())
    except (TypeError, AttributeError, ValueError, RuntimeError, ReferenceError) as error:
        what = f"{type(given).__name__} {shown(given)[:60]}"
        raise ArgumentError(f"the content of {what} cannot be read: {error}") from error


def value_and_code(given: Any) -> Reading:
    """Returns the same of a variable, whose hash is None if a part of it, such as a logger, cannot be read.

    The functions and classes in the other parts are there all the same.
    """
    reader = _Reader(strict=False)
    digest = reader.read(given)
    return digest if reader.is_complete else None, list(reader.code.values())


def content_of_model(model: nn.Module) -> list[Any]:
    """Returns what the results of a model depend on, for the ``sweep_content`` of functions that hold it.

    These are the fingerprint of its weights, the buffers that no state dict has, how it is put together, and
    of each module its class, by whose code sweeps tell models apart, and its attributes that are plain values
    or functions.

    Example:
        >>> class Power(nn.Module):
        ...     def __init__(self, exponent):
        ...         super().__init__()
        ...         self.exponent = exponent
        >>> content_hash(content_of_model(Power(2))) == content_hash(content_of_model(Power(3)))
        False
    """
    kinds = list(dict.fromkeys(type(module) for module in model.modules()))
    attributes = {name: _settings_of(module) for name, module in model.named_modules()}
    stored = model.state_dict().keys()
    others = {name: one for name, one in model.named_buffers() if name not in stored and not one.is_meta}
    return [fingerprint_of(model), others, repr(model), kinds, attributes]


def _settings_of(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that are plain values, sequences of these, or functions."""
    found = {}
    for name, value in vars(module).items():
        value = value.__func__ if isinstance(value, MethodType) else value
        values = value if isinstance(value, list | tuple) else (value,)
        if name not in _NO_SETTINGS and all(isinstance(one, (*_PLAIN, FunctionType, type)) for one in values):
            found[name] = value
    return found


def function_parts(function: Any) -> dict[str, str]:
    """Returns hashes of all that the results of a function may depend on beside its argument, by name.

    These are its code, its defaults, the variables that it encloses and the global ones that it reads, of an
    object that is called its attributes; and the same of each function and class of the user that it calls,
    directly or through others. An object may say instead what counts of it, in its attribute
    ``sweep_content``.

    Raises:
        ArgumentError: Some content cannot be read.

    Example:
        >>> factor = 3
        >>> list(function_parts(lambda x: factor * x))
        ['code', 'defaults', 'global factor']
    """
    hashes: dict[str, str] = {}
    held: list[Held] = []
    for name, value in _components(function):
        hashes[name], code = content_and_code(value)
        held += code
    found = reached_from(_plain_function(function), value_and_code, parts=held, enclosed=False)
    hashes |= {f"global {name}": digest for name, digest in found.values.items()}
    return hashes | {f"{name} code": _code(part) for name, part in found.parts.items()}


def _plain_function(function: Any) -> FunctionType | None:
    """The function that a partial or a method calls; None for an object, whose class is a component."""
    while isinstance(function, partial | MethodType):
        function = function.func if isinstance(function, partial) else function.__func__
    return function if isinstance(function, FunctionType) else None


def _components(function: Any) -> Iterator[tuple[str, Any]]:
    """What a function itself consists of, by name."""
    attributes = getattr(function, "__dict__", None)
    if isinstance(function, FunctionType):
        yield from _parts_of(function)
    elif isinstance(function, partial):
        yield from ((f"function {name}", part) for name, part in _components(function.func))
        yield "arguments", (function.args, function.keywords)
    elif isinstance(function, MethodType):
        yield from _components(function.__func__)
        yield from ((f"object {name}", part) for name, part in _components(function.__self__))
    elif attributes is None or isinstance(function, _NAMED) or hasattr(function, "sweep_content"):
        yield "code", function
    else:
        kinds = type(function).__mro__
        yield (
            "code",
            (kinds[0], next((vars(kind)["__call__"] for kind in kinds if "__call__" in vars(kind)), None)),
        )
        yield from attributes.items()


def _code(part: Part) -> str:
    """A hash of the code of a function or class."""
    functions = functions_of(part) if isinstance(part, type) else {"": part}
    return content_hash({name: one.__code__ for name, one in functions.items()})


class _Reader:
    """Reads objects; one that is met again is not read again.

    Args:
        strict: Whether what cannot be read is an error.
    """

    def __init__(self, strict: bool) -> None:
        self.is_complete, self._strict = True, strict
        self.code: dict[int, Held] = {}  # the functions, classes and modules that were met
        self._known: dict[int, tuple[Any, str]] = {}

    def read(self, given: Any) -> str:
        """Returns the hash of an object."""
        if type(given) in _PLAIN:  # classes derived from these may hold more
            return _hash([type(given).__name__, repr(given)])
        if id(given) in _GLOBAL_GENERATORS:
            return _hash([_GLOBAL_GENERATORS[id(given)]])
        if id(given) in self._known:
            return self._known[id(given)][1]
        self._known[id(given)] = given, "inside itself"
        try:
            part: Held = given if isinstance(given, FunctionType | type | ModuleType) else type(given)
            self.code[id(part)] = part
            digest = _hash([type(given).__qualname__, *self._lines(given)])
        except Exception:  # of any kind, from a class of the user
            if self._strict:
                raise
            self.is_complete, digest = False, ""
            for held in gc.get_referents(given):
                if isinstance(held, FunctionType):
                    self.read(held)
        self._known[id(given)] = given, digest
        return digest

    def _lines(self, given: Any) -> Iterator[str]:
        if isinstance(given, Tensor):
            yield f"{given.dtype} {tuple(given.shape)} {given.requires_grad} {bits_of(given)}"
            yield from map(self.read, [vars(given)] if vars(given) else [])
        elif type(given) is np.ndarray and not given.dtype.hasobject:  # masked ones hold more
            yield f"{given.dtype} {given.shape}"
            yield hashlib.sha256(_bytes_of(given)).hexdigest()
        elif isinstance(given, np.generic) and not given.dtype.hasobject:
            yield f"{given.dtype} {_bytes_of(np.asarray(given)).hex()}"
        elif isinstance(given, torch.jit.ScriptFunction):
            yield str(given.code)
        elif isinstance(given, _NAMED):
            yield f"{getattr(given, '__module__', '')} {getattr(given, '__qualname__', given.__name__)}"
            owner = getattr(given, "__self__", None)
            if isinstance(given, BuiltinFunctionType) and not isinstance(owner, type | ModuleType | None):
                yield self.read(owner)  # such as the dictionary of `table.get`
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
    for kinds, inside in _INSIDE.items():
        if isinstance(given, kinds):
            return inside(given)
    reducing = copyreg.dispatch_table.get(type(given))  # as pickle does, for patterns of re and such
    reduced: Any = given.__reduce_ex__(4) if reducing is None else reducing(given)
    if isinstance(reduced, str):
        return [reduced]
    made, args, state, items, pairs = [*reduced, *[None] * 5][:5]
    return [made, args, state, list(items or ()), list(pairs or ())]


# What objects hold that pickle refuses, or takes by their names alone.
_INSIDE: dict[Any, Callable[[Any], Iterable[Any]]] = {
    MappingProxyType: lambda given: [dict(given)],
    ReferenceType: lambda given: [given()],
    ContextVar: lambda given: [given.name, _of_context(given)],
    CellType: lambda given: [_held(given)],
    memoryview: lambda given: [given.format, given.shape, given.tobytes()],
    Struct: lambda given: [given.format],
    (type({}.keys()), type({}.values()), type({}.items())): list,
    (staticmethod, classmethod): lambda given: [given.__func__],
    property: lambda given: [given.fget, given.fset, given.fdel],
    cached_property: lambda given: [given.func],
    type(lru_cache(len)): lambda given: [given.__wrapped__, given.cache_parameters()],
    # the function of the user is in no attribute of these
    type(cmp_to_key(max)): gc.get_referents,
    np.ufunc: lambda given: [given.__name__, *gc.get_referents(given)],
}


def _bytes_of(array: "np.ndarray[Any, Any]") -> bytes:
    """The numbers of an array, without what fills the gaps between them."""
    if array.dtype.names:
        return b"".join(_bytes_of(array[name]) for name in array.dtype.names)
    if array.dtype.char in "gG":  # 10 bytes of the 16 of a long double are its number
        return " ".join(map(str, array.ravel().tolist())).encode()
    return np.ascontiguousarray(array).tobytes()


def _of_context(variable: ContextVar[Any]) -> Any:
    try:
        return variable.get()
    except LookupError:  # it has no value
        return None


def _parts_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    yield "code", code
    yield "defaults", (function.__defaults__, function.__kwdefaults__)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name, _held(cell)


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
