"""Rows of inputs, one batch at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import ArgumentError

BATCH_SIZE = 64


def batches(count: int, batch_size: int) -> tuple[Tensor, ...]:
    """Returns the numbers from 0 to `count` - 1, split into batches.

    Raises:
        ArgumentError: A batch size below 1.

    Example:
        >>> batches(5, 2)
        (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    if batch_size < 1:
        raise ArgumentError(f"batch_size is a whole number from 1 on, got {batch_size}")
    result: tuple[Tensor, ...] = torch.arange(count).split(batch_size)
    return result


def take_rows(tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Returns copies of the rows (B,) of tensors (N, ...).

    Example:
        >>> take_rows([torch.tensor([5.0, 6.0, 7.0])], torch.tensor([2, 2]))
        [tensor([7., 7.])]
    """
    return [tensor[rows.to(tensor.device)] for tensor in tensors]
