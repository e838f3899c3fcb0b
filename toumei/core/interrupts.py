"""Ctrl-C waits while states of a model are put up or taken down, so that none is left half done."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import RLock, current_thread, main_thread
from typing import Any, TypeVar

Entered = TypeVar("Entered")


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
    try:
        try:
            signal.signal(signal.SIGINT, lambda *event: arrived.append(event))
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
    finally:
        signal.signal(signal.SIGINT, previous)  # again, if the handler of another signal raised an error
        if arrived:
            previous(*arrived[0])


class Cleanup:
    """Steps that undo something, the last one first.

    Each step can be taken twice: one that is interrupted is taken again. So a step may be added before
    there is anything to undo.

    Example:
        >>> cleanup = Cleanup()
        >>> cleanup.add(lambda: print("first added"))
        >>> cleanup.add(lambda: print("last added"))
        >>> cleanup.run()
        last added
        first added
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        """Adds a step."""
        self._steps.append(step)

    def enter(self, context: AbstractContextManager[Entered]) -> Entered:
        """Enters a context, and adds the step that leaves it."""
        entered = context.__enter__()
        self.add(lambda: context.__exit__(None, None, None))
        return entered

    def run(self) -> None:
        """Takes all steps, also those that are left when one fails; the first error is raised at the end."""
        failure = None
        while self._steps:
            try:
                self._steps[-1]()
            except Exception as error:  # maybe from the handler of a signal: the step is taken again
                failure = failure or error
                with suppress(Exception):
                    self._steps[-1]()
            self._steps.pop()
        if failure is not None:
            raise failure


@contextmanager
def until_the_end() -> Iterator[Cleanup]:
    """Yields what takes its steps after the block, all of them, also if Ctrl-C comes meanwhile.

    Example:
        >>> with until_the_end() as cleanup:
        ...     cleanup.add(lambda: print("undone"))
        ...     print("done")
        done
        undone
    """
    cleanup = Cleanup()
    try:
        try:
            yield cleanup
        finally:
            with uninterrupted():
                cleanup.run()
    finally:
        cleanup.run()  # what is left if Ctrl-C came before it was held back


@contextmanager
def locked(lock: RLock) -> Iterator[None]:
    """Holds a lock until the end of the block, and releases it also if Ctrl-C comes at any line."""
    with until_the_end() as cleanup:
        cleanup.add(lambda: _release(lock))
        lock.acquire()
        yield


def _release(lock: RLock) -> None:
    with suppress(RuntimeError):  # this thread does not hold it
        lock.release()
