"""The straight path from a baseline to an input, and quadrature along it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...core.checks import check_counts
from ...core.errors import ArgumentError
from ...core.summaries import counted
from ...core.user_warnings import warn
from ..base.precision import ROUNDING

_AT_ONCE = 4096  # nodes
_MOST_STEPS = 10**6


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Returns the positions and weights, each (count,) in float64, of Gauss-Legendre quadrature from 0 to 1.

    Polynomials up to degree ``2 * count - 1`` are integrated exactly; more than 4096 nodes are those of as
    many equal pieces of the path as it takes, since their computation takes the square of memory.

    Example:
        >>> positions, weights = nodes(2)
        >>> bool(((weights * positions**3).sum() - 1 / 4).abs() < 1e-15)
        True
    """
    if count <= _AT_ONCE:
        positions, weights = np.polynomial.legendre.leggauss(count)
        return torch.from_numpy((positions + 1) / 2), torch.from_numpy(weights / 2)
    pieces = -(-count // _AT_ONCE)
    counts = [count // pieces + (piece < count % pieces) for piece in range(pieces)]
    made = {number: nodes(number) for number in set(counts)}
    found = [made[number] for number in counts]
    return (
        torch.cat([(part + piece) / pieces for piece, (part, _) in enumerate(found)]),
        torch.cat([part / pieces for _, part in found]),
    )


def between(start: Sequence[Tensor], end: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """Returns points (B, ...) on the straight lines between tensors (B, ...), at shares (B,) of the way."""
    points = []
    for first, last in zip(start, end, strict=True):
        share = shares.to(device=last.device, dtype=last.dtype).reshape(-1, *(1,) * (last.dim() - 1))
        points.append(torch.lerp(first, last, share))
    return points


def sums(values: Sequence[Tensor]) -> Tensor:
    """The sums (N, T) of contributions, each (T, N, ...), in float64 on the CPU."""
    return torch.stack([part.double().reshape(*part.shape[:2], -1).sum(2).cpu() for part in values]).sum(0).T


def warn_incomplete(
    wide: Tensor, tolerance: float, max_steps: int, is_rounding: Callable[[Tensor], bool | None]
) -> None:
    """Warns about inputs with a gap that is too wide.

    Args:
        wide: (N, T) which.
        tolerance: What is too wide, as a share of the difference of the scores.
        max_steps: Most steps, which were made.
        is_rounding: From rows (1,) of the inputs to whether the gap vanishes in float64, see `precision`.
    """
    if not wide.any():
        return
    reason = "raise max_steps or the tolerance"
    if is_rounding(wide.any(1).nonzero()[:1, 0]):
        reason = ROUNDING
    warn(
        f"the completeness gap of {int(wide.any(1).sum())} of {counted(len(wide), 'input')} is over "
        f"{tolerance:g} of the difference of the scores after {counted(max_steps, 'step')}: {reason}"
    )


def check_steps(tolerance: float, max_steps: int, steps: int | None) -> None:
    """Raises an error where one of these settings makes no sense.

    Raises:
        ArgumentError: A tolerance that is not above 0, or a number of steps below 1.
    """
    if not tolerance > 0:
        raise ArgumentError(f"tolerance is a number above 0, got {tolerance}")
    check_counts(1, max_steps=max_steps, steps=steps)
    if steps is not None and steps > _MOST_STEPS:
        raise ArgumentError(
            f"{steps:,} steps take as many passes of each input forward and back, at most {_MOST_STEPS:,} "
            f"are made: without steps=... as many are taken as the tolerance needs, often some dozens"
        )
