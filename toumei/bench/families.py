"""Families of tests: p-values that allow for how many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.checks import check_choice, checked
from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..core.serialization import Saved
from ..core.summaries import counted, shortened
from ..core.tensor_specs import specs
from ..plots.style import GRAY, RED, drawing
from .hypotheses import HypothesisTest, compare_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CORRECTIONS = ("holm", "benjamini-hochberg")


@dataclass(frozen=True, repr=False)
class HypothesisFamily(Saved):
    """Several tests, and which of them still count among so many.

    Attributes:
        names: What each test is called.
        p_values: Of each alone, (tests,).
        holm: Adjusted so that one false rejection among all is as rare as alpha (Holm, 1979), (tests,).
        benjamini_hochberg: Adjusted so that alpha is the share of false ones among those that are rejected
            (Benjamini & Hochberg, 1995), (tests,).
        effects: Hedges' g of each, (tests,).
        intervals: Where the effects are, (tests, 2).
        alpha: A test counts up to this adjusted p-value.

    Example:
        >>> family = HypothesisFamily(
        ...     names=("head 0", "head 1"),
        ...     p_values=torch.tensor([0.001, 0.4]),
        ...     holm=torch.tensor([0.002, 0.4]),
        ...     benjamini_hochberg=torch.tensor([0.002, 0.4]),
        ...     effects=torch.tensor([-1.2, 0.1]),
        ...     intervals=torch.tensor([[-1.6, -0.8], [-0.3, 0.5]]),
        ...     alpha=0.05,
        ... )
        >>> family
        HypothesisFamily(2 tests at 0.05: 1 rejected alone, 1 by Benjamini-Hochberg, 1 by Holm)
    """

    names: tuple[str, ...]
    p_values: Tensor
    holm: Tensor
    benjamini_hochberg: Tensor
    effects: Tensor
    intervals: Tensor
    alpha: float
    _specs = specs(
        p_values="tests", holm="tests", benjamini_hochberg="tests", effects="tests", intervals="tests 2"
    )

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        columns = self.p_values, self.benjamini_hochberg, self.holm
        counts = [int((column <= self.alpha).sum()) for column in columns]
        return (
            f"HypothesisFamily({counted(len(self), 'test')} at {self.alpha:g}: {counts[0]} rejected alone, "
            f"{counts[1]} by Benjamini-Hochberg, {counts[2]} by Holm)"
        )

    def __str__(self) -> str:
        names = [shortened(name, 60) for name in self.names]
        width = max(map(len, names))
        lines = [f"{'':{width}}  {'effect':>8} {'interval':>16} {'p':>9} {'BH':>9} {'Holm':>9}"]
        for row in self.p_values.argsort(stable=True).tolist():
            low, high = self.intervals[row].tolist()
            numbers = (self.p_values[row], self.benjamini_hochberg[row], self.holm[row])
            shown = " ".join(f"{float(number):9.2g}" for number in numbers)
            interval = f"[{low:.2f}, {high:.2f}]"
            lines.append(f"{names[row]:{width}}  {float(self.effects[row]):8.2f} {interval:>16} {shown}")
        return "\n".join(lines)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the effect of each test and its interval; those that Holm rejects in orange."""
        order = self.effects.argsort().tolist()
        with drawing(ax, 6.0, 1.2 + 0.25 * len(self)) as ax:
            for place, row in enumerate(order):
                color = RED if self.holm[row] <= self.alpha else GRAY
                ax.plot(self.intervals[row].tolist(), [place, place], color=color)
                ax.plot(self.effects[row].item(), place, "o", color=color, markersize=5)
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set(yticks=range(len(self)), yticklabels=[shortened(self.names[row], 40) for row in order])
            for color, words in ((RED, "rejected"), (GRAY, "not rejected")):
                ax.plot([], [], "o-", color=color, markersize=5, label=words)
            ax.legend()
            rejected = int((self.holm <= self.alpha).sum())
            ax.set_title(f"{rejected} of {counted(len(self), 'test')} rejected by Holm at {self.alpha:g}")
            ax.set_xlabel(f"effect (Hedges' g) with {1 - self.alpha:.0%} interval")
        return ax


@checked
def adjusted(p_values: Sequence[float] | Tensor, method: str = "holm") -> Tensor:
    """Returns p-values (tests,) that allow for their number.

    Args:
        p_values: (tests,).
        method: ``"holm"`` for the rate of any false rejection, ``"benjamini-hochberg"`` for the share of
            false ones among the rejected.

    Raises:
        ArgumentError: A number is not between 0 and 1.

    Example:
        >>> adjusted([0.01, 0.04, 0.03], "holm")
        tensor([0.0300, 0.0600, 0.0600], dtype=torch.float64)
    """
    from scipy.stats import false_discovery_control

    check_choice("method", method, CORRECTIONS)
    given = torch.as_tensor(p_values).detach().cpu().double()
    if given.dim() != 1 or not len(given) or not bool(((given >= 0) & (given <= 1)).all()):
        raise ArgumentError(f"p-values are numbers from 0 to 1, (tests,), got {shown(p_values)}")
    if method == "benjamini-hochberg":
        return torch.as_tensor(false_discovery_control(given.numpy(), method="bh"))
    order = given.argsort(stable=True)
    left = torch.arange(len(given), 0, -1)
    raised = (given[order] * left).cummax(0).values.clamp(max=1)
    return torch.empty_like(given).scatter(0, order, raised)


@checked
def compare_family(
    groups: Mapping[str, Any],
    *,
    method: str = "welch",
    alternative: str = "two-sided",
    alpha: float = 0.05,
    resamples: int = 9999,
    seed: int = 0,
) -> HypothesisFamily:
    """Returns tests of several pairs of groups, adjusted for their number.

    Args:
        groups: The first and the second group of each test, by its name.
        method: As in `compare_samples`.
        alternative: What is tested for, as there.
        alpha: A test counts up to this adjusted p-value.
        resamples: How many permutations or bootstrap samples in each test.
        seed: Their seed.

    Raises:
        ArgumentError: There are none, or one cannot be tested.

    Example:
        >>> null, far, near = [0.1, 0.3, 0.2, 0.4, 0.2], [0.9, 0.8, 1.0, 0.9, 0.7], [0.2, 0.1, 0.4, 0.3, 0.3]
        >>> compare_family({"head 0": (null, far), "head 1": (null, near)})
        HypothesisFamily(2 tests at 0.05: 1 rejected alone, 1 by Benjamini-Hochberg, 1 by Holm)
    """
    tests = {}
    for name, pair in groups.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ArgumentError(f"{name!r} has two groups of samples")
        try:
            tests[name] = compare_samples(
                *pair, method=method, alternative=alternative, alpha=alpha, resamples=resamples, seed=seed
            )
        except ArgumentError as error:
            raise type(error)(f"{name}: {error}") from error
    return family_of(tests)


def family_of(tests: Mapping[str, HypothesisTest]) -> HypothesisFamily:
    """Returns the family of tests.

    Raises:
        ArgumentError: There are none, or they have another alpha.
    """
    levels = {test.alpha for test in tests.values()}
    if len(levels) != 1:
        said = f"alphas {sorted(levels)}" if levels else "no tests"
        raise ArgumentError(f"a family has tests of the same alpha, got {said}")
    p_values = torch.tensor([test.p_value for test in tests.values()], dtype=torch.float64)
    return HypothesisFamily(
        names=tuple(tests),
        p_values=p_values,
        holm=adjusted(p_values, "holm"),
        benjamini_hochberg=adjusted(p_values, "benjamini-hochberg"),
        effects=torch.tensor([test.effect for test in tests.values()], dtype=torch.float64),
        intervals=torch.tensor([test.effect_interval for test in tests.values()], dtype=torch.float64),
        alpha=levels.pop(),
    )
