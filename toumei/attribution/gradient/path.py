"""The straight path from a baseline to an input, and quadrature along it."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...core.checks import check_counts
from ...core.errors import ArgumentError


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Returns the positions and weights, each (count,) in float64, of Gauss-Legendre quadrature from 0 to 1.

    Polynomials up to degree ``2 * count - 1`` are integrated exactly.

    Example:
        >>> positions, weights = nodes(2)
        >>> bool(((weights * positions**3).sum() - 1 / 4).abs() < 1e-15)
        True
    """
    positions, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((positions + 1) / 2), torch.from_numpy(weights / 2)


def between(start: Sequence[Tensor], end: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """Returns points (B, ...) on the straight lines between tensors (B, ...), at shares (B,) of the way."""
    points = []
    for first, last in zip(start, end, strict=True):
        share = shares.to(device=last.device, dtype=last.dtype).reshape(-1, *(1,) * (last.dim() - 1))
        points.append(torch.lerp(first, last, share))
    return points


def sums(values: Sequence[Tensor]) -> Tensor:
    """The sums (N, T) of contributions, each (T, N, ...), in float64 on the CPU."""
    return torch.stack([part.double().flatten(2).sum(2).cpu() for part in values]).sum(0).T


def warn_incomplete(wide: Tensor, tolerance: float, max_steps: int) -> None:
    """Warns about inputs with a gap that is too wide, (N, T)."""
    if wide.any():
        warnings.warn(
            f"{int(wide.any(1).sum())} of {len(wide)} inputs have a completeness gap over {tolerance:g} of "
            f"the difference of the scores after {max_steps} steps: raise max_steps or the tolerance",
            stacklevel=5,
        )


def check_steps(tolerance: float, max_steps: int, steps: int | None) -> None:
    """Raises an error where one of these settings makes no sense.

    Raises:
        ArgumentError: A tolerance that is not above 0, or a number of steps below 1.
    """
    if not tolerance > 0:
        raise ArgumentError(f"tolerance is a number above 0, got {tolerance}")
    check_counts(1, max_steps=max_steps, steps=steps)
