"""Ctrl-C waits while states of a model are put up or taken down, so that none is left half done."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the block.

    Only the main thread is ever interrupted; elsewhere nothing happens.

    Example:
        >>> try:
        ...     with uninterrupted():
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("done")
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        done
        interrupted
    """
    previous = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(previous):
        yield
        return
    arrived: list[Any] = []
    signal.signal(signal.SIGINT, lambda *event: arrived.append(event))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if arrived:
            previous(*arrived[0])


@contextmanager
def until_the_end() -> Iterator[ExitStack]:
    """Yields a stack of what is taken down after the block, all of it, also if Ctrl-C comes meanwhile."""
    with ExitStack() as stack:  # takes down what is left if Ctrl-C came before it was held back
        try:
            yield stack
        finally:
            with uninterrupted():
                stack.close()
