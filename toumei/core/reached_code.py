"""What the result of code depends on in modules of the user: functions, classes and variables.

Functions and classes of Python and of installed packages do not count.
"""

import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from dis import get_instructions
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

Part: TypeAlias = FunctionType | type
Held: TypeAlias = Part | ModuleType
Reading: TypeAlias = tuple[str | None, Iterable[Held]]
"""A hash of a value, None if it has none, and the functions, classes and modules that it holds."""

_PACKAGES = {"site-packages", "dist-packages"}
_NOTHING = object()


@dataclass
class Reached:
    """What code depends on, directly and through others.

    Attributes:
        parts: The functions and classes of the user that it calls, by name.
        values: A hash of each variable that they read, by name: enclosed ones, global ones and attributes of
            classes. Names of another module than that of the code begin with the module.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


def reached_from(
    function: FunctionType | None,
    read: Callable[[Any], Reading],
    *,
    others: Mapping[str, Any] | None = None,
    parts: Iterable[Any] = (),
    enclosed: bool = True,
    left_out: Callable[[Any], bool] = lambda value: False,
) -> Reached:
    """Returns what a function depends on beside its arguments and its source.

    Args:
        function: The function, or None to begin with `others` and `parts`.
        read: Reads a value.
        others: Variables that the function depends on beside those that it reads, by name.
        parts: Functions and classes that it calls beside those that it names.
        enclosed: Whether the variables that it encloses itself are read.
        left_out: Says of a value whether it does not count.
    """
    walk = _Walk(function, read, left_out, enclosed)
    if function is not None:
        walk.part(function)
    for name, value in (others or {}).items():
        walk.value(name, value)
    for part in parts:
        walk.part(part)
    walk.end()
    return walk.found


class _Walk:
    """Follows functions and classes to what they read, each once."""

    def __init__(
        self,
        start: FunctionType | None,
        read: Callable[[Any], Reading],
        left_out: Callable[[Any], bool],
        enclosed: bool,
    ) -> None:
        self.found = Reached()
        self._start, self._read, self._left_out, self._enclosed = start, read, left_out, enclosed
        self._home = getattr(start, "__module__", None)
        self._ahead: list[Part] = []
        self._names: dict[str, None] = {}  # which the functions read
        self._modules: list[ModuleType] = []  # which values hold
        self._seen: set[Any] = set()
        self._held: list[Any] = []  # whose numbers are in `seen`

    def part(self, part: Any) -> None:
        """Notes a function or class, and what is wrapped around it or in it, if it is of the user."""
        if isinstance(part, ModuleType):
            self._modules.append(part)
        for layer in _layers(part):
            if isinstance(layer, _Wrapper):
                self._wrapper(layer.object)
            elif is_of_the_user(layer) and self._is_new(layer):
                if layer is not self._start:
                    _note(self.found.parts, self._named(layer.__module__, _qualname(layer)), layer)
                self._ahead.append(layer)

    def value(self, name: str, value: Any) -> None:
        """Notes a variable."""
        if any(is_of_the_user(getattr(layer, "object", layer)) for layer in _layers(value)):
            self.part(value)
        elif not self._left_out(value):
            digest, parts = self._read(value)
            if digest is not None:
                _note(self.found.values, name, digest)
            for part in parts:
                self.part(part)

    def _wrapper(self, wrapper: Any) -> None:
        """Notes an object of the user that is wrapped around a function: its class and its attributes."""
        kind = type(wrapper)
        if is_of_the_user(kind) and self._is_new(wrapper):
            digest, parts = self._read(wrapper)
            if digest is not None:
                _note(self.found.values, self._named(kind.__module__, f"{kind.__qualname__}()"), digest)
            for part in (kind, *parts):
                self.part(part)

    def end(self) -> None:
        """Follows everything that was noted."""
        while self._ahead:
            part = self._ahead.pop(0)
            if isinstance(part, FunctionType):
                self._function(part)
            else:
                self._class(part)
            if not self._ahead:
                for module in list(self._modules):
                    self._module(module, list(self._names))

    def _function(self, function: FunctionType) -> None:
        owner = "" if function is self._start else f"{self._named(function.__module__, _qualname(function))}."
        if function is not self._start or self._enclosed:
            for name, value in _enclosed(function):
                self.value(f"{owner}{name}", value)
        if function is not self._start:  # whose defaults are arguments
            for name, value in _defaults(function):
                self.value(f"{owner}{name}", value)
        space = function.__globals__
        names = _names_in(function.__code__)
        self._names |= dict.fromkeys(names)
        for name in names:
            value = space.get(name, _NOTHING)
            if value is _NOTHING:  # perhaps of an import inside the function
                value = _module(name, space.get("__package__"))
            if isinstance(value, ModuleType):
                self._module(value, names)
            elif value is not _NOTHING and self._is_new((id(space), name)):
                self.value(self._named(space.get("__name__"), name), value)

    def _module(self, module: ModuleType, names: list[str]) -> None:
        """What a function may read of a module: all names that both have."""
        if not is_of_the_user(module):
            return
        for name in (*names, "__getattr__"):
            value = vars(module).get(name, _NOTHING)
            if value is _NOTHING or not self._is_new((id(vars(module)), name)):
                continue
            if isinstance(value, ModuleType):
                self._module(value, names)
            else:
                self.value(self._named(module.__name__, name), value)

    def _class(self, kind: type) -> None:
        for base in (*kind.__mro__[1:], type(kind)):
            self.part(base)
        label = self._named(kind.__module__, kind.__qualname__)
        for name, value in vars(kind).items():
            functions = list(_functions_in(value))
            for function in functions:
                if _qualname(function).startswith(f"{kind.__qualname__}."):
                    if self._is_new(function):  # its source is in that of the class
                        self._ahead.append(function)
                else:
                    self.part(function)
            whole = not functions or isinstance(value, MethodType)  # which holds an object too
            if whole and not name.startswith(("__", "_abc_")):
                self.value(f"{label}.{name}", value)

    def _named(self, module: str | None, name: str) -> str:
        return name if module == self._home else f"{module}.{name}"

    def _is_new(self, thing: Any) -> bool:
        key = thing if isinstance(thing, tuple) else id(thing)
        if key in self._seen:
            return False
        self._seen.add(key)
        self._held.append(thing)
        return True


def is_of_the_user(part: Any) -> bool:
    """Whether a function, class or module is of neither Python nor an installed package."""
    if isinstance(part, ModuleType):
        file = getattr(part, "__file__", None)
    elif isinstance(part, FunctionType):
        file = part.__code__.co_filename
    else:
        module = sys.modules.get(part.__module__)
        file = getattr(module, "__file__", None) or ("<console>" if part.__module__ == "__main__" else None)
    return file is not None and not _installed(file)


def functions_of(kind: type) -> dict[str, FunctionType]:
    """Returns the functions that the body of a class has, by name, also those inside of properties.

    Example:
        >>> class Half:
        ...     @property
        ...     def value(self): ...
        >>> list(functions_of(Half))
        ['value 0']
    """
    return {
        f"{name} {place}": function
        for name, value in vars(kind).items()
        for place, function in enumerate(_functions_in(value))
    }


def _functions_in(value: Any) -> Iterator[FunctionType]:
    for name in ("__func__", "fget", "fset", "fdel", "func"):
        inner = getattr(value, name, None)
        if isinstance(inner, FunctionType):
            yield inner
    if isinstance(value, FunctionType):
        yield value
    for other in _registered(getattr(value, "dispatcher", None)):
        if isinstance(other, FunctionType):
            yield other


@dataclass(frozen=True)
class _Wrapper:
    """An object that is wrapped around a function."""

    object: Any


def _layers(value: Any) -> list[Any]:
    """A function or class, and those that are wrapped in it, as by `functools.wraps` or a cache.

    What is registered with a function of `functools.singledispatch` is among them.
    """
    found: list[Any] = []
    while value is not None and len(found) < 100:
        inner = vars(value).get("__wrapped__") if hasattr(value, "__dict__") else None
        if isinstance(value, FunctionType | type):
            found += [value, *_registered(value)]
        elif inner is not None:
            found.append(_Wrapper(value))
        value = inner
    return found


def _registered(function: Any) -> list[Part]:
    """What a function of `functools.singledispatch` calls, by the types that it is called with."""
    registry = getattr(function, "registry", None)
    if not isinstance(function, FunctionType) or not isinstance(registry, Mapping):
        return []
    return [one for one in registry.values() if isinstance(one, FunctionType | type)]


def _enclosed(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it has no value yet
            continue


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(values) : code.co_argcount], values, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


@cache
def _installed(file: str) -> bool:
    path = Path(file)
    folders = Path(sysconfig.get_path("stdlib")), Path(__file__).parents[1]
    return (
        file.startswith("<frozen ")
        or bool(_PACKAGES & set(path.parts))
        or any(path.is_relative_to(folder) for folder in folders)
    )


def _qualname(part: Part) -> str:
    """The name of a function, also of one that has taken that of another by `functools.wraps`."""
    code = getattr(part, "__code__", None)
    return str(getattr(code, "co_qualname", part.__qualname__))  # from Python 3.11 on


@cache
def _names_in(code: CodeType) -> list[str]:
    """The names that code reads, with those of functions inside it, without global ones that it sets."""
    inner = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names_in(one)]
    written = {one.argval for one in get_instructions(code) if one.opname == "STORE_GLOBAL"}
    return [name for name in dict.fromkeys([*code.co_names, *inner]) if name not in written]


def _module(name: str, package: Any) -> Any:
    """The module that has been imported under a name."""
    names = (name, f"{package}.{name}") if package else (name,)
    return next((sys.modules[one] for one in names if one and one in sys.modules), _NOTHING)


def _note(found: dict[str, Any], name: str, value: Any) -> None:
    while name in found and found[name] is not value and found[name] != value:
        name += "'"
    found[name] = value
