"""The straight path from a baseline to an input, and quadrature along it."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ..base.baseline_samples import BaselineSamples
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE
from ..base.problem import Problem


def one_baseline(
    problem: Problem,
    baselines: BaselineLike,
    method: str,
    alternative: str,
    batch_size: int = BATCH_SIZE,
) -> tuple[Tensor, ...]:
    """Returns the baseline of each input, each (N, ...), of what is attributed to.

    Raises:
        ArgumentError: A distribution of baselines; the message names the method that takes one.
    """
    drawn = BaselineSamples(problem, baselines, 1)
    if drawn.is_random:
        raise ArgumentError(
            f"{method} takes one baseline an input: for a distribution there is {alternative}"
        )
    return tuple(own[0].expand(len(problem), *own.shape[2:]) for own in drawn.all(batch_size))


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Returns the places and weights, each (count,) in float64, of Gauss-Legendre quadrature from 0 to 1.

    Polynomials up to degree ``2 * count - 1`` are integrated exactly.

    Example:
        >>> places, weights = nodes(2)
        >>> bool(((weights * places**3).sum() - 1 / 4).abs() < 1e-15)
        True
    """
    places, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((places + 1) / 2), torch.from_numpy(weights / 2)


def between(start: Sequence[Tensor], end: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """Returns points (B, ...) on the straight lines between tensors (B, ...), at shares (B,) of the way."""
    points = []
    for first, last in zip(start, end, strict=True):
        own = shares.to(device=last.device, dtype=last.dtype).reshape(-1, *(1,) * (last.dim() - 1))
        points.append(torch.lerp(first, last, own))
    return points


def sums(values: Sequence[Tensor]) -> Tensor:
    """The sums (N, T) of contributions, each (T, N, ...), in float64 on the CPU."""
    return torch.stack([part.double().flatten(2).sum(2).cpu() for part in values]).sum(0).T


def warn_incomplete(wide: Tensor, tolerance: float, max_steps: int) -> None:
    """Warns of inputs whose gap is too wide, (N, T)."""
    if wide.any():
        warnings.warn(
            f"{int(wide.any(1).sum())} of {len(wide)} inputs have a completeness gap over {tolerance:g} of "
            f"the difference of the scores after {max_steps} steps: raise max_steps or the tolerance",
            stacklevel=5,
        )


def check_steps(tolerance: float, max_steps: int, steps: int | None, batch_size: int) -> None:
    """Raises an error where one of these numbers makes no sense."""
    if tolerance <= 0:
        raise ArgumentError(f"tolerance is a number above 0, got {tolerance}")
    for name, number in (("max_steps", max_steps), ("steps", steps), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ArgumentError(f"{name} is a number from 1 on, got {number}")
