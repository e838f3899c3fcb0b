"""One thread at a time works on a model; a second one waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, RLock, Thread, current_thread, get_ident

import torch
from torch import nn

from .errors import BusyModelError
from .interrupts import Cleanup, locked, until_the_end

_lock = RLock()
_changed = Condition(_lock)
_holds: list["_Hold"] = []
_waiting: dict[Thread, list[Thread]] = {}  # and for which threads


@dataclass(eq=False)
class _Hold:
    """A model on which a thread works."""

    model: nn.Module
    thread: Thread = field(default_factory=current_thread)


@contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """Waits until no other thread works on a model, and keeps others waiting until the end of the block.

    Blocks of one thread may lie inside each other. Models that share modules are one model here.

    Args:
        model: The model.

    Raises:
        BusyModelError: The other thread waits for a model that this one works on.

    Example:
        >>> with alone(model := nn.Linear(2, 2)), alone(model):
        ...     model.training
        True
    """
    with until_the_end() as cleanup:
        begin_alone(model, cleanup)
        yield


def begin_alone(model: nn.Module, cleanup: Cleanup) -> None:
    """Does what `alone` does, until the steps of a `Cleanup` are taken."""
    hold = _Hold(model)
    cleanup.add(lambda: _release(hold))
    if _take(hold):
        _wait(hold)


def _take(hold: _Hold) -> list[Thread]:
    """Takes the model if no other thread works on it, else returns those that do.

    Of two threads that take it at once each sees the other, since both look after they have taken it.
    """
    _holds.append(hold)
    busy = _others(hold)
    if busy:
        _holds.remove(hold)
    return busy


def _wait(hold: _Hold) -> None:
    with locked(_lock):
        try:
            _waiting[hold.thread] = []  # first, so that who leaves from here on tells this thread
            while busy := _take(hold):
                _check_waits(hold, busy)
                _waiting[hold.thread] = busy
                _changed.wait(1.0)
        finally:
            _waiting.pop(hold.thread, None)


def _release(hold: _Hold) -> None:
    if hold in _holds:
        _holds.remove(hold)
    if _waiting:
        with locked(_lock):
            _changed.notify_all()


def _others(hold: _Hold) -> list[Thread]:
    """The other threads that work on a part of the model; a thread that has died works on nothing."""
    others = [one for one in tuple(_holds) if one.thread is not hold.thread and one.thread.is_alive()]
    if not others:
        return []
    modules = set(hold.model.modules())
    return [one.thread for one in others if not modules.isdisjoint(one.model.modules())]


def _check_waits(hold: _Hold, busy: list[Thread]) -> None:
    """Raises an error if this thread would wait for one that waits for it."""
    ahead, seen = list(busy), set[Thread]()
    while ahead:
        thread = ahead.pop()
        if thread is hold.thread:
            raise BusyModelError(
                f"another thread works on this {type(hold.model).__name__} and waits for a model that this "
                f"thread works on: let both begin with the same model"
            )
        if thread not in seen:
            seen.add(thread)
            ahead += _waiting.get(thread, [])


@dataclass(frozen=True)
class HomeThread:
    """The thread that made this object, with the backward passes that it starts.

    Example:
        >>> HomeThread().here()
        True
    """

    number: int = field(default_factory=get_ident)

    def here(self) -> bool:
        """Returns whether this thread runs now, or autograd, which has other threads on accelerators."""
        return get_ident() == self.number or in_backward()


def in_backward() -> bool:
    """Returns whether autograd computes gradients now, in this thread."""
    return torch._C._current_graph_task_id() != -1
