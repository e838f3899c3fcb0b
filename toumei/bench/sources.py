"""The source of an experiment, with what it calls and the values that it reads in the user's modules."""

import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..core.errors import ArgumentError
from .hashes import value_hash

_PACKAGES = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Code:
    """What a function consists of.

    Attributes:
        source: Its source, with its decorators.
        helpers: The source of each function and class of the user that it calls, directly or through others.
        values: A hash of each variable of the user's modules that it or they read.
    """

    source: str
    helpers: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


def source_of(function: Callable[..., Any] | type) -> str:
    """Returns the source of a function or class.

    Raises:
        ArgumentError: Python does not have it.

    Example:
        >>> source_of(source_of).splitlines()[0]
        'def source_of(function: Callable[..., Any] | type) -> str:'
    """
    try:
        return _text(function if isinstance(function, type) else inspect.unwrap(function).__code__)
    except (OSError, TypeError, AttributeError, SyntaxError) as error:
        name = getattr(function, "__name__", repr(function))
        raise ArgumentError(
            f"Python has no source of {name}, by which its versions are told apart ({error}): "
            f"write it into a file or a cell of a notebook, not into a console, a lambda or exec"
        ) from error


def code_of(function: Callable[..., Any], left_out: Callable[[Any], bool] = lambda value: False) -> Code:
    """Returns the source of a function, and what it depends on in modules of the user.

    Functions and classes of packages that are installed do not count: their versions are kept with each run.
    Values that cannot be read, such as open files, do not count either.

    Args:
        function: The function.
        left_out: Says of a value whether it does not count.

    Raises:
        ArgumentError: Python does not have its source.
    """
    function = inspect.unwrap(function)
    code = Code(source_of(function))
    ahead: list[FunctionType] = [function] if isinstance(function, FunctionType) else []
    seen: set[Any] = {function}
    while ahead:
        for name, value in _read_by(ahead.pop()):
            if left_out(value):
                continue
            if isinstance(value, FunctionType | type):
                part = value if isinstance(value, type) else inspect.unwrap(value)
                if part not in seen and is_of_the_user(part):
                    seen.add(part)
                    code.helpers[part.__qualname__] = _source_or_hash(part)
                    ahead += _functions_of(part)
            elif (not callable(value) or hasattr(value, "__dict__")) and (digest := value_hash(value)):
                code.values[name] = digest
    return code


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


def _source_or_hash(part: Callable[..., Any] | type) -> str:
    try:
        return source_of(part)
    except ArgumentError:  # made by exec, or in a console
        return value_hash(part) or ""


@cache
def _installed(file: str) -> bool:
    path = Path(file)
    folders = Path(sysconfig.get_path("stdlib")), Path(__file__).parents[1]
    return bool(_PACKAGES & set(path.parts)) or any(path.is_relative_to(folder) for folder in folders)


@cache
def _text(part: type | CodeType) -> str:
    return textwrap.dedent(inspect.getsource(part))


def _read_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables that a function reads: enclosed ones, global ones, and those of modules of the user."""
    names = _names_in(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    for name in names:
        value = function.__globals__.get(name, _read_by)
        if isinstance(value, ModuleType):
            if is_of_the_user(value):
                yield from ((f"{name}.{part}", vars(value)[part]) for part in names if part in vars(value))
        elif value is not _read_by:
            yield name, value


def _names_in(code: CodeType) -> list[str]:
    """The names that code reads, with those of functions inside it."""
    inner = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names_in(one)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _functions_of(part: FunctionType | type) -> list[FunctionType]:
    """A function, or those of a class."""
    if isinstance(part, FunctionType):
        return [part]
    inside = (getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(part).values())
    return [inspect.unwrap(value) for value in inside if isinstance(value, FunctionType)]
