"""The source of an experiment, with what it calls and the values that it reads in the user's modules."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from ..core.errors import ArgumentError
from ..core.reached_code import Held, Part, functions_of, reached_from
from .hashes import read_value, value_hash

_texts: dict[int, tuple[Any, str]] = {}  # by the number of a class or of code, which is kept beside it


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
    """Returns the source of a function or class; a function that is wrapped in it is left out.

    Raises:
        ArgumentError: Python does not have it.

    Example:
        >>> source_of(source_of).splitlines()[0]
        'def source_of(function: Callable[..., Any] | type) -> str:'
    """
    try:
        return _text(function if isinstance(function, type) else function.__code__)
    except (OSError, TypeError, AttributeError, SyntaxError) as error:
        name = getattr(function, "__name__", repr(function))
        raise ArgumentError(
            f"Python has no source of {name}, which tells its versions apart ({error}): "
            f"write it into a file or a cell of a notebook, not into a console, a lambda or exec"
        ) from error


def code_of(
    function: Callable[..., Any],
    left_out: Callable[[Any], bool] = lambda value: False,
    *,
    settings: Mapping[str, Any] | None = None,
    parts: Iterable[Held] = (),
) -> Code:
    """Returns the source of a function, and what it depends on in modules of the user.

    Functions and classes of packages that are installed do not count: their versions are kept with each run.
    Values that cannot be read, such as open files, do not count either.

    Args:
        function: The function.
        left_out: Says of a value whether it does not count.
        settings: What its decorators were given, by name.
        parts: Functions and classes that it gets with its arguments.

    Raises:
        ArgumentError: Python does not have its source.
    """
    inner = inspect.unwrap(function)
    found = reached_from(
        inner if isinstance(inner, FunctionType) else None,
        read_value,
        others=settings,
        parts=[function, *parts],
        left_out=left_out,
    )
    helpers = {name: _source_or_hash(part) for name, part in found.parts.items()}
    return Code(source_of(inner), helpers, found.values)


def _source_or_hash(part: Part) -> str:
    try:
        return source_of(part)
    except ArgumentError:  # made by exec, or in a console or notebook, where Python finds functions only
        if isinstance(part, FunctionType):
            return value_hash(part) or ""
        functions = functions_of(part).values()
        return "\n\n".join([f"class {part.__qualname__}", *map(_source_or_hash, functions)])


def _text(part: type | CodeType) -> str:
    known = _texts.get(id(part))
    if known is None:
        known = _texts[id(part)] = part, textwrap.dedent(inspect.getsource(part))
    return known[1]
