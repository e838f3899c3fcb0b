"""Randomness that comes from a seed and leaves the global generators as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .checks import check_seed
from .errors import ArgumentError
from .kinds import fitted, kind_of


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
    """Seeds torch, numpy and random for the block, for code that draws from the global generators.

    Their states are restored at the end. Without a seed nothing is seeded or restored.

    Args:
        seed: The seed, or None.
        device: The accelerator whose generator is seeded and restored beside the CPU's.

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
    try:
        device = torch.device(fitted("device", device, kind_of(torch.device | str)))
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"{device!r} is no device") from error
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(seed))
            random.seed(int(seed))
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
