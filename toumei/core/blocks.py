"""Blocks that are entered once: what a generator puts up before its `yield` and takes down after it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from .errors import BlockError

Given = ParamSpec("Given")
Yielded = TypeVar("Yielded")


class Block(AbstractContextManager[Yielded], Generic[Yielded]):
    """A block of a ``with`` statement that is entered once.

    Args:
        inner: What is put up and taken down.
        name: Name of the function that returned it.
    """

    def __init__(self, inner: AbstractContextManager[Yielded], name: str) -> None:
        self._inner, self._name, self._entered = inner, name, False

    def __repr__(self) -> str:
        return f"{self._name}(...), a block that is entered with `with`"

    def __enter__(self) -> Yielded:
        if self._entered:
            raise BlockError(f"this {self._name}(...) was entered before: call {self._name}(...) once more")
        self._entered = True
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._inner.__exit__(*error)


def block(function: Callable[Given, Iterator[Yielded]]) -> Callable[Given, Block[Yielded]]:
    """Returns a function whose blocks say what is wrong where they are entered a second time.

    It is `contextlib.contextmanager` for what users call.

    Example:
        >>> @block
        ... def lights(on):
        ...     yield on
        >>> room = lights(True)
        >>> with room as on:
        ...     on
        True
        >>> with room:
        ...     pass
        Traceback (most recent call last):
        toumei.core.errors.BlockError: this lights(...) was entered before: call lights(...) once more
    """
    make = contextmanager(function)

    @wraps(function)
    def made(*args: Given.args, **kwargs: Given.kwargs) -> Block[Yielded]:
        return Block(make(*args, **kwargs), function.__name__)

    return made
