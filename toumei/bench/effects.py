"""Standardized effects with intervals, and the effects that a test of a size can find."""

from collections.abc import Callable
from math import sqrt

import numpy as np

POWER = 0.8
"""How often a test should find an effect that is there."""


def standardized_effect(
    first: np.ndarray, second: np.ndarray, paired: bool, level: float
) -> tuple[float, tuple[float, float]]:
    """Returns by how many standard deviations the second samples are above the first, and an interval.

    That is Hedges' g: the difference of the means over the pooled standard deviation, or of pairs over the
    standard deviation of their differences, times 1 - 3 / (4 df - 1), which takes the bias of small samples
    away. The interval inverts the noncentral t distribution (Cumming & Finch, 2001).

    Args:
        first: (samples,).
        second: (samples,).
        paired: Whether they are pairs.
        level: How much the interval should hold, such as 0.95.
    """
    if paired:
        differences = second - first
        size, df = float(len(differences)), len(differences) - 1
        deviation = differences.std(ddof=1)
    else:
        count = len(first), len(second)
        size, df = count[0] * count[1] / sum(count), sum(count) - 2
        squares = sum((len(part) - 1) * part.var(ddof=1) for part in (first, second))
        deviation = sqrt(squares / df)
    effect = (second.mean() - first.mean()) / deviation
    unbiased = 1 - 3 / (4 * df - 1)
    low, high = (unbiased * end / sqrt(size) for end in _noncentrality(effect * sqrt(size), df, level))
    return float(unbiased * effect), (float(low), float(high))


def detectable_effect(size: float, df: float, alpha: float, sides: int) -> float:
    """Returns the standardized effect that a t test finds with a power of 0.8.

    Args:
        size: n1 n2 / (n1 + n2) of two groups, or the number of pairs.
        df: Degrees of freedom.
        alpha: How often the test may reject what is true.
        sides: 1 or 2.

    Example:
        >>> each = 64  # for an effect of a half: Cohen (1992)
        >>> round(detectable_effect(each / 2, 2 * each - 2, 0.05, 2), 2)
        0.5
    """
    from scipy.stats import nct, t

    limit = t.isf(alpha / sides, df)

    def surplus(effects: np.ndarray) -> np.ndarray:
        centers = effects * sqrt(size)
        power = nct.sf(limit, df, centers) + (nct.cdf(-limit, df, centers) if sides == 2 else 0)
        return np.asarray(power - POWER)

    high = limit / sqrt(size)
    while surplus(np.array([high]))[0] < 0:
        high *= 1.2
    return _root(surplus, 0.0, high)


def _noncentrality(statistic: float, df: int, level: float) -> tuple[float, float]:
    """The smallest and the largest noncentrality that make a t statistic not unusual."""
    from scipy.stats import nct, norm

    tail = (1 - level) / 2
    spread = norm.isf(tail) * sqrt(1 + statistic**2 / (2 * df))  # where the distribution is nearly normal
    ends = []
    for share, guess in ((1 - tail, statistic - spread), (tail, statistic + spread)):

        def surplus(centers: np.ndarray, share: float = share) -> np.ndarray:
            return np.asarray(share - nct.cdf(statistic, df, centers))

        room = 4 * spread + 4
        ends.append(_root(surplus, guess - room, guess + room, otherwise=guess))
    return ends[0], ends[1]


def _root(
    function: Callable[[np.ndarray], np.ndarray], low: float, high: float, otherwise: float = np.nan
) -> float:
    """Where an increasing function is zero; another value where it cannot be found.

    Noncentral distributions of SciPy give NaN at single places, which root finders take for a failure. Here
    such places are left out.
    """
    for _ in range(10):
        places = np.linspace(low, high, 33)
        values = function(places)
        known = np.isfinite(values)
        places, values = places[known], values[known]
        above = int(np.count_nonzero(values < 0))
        if not 0 < above < len(values):  # the numbers are too large for the distribution
            return otherwise
        low, high = places[above - 1], places[above]
    return float(low + high) / 2
