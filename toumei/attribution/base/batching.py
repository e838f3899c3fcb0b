"""Rows of inputs, a batch at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import ArgumentError

BATCH_SIZE = 64


def batches(count: int, batch_size: int) -> tuple[Tensor, ...]:
    """Returns the numbers from 0 to a count, in pieces of at most the size of a batch.

    Raises:
        ArgumentError: A batch size under 1.

    Example:
        >>> batches(5, 2)
        (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    if batch_size < 1:
        raise ArgumentError(f"batch_size is a number from 1 on, got {batch_size}")
    return torch.arange(count).split(batch_size)


def at(tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Returns copies of the rows (B,) of tensors (N, ...)."""
    return [tensor[rows.to(tensor.device)] for tensor in tensors]
