"""One thread at a time works on a model; a second one waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, RLock, Thread, current_thread, get_ident

import torch
from torch import nn

from .errors import BusyModelError
from .interrupts import locked, until_the_end

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
    hold = _Hold(model)
    with until_the_end() as cleanup:
        cleanup.add(lambda: _release(hold))
        _acquire(hold)
        yield


def _acquire(hold: _Hold) -> None:
    with locked(_lock):
        while busy := _others(hold):
            _check_waits(hold, busy)
            _waiting[hold.thread] = busy
            try:
                _changed.wait()
            finally:
                _waiting.pop(hold.thread, None)
        _holds.append(hold)


def _release(hold: _Hold) -> None:
    with locked(_lock):
        if hold in _holds:
            _holds.remove(hold)
        _changed.notify_all()


def _others(hold: _Hold) -> list[Thread]:
    """The other threads that work on a part of the model; a thread that has died works on nothing."""
    others = [one for one in _holds if one.thread is not hold.thread and one.thread.is_alive()]
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
