"""Tests of whether two groups of samples differ, with an effect and an interval."""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_choice, check_counts, checked
from ..core.errors import ArgumentError, NonFiniteError
from ..core.kinds import shown
from ..core.serialization import Saved
from ..core.summaries import counted, shortened
from ..core.tensor_specs import specs
from ..plots.style import BLUE, RED, drawing
from .effects import detectable_effect, standardized_effect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("welch", "paired", "permutation", "bootstrap")
SIDES = ("two-sided", "greater", "less")
_FEWEST = {"welch": 2, "paired": 2, "permutation": 2, "bootstrap": 5}


@dataclass(frozen=True, repr=False)
class HypothesisTest(Saved):
    """Whether two groups of samples have another mean.

    Attributes:
        first: The samples of the first group, those under the null hypothesis, (samples,).
        second: Those of the second group, (samples,).
        method: ``"welch"``, ``"paired"``, ``"permutation"`` or ``"bootstrap"``.
        alternative: ``"two-sided"``, ``"greater"`` (the second group is) or ``"less"``.
        p_value: How often groups without a difference are as far apart.
        alpha: The null hypothesis is rejected up to this p-value.
        difference: The mean of the second group minus that of the first.
        interval: Where the difference is, with a confidence of 1 - alpha.
        effect: The difference in standard deviations, Hedges' g.
        effect_interval: Where that is, with a confidence of 1 - alpha.
        detectable: The smallest effect that so many samples show in 80 % of all tests.
        names: What the groups are called.
        family: The family of tests that it belongs to.

    Example:
        >>> from toumei.bench import compare_samples
        >>> compare_samples([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.0], method="welch")
        HypothesisTest(welch, 4 and 4 samples, p = 2.4e-06, effect 10.65 [4.69, 16.63])
    """

    first: Tensor
    second: Tensor
    method: str
    alternative: str
    p_value: float
    alpha: float
    difference: float
    interval: tuple[float, float]
    effect: float
    effect_interval: tuple[float, float]
    detectable: float
    names: tuple[str, str] = ("null", "alternative")
    family: str = ""
    _specs = specs(first="first", second="second")

    @property
    def reject_null(self) -> bool:
        """Whether the groups differ, by this test alone; see `compare_family` for several."""
        return self.p_value <= self.alpha

    def __repr__(self) -> str:
        low, high = self.effect_interval
        return (
            f"HypothesisTest({self.method}, {len(self.first)} and {counted(len(self.second), 'sample')}, p = "
            f"{self.p_value:.2g}, effect {self.effect:.2f} [{low:.2f}, {high:.2f}])"
        )

    def __str__(self) -> str:
        share = f"{100 * (1 - self.alpha):g} %"
        (low, high), (least, most) = self.interval, self.effect_interval
        groups = [shortened(name) for name in self.names]
        said = "rejected" if self.reject_null else "not rejected"
        return "\n".join(
            [
                f"{groups[1]} against {groups[0]}: {self.method}, {self.alternative}",
                f"p = {self.p_value:.3g}, null hypothesis {said} at {self.alpha:g}",
                f"difference {self.difference:.4g}, {share} in [{low:.4g}, {high:.4g}]",
                f"effect g = {self.effect:.2f}, {share} in [{least:.2f}, {most:.2f}]",
                f"so many samples show effects from {self.detectable:.2f} on in 80 % of tests",
            ]
        )

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the samples of both groups and their means; pairs are joined by lines."""
        with drawing(ax, 4.0, 3.5) as ax:
            groups = [self.first.tolist(), self.second.tolist()]
            if self.method == "paired":
                ax.plot([0, 1], groups, color="0.8", linewidth=0.8, zorder=1)
            for place, (group, color) in enumerate(zip(groups, (BLUE, RED), strict=True)):
                width = 0.0 if self.method == "paired" else 0.15
                places = torch.linspace(-width, width, len(group)) + place
                ax.scatter(places, group, s=12, color=color, alpha=0.6, linewidths=0, zorder=2)
                ax.hlines(sum(group) / len(group), place - 0.25, place + 0.25, color="black", zorder=3)
            ax.set(xticks=[0, 1], xticklabels=self.names, xlim=(-0.6, 1.6), ylabel="samples")
            ax.set_title(f"Do they differ? p = {self.p_value:.2g}, effect {self.effect:.2f}")
        return ax


@checked
def compare_samples(
    first: Any,
    second: Any,
    *,
    method: str = "welch",
    alternative: str = "two-sided",
    alpha: float = 0.05,
    names: tuple[str, str] = ("null", "alternative"),
    family: str = "",
    resamples: int = 9999,
    seed: int = 0,
) -> HypothesisTest:
    """Returns whether the second group of samples has another mean than the first.

    Welch's t test allows for different variances, the paired t test compares each sample with its partner,
    the permutation test exchanges samples between the groups (all ways if there are few), and the bootstrap
    test draws both groups again from themselves, shifted to a common mean (Efron & Tibshirani, 1993,
    algorithm 16.2). The interval of the difference is that of the t test, for the bootstrap BCa.

    Args:
        first: The first group, under the null hypothesis: numbers, an array or a tensor (samples,).
        second: The second group.
        method: ``"welch"``, ``"paired"``, ``"permutation"`` or ``"bootstrap"``.
        alternative: What is tested for: ``"two-sided"``, ``"greater"`` (the second group is) or ``"less"``.
        alpha: The null hypothesis is rejected up to this p-value.
        names: What the groups are called.
        family: The family of tests that it belongs to.
        resamples: How many permutations or bootstrap samples.
        seed: Their seed.

    Raises:
        ArgumentError: There are too few samples, no variation or no pairs, or so few permutations that none
            could be below alpha.
        NonFiniteError: A sample is NaN or infinite.

    Example:
        >>> first, second = [0.1, 0.3, 0.2, 0.4, 0.2, 0.3], [0.6, 0.9, 0.7, 0.8, 0.9, 0.6]
        >>> compare_samples(first, second, method="permutation")
        HypothesisTest(permutation, 6 and 6 samples, p = 0.0022, effect 3.77 [1.81, 5.68])
    """
    check_choice("method", method, METHODS)
    check_choice("alternative", alternative, SIDES)
    check_counts(99, resamples=resamples)
    if not 0 < alpha < 1:
        raise ArgumentError(f"alpha is between 0 and 1, got {alpha}")
    groups = _numbers("first", first), _numbers("second", second)
    _check_samples(groups, method, alpha, 2 if alternative == "two-sided" else 1)
    p_value, interval = _TESTS[method](*groups, alternative, alpha, resamples, seed)
    paired = method == "paired"
    count = len(groups[0]), len(groups[1])
    size = float(count[0]) if paired else count[0] * count[1] / sum(count)
    df = count[0] - 1 if paired else sum(count) - 2
    effect, effect_interval = standardized_effect(*groups, paired, 1 - alpha)
    return HypothesisTest(
        first=torch.from_numpy(groups[0]),
        second=torch.from_numpy(groups[1]),
        method=method,
        alternative=alternative,
        p_value=float(p_value),
        alpha=float(alpha),
        difference=float(groups[1].mean() - groups[0].mean()),
        interval=(float(interval[0]), float(interval[1])),
        effect=effect,
        effect_interval=effect_interval,
        detectable=detectable_effect(size, df, alpha, 2 if alternative == "two-sided" else 1),
        names=names,
        family=family,
    )


def _numbers(name: str, samples: Any) -> np.ndarray:
    try:
        tensor = isinstance(samples, Tensor)
        numbers = np.array(samples.detach().cpu().double() if tensor else samples, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{name} has a number for each sample, got {shown(samples)}") from error
    if numbers.ndim != 1:
        raise ArgumentError(f"{name} has a number for each sample, (samples,), got {numbers.shape}")
    if not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise NonFiniteError(f"{name} has a sample that is NaN or infinite, number {place}")
    return numbers


def _check_samples(groups: tuple[np.ndarray, np.ndarray], method: str, alpha: float, sides: int) -> None:
    """Refuses what the test cannot tell anything of."""
    count = len(groups[0]), len(groups[1])
    if min(count) < _FEWEST[method]:
        needed = f"{_FEWEST[method]} samples or more in each group"
        raise ArgumentError(f"{method} needs {needed}, got {count[0]} and {count[1]}")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = [np.square(group - group.mean()).sum() for group in groups if np.ptp(group)]
    if any(not 0 < square < np.inf for square in squares):
        largest = max(float(np.abs(group).max()) for group in groups)
        raise ArgumentError(f"samples up to {largest:.2g} have squares that no float holds: scale them")
    if method == "paired":
        if count[0] != count[1]:
            raise ArgumentError(
                f"samples are pairs, got {count[0]} and {count[1]}: pair them, or use 'welch'"
            )
        if not np.ptp(groups[1] - groups[0]):
            raise ArgumentError("all pairs differ by the same amount: without variation there is no test")
    elif not any(np.ptp(group) for group in groups):
        raise ArgumentError("each group has the same number throughout: without variation there is no test")
    if method == "permutation":
        ways = comb(sum(count), count[0])
        if sides / ways > alpha:
            raise ArgumentError(
                f"{count[0]} and {count[1]} samples have {ways} permutations, so no p-value is below "
                f"{sides / ways:.2g}, and alpha is {alpha:g}: take more samples"
            )


def _welch(first: np.ndarray, second: np.ndarray, alternative: str, alpha: float, *_: int) -> Any:
    from scipy.stats import ttest_ind

    p_value = ttest_ind(second, first, equal_var=False, alternative=alternative).pvalue
    return p_value, ttest_ind(second, first, equal_var=False).confidence_interval(1 - alpha)


def _paired(first: np.ndarray, second: np.ndarray, alternative: str, alpha: float, *_: int) -> Any:
    from scipy.stats import ttest_rel

    p_value = ttest_rel(second, first, alternative=alternative).pvalue
    return p_value, ttest_rel(second, first).confidence_interval(1 - alpha)


def _permutation(
    first: np.ndarray, second: np.ndarray, alternative: str, alpha: float, resamples: int, seed: int
) -> Any:
    from scipy.stats import permutation_test

    found = permutation_test(
        (second, first),
        _difference,
        vectorized=True,
        n_resamples=resamples,
        alternative=alternative,
        random_state=np.random.default_rng(seed % 2**63),
    )
    return found.pvalue, _welch(first, second, "two-sided", alpha)[1]


def _bootstrap(
    first: np.ndarray, second: np.ndarray, alternative: str, alpha: float, resamples: int, seed: int
) -> Any:
    from scipy.stats import bootstrap

    draw = np.random.default_rng(seed % 2**63)
    common = np.concatenate([first, second]).mean()
    drawn = [draw.choice(part - part.mean() + common, (resamples, len(part))) for part in (first, second)]
    with np.errstate(divide="ignore", invalid="ignore"):  # samples that are all the same
        statistics = _studentized(*drawn)
    statistics = np.nan_to_num(statistics, nan=0.0)
    observed = _studentized(first, second)
    distances = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}[alternative]
    reached = (distances(statistics) >= distances(observed)).sum()
    found = bootstrap(
        (second, first),
        _difference,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=1 - alpha,
        random_state=draw,
    )
    return (1 + reached) / (1 + resamples), found.confidence_interval


_TESTS: dict[str, Callable[..., Any]] = {
    "welch": _welch,
    "paired": _paired,
    "permutation": _permutation,
    "bootstrap": _bootstrap,
}


def _difference(second: np.ndarray, first: np.ndarray, axis: int = -1) -> Any:
    return second.mean(axis=axis) - first.mean(axis=axis)


def _studentized(first: np.ndarray, second: np.ndarray) -> Any:
    variance = sum(part.var(axis=-1, ddof=1) / part.shape[-1] for part in (first, second))
    return _difference(second, first) / np.sqrt(variance)
