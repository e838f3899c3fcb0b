"""Norms by name: how a kernel, or the weights from a flattened map, become one number."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ...core.errors import ArgumentError

Norm = Literal["l1", "frobenius", "induced-l1"]


def check_norm(norm: str) -> None:
    """Raises an `ArgumentError` for a norm that does not exist."""
    if norm not in get_args(Norm):
        raise ArgumentError(f"norm is one of {get_args(Norm)}, got {norm!r}")


def kernel_norms(kernels: Tensor, norm: Norm) -> Tensor:
    """Returns the norm of each kernel of a convolution's weights.

    Args:
        kernels: (out, in, ...) with any number of spatial axes, or none.
        norm: ``"l1"`` the sum of absolute values, ``"frobenius"`` the root of the sum of squares,
            ``"induced-l1"`` the largest sum of absolute values of a column.

    Example:
        >>> kernel = torch.tensor([[1.0, -2.0], [3.0, 0.0]])[None, None]
        >>> [kernel_norms(kernel, norm).item() for norm in ("l1", "induced-l1")]
        [6.0, 4.0]
    """
    check_norm(norm)
    if kernels.dim() == 2:
        return kernels.abs()
    if norm == "frobenius":
        result: Tensor = torch.linalg.vector_norm(kernels.flatten(2), dim=2)
        return result
    if norm == "l1":
        return kernels.abs().flatten(2).sum(2)
    columns = kernels.abs().sum(2)
    return columns if columns.dim() == 2 else columns.flatten(2).amax(2)


def merged(weights: Tensor, groups: Tensor, count: int, norm: Norm) -> Tensor:
    """Returns (out, count): one number for all weights (out, in) from the positions of a channel.

    Args:
        weights: (out, in), not negative.
        groups: (in,) the channel of each input.
        count: How many channels there are.
        norm: Sums for ``"l1"`` and ``"induced-l1"``, the root of the sum of squares for ``"frobenius"``.
    """
    powers = weights.square() if norm == "frobenius" else weights
    sums = powers.new_zeros(weights.shape[0], count).index_add_(1, groups, powers)
    return sums.sqrt() if norm == "frobenius" else sums
