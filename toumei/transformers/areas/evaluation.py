"""Whether states and maps tell the categories apart, by a classifier that never saw the texts it is asked.

Scaling, reduction and classifier are one pipeline of scikit-learn, which is fitted on the training texts of
each fold alone. Texts of a group are never on both sides.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.style import drawing
from .reductions import Reduction

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AreaEvaluation(Saved):
    """How well a classifier tells the categories apart from the states of each layer, and from its map.

    Attributes:
        layers: The names of the layers.
        states: (layers, folds) the balanced accuracy with all numbers of the states.
        maps: (layers, folds) that with the coordinates of the map alone.
        chance: The balanced accuracy of guessing, 1 / categories.

    Example:
        >>> AreaEvaluation(
        ...     layers=("block",),
        ...     states=torch.tensor([[1.0, 0.9]]),
        ...     maps=torch.tensor([[0.6, 0.5]]),
        ...     chance=0.5,
        ... )
        AreaEvaluation(1 layer, 2 folds: states 95.0% in block, maps 55.0% in block, chance 50.0%)
    """

    layers: tuple[str, ...]
    states: Tensor
    maps: Tensor
    chance: float

    _specs = specs(layers="layers", states="layers folds", maps="layers folds")

    def __len__(self) -> int:
        return len(self.layers)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the mean over folds in each layer, and the range of folds.

        Args:
            ax: Where to draw; a new figure by default.
        """
        places = range(len(self.layers))
        with drawing(ax, 3 + 0.16 * max(len(self.layers), 12), 3.4) as ax:
            for name, scores, color in (
                ("all numbers of the states", self.states, style.BLUE),
                ("coordinates of the map", self.maps, style.ORANGE),
            ):
                ax.fill_between(places, scores.amin(1), scores.amax(1), color=color, alpha=0.2, linewidth=0)
                ax.plot(places, scores.mean(1), color=color, marker="o", label=name)
            ax.fill_between([], [], color=style.GRAY, alpha=0.2, linewidth=0, label="lowest to highest fold")
            ax.axhline(self.chance, color=style.GRAY, linestyle="--", label="guessing")
            ax.set_ylim(min(self.chance, float(self.maps.min())) - 0.05, 1.04)
            ax.set(xlabel="layer", ylabel="balanced accuracy", title="Categories told apart")
            ax.locator_params("x", integer=True)
            ax.legend()
        return ax

    def __repr__(self) -> str:
        best = []
        for name, scores in (("states", self.states), ("maps", self.maps)):
            share, place = scores.mean(1).max(0)
            best.append(f"{name} {float(share):.1%} in {shortened(self.layers[int(place)], 40)}")
        folds = self.states.shape[1]
        return (
            f"AreaEvaluation({counted(len(self), 'layer')}, {counted(folds, 'fold')}: {', '.join(best)}, "
            f"chance {self.chance:.1%})"
        )

    def __str__(self) -> str:
        width = max(len(shortened(layer)) for layer in ("layer", *self.layers))
        lines = [f"{'layer':{width}}  states           map              (guessing: {self.chance:.1%})"]
        for layer, states, maps in zip(self.layers, self.states, self.maps, strict=True):
            cells = [f"{float(one.mean()):6.1%} +- {float(one.std()):5.1%}" for one in (states, maps)]
            lines.append(f"{shortened(layer):{width}}  {cells[0]}  {cells[1]}")
        return "\n".join(lines)


def evaluated(
    states: Mapping[str, Tensor],
    labels: Tensor,
    groups: Tensor,
    reduction: Reduction,
    *,
    folds: int = 5,
    seed: int = 0,
    verbose: bool = False,
) -> AreaEvaluation:
    """Returns how well classifiers tell categories apart, by cross-validation.

    Folds have the same share of each category (StratifiedKFold), and whole groups (StratifiedGroupKFold)
    where texts are grouped.

    Args:
        states: By layer, (texts, width).
        labels: (texts,) the number of each category.
        groups: (texts,) the number of each group.
        reduction: What makes the coordinates of a map.
        folds: How many.
        seed: Of the folds.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: There is one category, or a category has fewer texts or groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    check_counts(2, folds=folds)
    check_seed(seed)
    single = len(groups.unique()) == len(groups)
    check_members(labels, groups, folds)
    splitter = (StratifiedKFold if single else StratifiedGroupKFold)(
        folds, shuffle=True, random_state=seed % 2**32
    )
    splits = list(splitter.split(labels, labels, None if single else groups))
    rows: dict[str, list[Tensor]] = {"states": [], "maps": []}
    for layer, found in tqdm(states.items(), "classifiers", disable=not verbose):
        reduction.check(layer, min(len(train) for train, _ in splits), found.shape[1])
        for name, first in (("states", None), ("maps", reduction)):
            scores = scored(found, labels, first, splits, ("balanced_accuracy",))
            rows[name].append(scores["balanced_accuracy"])
    chance = 1 / len(labels.unique())
    return AreaEvaluation(
        layers=tuple(states), chance=chance, **{name: torch.stack(row) for name, row in rows.items()}
    )


def scored(
    states: Tensor, labels: Tensor, reduction: Reduction | None, splits: Any, metrics: Sequence[str]
) -> dict[str, Tensor]:
    """Returns the scores of logistic regression on the test texts of each split, by metric.

    Args:
        states: (texts, width).
        labels: (texts,).
        reduction: What comes before the classifier; None for all numbers.
        splits: Pairs of the places of training and test texts.
        metrics: Names of scorers of scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_validate
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    first = [] if reduction is None else [reduction.estimator()]
    pipeline = make_pipeline(*first, StandardScaler(), LogisticRegression(max_iter=2000))
    with warnings.catch_warnings():  # of older scikit-learn: a label is guessed that no text of a fold has
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        found = cross_validate(pipeline, states.numpy(), labels.numpy(), scoring=list(metrics), cv=splits)
    return {name: torch.from_numpy(found[f"test_{name}"]) for name in metrics}


def check_members(labels: Tensor, groups: Tensor, folds: int) -> None:
    """Raises an error where a category has too few texts or groups to be in every fold."""
    numbers = labels.unique()
    if len(numbers) < 2:
        raise ArgumentError("a classifier tells two categories or more apart, there is one")
    counts = [len(groups[labels == number].unique()) for number in numbers]
    if min(counts) < folds:
        what = counted(min(counts), "text" if len(groups.unique()) == len(groups) else "group")
        raise ArgumentError(f"the smallest category has {what}, too few for {folds} folds")
