"""What the decorators of a bench share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from ..core.errors import ArgumentError
from ..core.kinds import shown


def with_tools(function: Callable[..., Any], tools: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Returns a function that gets tools as arguments.

    Args:
        function: The function.
        tools: All tools.
        keys: The keys of those that it gets.

    Raises:
        ArgumentError: It has no such arguments.
    """
    check_takes(function, keys)

    @wraps(function)
    def given(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{**{key: tools[key] for key in keys}, **kwargs})

    setattr(given, "tools", (*keys, *getattr(function, "tools", ())))  # noqa: B010, mypy knows no such attribute
    return given


def check_takes(function: Callable[..., Any], names: Sequence[str]) -> None:
    """Makes sure that a function has arguments.

    Raises:
        ArgumentError: It has not, or it is no function.
    """
    if not callable(function):
        raise ArgumentError(f"this decorates a function, got {shown(function)}")
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            shape = f"{getattr(function, '__name__', 'it')}({', '.join(parameters)})"
            raise ArgumentError(f"{shape} has no argument {name!r}: add {name}=None to it")
