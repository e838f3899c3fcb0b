"""Batches of activations in random order, from a buffer of bounded size."""

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from .activation_source import Activations, Block


def shuffled_batches(
    source: Activations, names: tuple[str, ...], batch_size: int, buffer: int, seed: int
) -> Iterator[Block]:
    """Yields batches of activations without end; each pass over the source has another order.

    A buffer is filled, half of it is handed out in a random order, and so on.

    Args:
        source: The activations.
        names: Which of them.
        batch_size: Rows of a batch.
        buffer: Rows that are in memory.
        seed: Of the order.

    Raises:
        ArgumentError: The source ends, because its corpus is an iterator, or is empty.

    Example:
        >>> from toumei.transformers.features.activation_source import TensorActivations
        >>> source = TensorActivations({"x": torch.arange(6.0)[:, None]})
        >>> batches = shuffled_batches(source, ("x",), batch_size=6, buffer=6, seed=0)
        >>> next(batches)["x"].flatten().sort().values
        tensor([0., 1., 2., 3., 4., 5.])
    """
    room = _Buffer(max(buffer, batch_size))
    generator = make_generator(seed)
    for block in _blocks(source, names, seed):
        while block:
            block = room.add(block)
            if room.full:
                yield from room.batches(batch_size, generator)


class _Buffer:
    """Rows in memory: free ones are filled, the others are drawn from.

    Args:
        size: How many rows it has.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: dict[str, Tensor] = {}
        self._free = torch.arange(size)

    @property
    def full(self) -> bool:
        """Whether no row is free."""
        return not len(self._free)

    def add(self, block: Block) -> Block:
        """Puts rows into the free places; returns those for which there is no place."""
        count_ = min(len(self._free), len(next(iter(block.values()))))
        places, self._free = self._free[:count_], self._free[count_:]
        for name, values in block.items():
            if name not in self._rows:
                self._rows[name] = torch.empty(self._size, values.shape[1])
            self._rows[name][places] = values[:count_].float()
        left = {name: values[count_:] for name, values in block.items()}
        return left if len(next(iter(left.values()))) else {}

    def batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Block]:
        """Yields batches of half of the rows, at least one, and frees their places."""
        number = max(1, self._size // 2 // batch_size)
        order = torch.randperm(self._size, generator=generator)
        for places in order[: number * batch_size].split(batch_size):
            yield {name: rows[places] for name, rows in self._rows.items()}
        self._free = order[: number * batch_size]


def _blocks(source: Activations, names: tuple[str, ...], seed: int) -> Iterator[Block]:
    """The blocks of pass after pass."""
    for epoch in count():
        rows = 0
        for block in source.blocks(seed + epoch):
            rows += len(block[names[0]])
            yield {name: block[name] for name in names}
        if not rows:
            raise ArgumentError("there are no activations: the source is empty")
