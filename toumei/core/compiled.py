"""A block in which what `torch.compile` compiled runs as it was written."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch

from .interrupts import locked, until_the_end

_lock = RLock()
_blocks: list[object] = []  # torch has one stance for all threads: the last block that ends gives it back
_stances: list[Any] = []


@contextmanager
def uncompiled() -> Iterator[None]:
    """Runs compiled code as it was written until the end of the block, in all threads.

    Compiled code does not run hooks that were registered later, and it is compiled again for each interceptor
    of torch functions.

    Example:
        >>> compiled = torch.compile(torch.nn.ReLU(), backend="eager")
        >>> with uncompiled():
        ...     compiled(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    block = object()
    with until_the_end() as cleanup:
        cleanup.add(lambda: _leave(block))
        with locked(_lock):
            _blocks.append(block)
            if not _stances:
                _stances.append(torch.compiler.set_stance("force_eager"))
        yield


def _leave(block: object) -> None:
    with locked(_lock):
        if block in _blocks:
            _blocks.remove(block)
        if not _blocks and _stances:
            _stances[-1].__exit__(None, None, None)
            _stances.pop()
