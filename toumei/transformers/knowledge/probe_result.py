"""What probes find in each layer, beside what they find without knowledge."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWS = 2000  # of groups, with replacement


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ProbeResult(Saved):
    """The accuracy of probes of several activations, each tested on groups that it was not trained on.

    Attributes:
        names: The activations.
        kind: Linear or mlp.
        position: At which tokens.
        classes: The labels.
        correct: Whether each example is classified right, (names, examples), 0 or 1.
        control: The same for a control task, random labels of the types of words; no rows without.
        random: The same for the activations of a network with random weights; no rows without.
        groups: The group of each example, (examples,).
        majority: The share of the most frequent label.
        confidence: Of the intervals.

    Example:
        >>> right = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
        >>> found = ProbeResult(
        ...     names=("blocks.0.hook_resid_post", "blocks.1.hook_resid_post"),
        ...     kind="linear",
        ...     position="last",
        ...     classes=("judge", "baker"),
        ...     correct=right,
        ...     control=right[:0],
        ...     random=right[:0],
        ...     groups=torch.arange(4),
        ...     majority=0.5,
        ...     confidence=0.95,
        ... )
        >>> found.accuracy
        tensor([0.7500, 1.0000])
    """

    names: tuple[str, ...]
    kind: str
    position: str
    classes: tuple[str, ...]
    correct: Tensor
    control: Tensor
    random: Tensor
    groups: Tensor
    majority: float
    confidence: float

    _specs = specs(
        names="names",
        correct="names examples",
        control="_ examples",
        random="_ examples",
        groups=Spec("examples", kind="integer"),
    )

    @property
    def accuracy(self) -> Tensor:
        """The share of examples that are classified right, (names,)."""
        return self.correct.mean(1)

    @property
    def control_accuracy(self) -> Tensor:
        """The same for the control task, (names,); nothing without one."""
        return self.control.mean(1)

    @property
    def random_accuracy(self) -> Tensor:
        """The same for random weights, (names,); nothing without."""
        return self.random.mean(1)

    @property
    def selectivity(self) -> Tensor:
        """Accuracy minus that of the control task, (names,): near 0 if the probe learns types by heart.

        Raises:
            ArgumentError: There was no control task.
        """
        if not len(self.control):
            raise ArgumentError("there is no control task: probe with control=True")
        return self.accuracy - self.control_accuracy

    @cached_property
    def intervals(self) -> Tensor:
        """The intervals of the accuracies, (names, 2), by a bootstrap over groups."""
        return self._intervals(self.correct)

    @cached_property
    def selectivity_intervals(self) -> Tensor:
        """The intervals of the selectivities, (names, 2), by a bootstrap over groups."""
        return self._intervals(self.correct - self.control) if len(self.selectivity) else self.control

    def _intervals(self, values: Tensor) -> Tensor:
        """Quantiles of the mean over examples, of groups that are drawn with replacement."""
        _, places = self.groups.unique(return_inverse=True)
        count = int(places.max()) + 1
        sums = torch.zeros(len(values), count, dtype=torch.float64).index_add_(1, places, values.double())
        sizes = torch.zeros(count, dtype=torch.float64).index_add_(
            0, places, torch.ones(len(places), dtype=torch.float64)
        )
        draws = torch.randint(count, (_DRAWS, count), generator=make_generator(0))
        means = torch.stack([sums[:, row].sum(1) / sizes[row].sum() for row in draws])
        tail = (1 - self.confidence) / 2
        return means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0).T

    @checked
    def best(self, k: int = 1) -> tuple[str, ...]:
        """Returns the activations with the most accurate probes, the best first."""
        check_counts(1, k=k)
        return tuple(self.names[place] for place in self.accuracy.argsort(descending=True, stable=True)[:k])

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the accuracies by activation, with intervals, and what they are compared with.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with drawing(ax, min(max(4.0, 0.3 * len(self.names)), 10.0), 3.4) as axes:
            places = range(len(self.names))
            low, high = self.intervals.T
            band = f"{self.confidence:.0%} interval"
            axes.fill_between(places, low, high, color=style.BLUE, alpha=0.2, linewidth=0, label=band)
            curves = [(f"{self.kind} probe", self.accuracy, style.BLUE)]
            if len(self.control):
                curves.append(("control task", self.control_accuracy, style.ORANGE))
            if len(self.random):
                curves.append(("random weights", self.random_accuracy, style.GREEN))
            for name, values, color in curves:
                axes.plot(places, values, "o-", markersize=4, color=color, label=name)
            axes.axhline(
                self.majority, color=style.GRAY, linestyle="--", linewidth=1, label="most frequent label"
            )
            step = -(-len(self.names) // 16)
            labels, title = short_names(self.names)
            axes.set_xticks(places[::step], labels[::step])
            axes.set(xlabel=title, ylabel="accuracy", ylim=(0, 1.02))
            axes.set_title(f"Which of {counted(len(self.classes), 'label')}, read by probes")
            axes.legend()
        return axes

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        (name,) = self.best()
        at = self.names.index(name)
        beside = f", selectivity {float(self.selectivity[at]):.2f}" if len(self.control) else ""
        return (
            f"ProbeResult({self.kind}, {counted(len(self), 'activation')}, "
            f"{counted(self.correct.shape[1], 'example')} of {counted(len(self.classes), 'class')}: best "
            f"{name[-40:]} {float(self.accuracy[at]):.2f}{beside})"
        )

    def __str__(self) -> str:
        examples, groups = self.correct.shape[1], len(self.groups.unique())
        lines = [
            f"{self.kind} probes of {counted(len(self.classes), 'class')} at {self.position}: "
            f"{counted(examples, 'example')} in {counted(groups, 'group')}, most frequent label "
            f"{self.majority:.2f}",
            f"{'':>28}  accuracy ({self.confidence:.0%})     control  random weights",
        ]
        for place, name in enumerate(self.names):
            low, high = self.intervals[place].tolist()
            others = [f"{float(each[place]):.2f}" if len(each) else "-" for each in self._beside]
            lines.append(
                f"{name[-28:]:>28}  {float(self.accuracy[place]):.2f} ({low:.2f} to {high:.2f})  "
                f"{others[0]:>7}  {others[1]:>14}"
            )
        return "\n".join(lines)

    @property
    def _beside(self) -> tuple[Tensor, Tensor]:
        return self.control_accuracy, self.random_accuracy


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Returns the names of the ticks of an axis, and its title: the layers where they tell names apart.

    Example:
        >>> short_names(["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"])
        (['0', '1'], 'layer (resid_post)')
    """
    parts = [name.split(".") for name in names]
    numbered = all(len(part) > 2 and part[0] == "blocks" and part[1].isdigit() for part in parts)
    if numbered and len({tuple(part[2:]) for part in parts}) == 1:
        return [part[1] for part in parts], f"layer ({parts[0][-1].removeprefix('hook_')})"
    return list(names), ""
