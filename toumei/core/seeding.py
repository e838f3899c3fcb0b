"""Randomness that comes from a seed and leaves the global generators as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np
import torch

from .checks import check_seed
from .devices import as_device
from .generators import Generators, drawing_from
from .interrupts import locked, until_the_end


def make_generator(seed: int | None) -> torch.Generator | None:
    """Returns a CPU generator with this seed, or None, which means torch's global one, without a seed.

    Example:
        >>> first, second = (torch.rand(2, generator=make_generator(3)) for _ in range(2))
        >>> torch.equal(first, second)
        True
    """
    check_seed(seed)
    return None if seed is None else torch.Generator().manual_seed(int(seed))


@contextmanager
def seeded(seed: int | None, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds what functions of torch, numpy and random draw in the block, where no generator is given.

    Functions of torch draw from generators that only this thread has, so that blocks of several threads do
    not disturb each other, nor what other threads draw. numpy and random have one state for all threads: it
    is seeded, and restored at the end. Without a seed nothing is seeded or restored.

    Args:
        seed: The seed, or None.
        device: The accelerator on which functions of torch draw; the CPU is seeded too.

    Example:
        >>> with seeded(3):
        ...     first = torch.rand(2)
        >>> with seeded(3):
        ...     second = torch.rand(2)
        >>> torch.equal(first, second)
        True
    """
    if seed is None:
        yield
        return
    check_seed(seed)
    device = as_device(device)
    seed = int(seed)
    generators = Generators(seed)
    generators.on(device)
    with until_the_end() as cleanup:
        states = _States(random.getstate(), np.random.get_state())
        cleanup.add(states.close)
        states.open()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        with drawing_from(generators):
            yield


_open: list["_States"] = []
_lock = RLock()


@dataclass(eq=False)
class _States:
    """What the global states of random and numpy are given back."""

    python: Any
    numpy: Any

    def open(self) -> None:
        """Begins the block."""
        with locked(_lock):
            _open.append(self)

    def close(self) -> None:
        """Ends the block: the states are given back, by a block of another thread if that began later."""
        with locked(_lock):
            if self not in _open:
                return
            later = _open[_open.index(self) + 1 :]
            if later:
                later[0].python, later[0].numpy = self.python, self.numpy
            else:
                random.setstate(self.python)
                np.random.set_state(self.numpy)
            _open.remove(self)
