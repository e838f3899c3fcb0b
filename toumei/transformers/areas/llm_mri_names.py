"""What LLM-MRI has beside its areas, under its names: metrics of graphs, and what a map loses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networkx as nx

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.summaries import listed, shortened
from ...plots import style
from ...plots.style import drawing
from .activation_areas import ActivationAreas
from .evaluation import check_members, scored
from .metrics import graph_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LLM_MRI = ActivationAreas
"""The name of the class in the first README."""

METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro")
"""The metrics of `Evaluation` by default, under scikit-learn's names."""


class Metrics:
    """The numbers of a graph under LLM-MRI's names.

    Args:
        graph: A graph from `Areas.graph`.
        model: The name of the model, kept beside the numbers.
        label: The name of the category.

    Example:
        >>> graph = nx.DiGraph(layers=("embedding", "block"))
        >>> graph.add_edge("0_0_0", "1_0_0", weight=2)
        >>> Metrics(graph, "gpt2", "true").get_basic_metrics()["density"]
        1.0
    """

    @checked
    def __init__(self, graph: nx.DiGraph, model: str, label: str) -> None:
        self.graph, self.model, self.label = graph, model, label
        self._found = graph_metrics(graph)

    def get_basic_metrics(self) -> dict[str, Any]:
        """Returns all numbers, and the names of the model and of the category."""
        return {**self._found, "model_name": self.model, "label": self.label}


class Evaluation:
    """What a map loses of what the states say, under LLM-MRI's names.

    Both classifiers see the same layer, the last one, so that the reduction is the only difference; it is
    fitted on training texts alone.

    Args:
        activation_areas: Areas whose states were kept.

    Raises:
        ArgumentError: It is something else.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers.areas import ActivationAreas
        >>> model, tokenizer, world = facts_gpt()
        >>> facts = [fact for fact in world.facts if fact.relation in ("residence", "instrument")][:80]
        >>> texts, labels = [fact.text for fact in facts], [fact.relation for fact in facts]
        >>> settings = {"tokenizer": tokenizer, "map_dimension": 8, "verbose": False}
        >>> areas = ActivationAreas(model, texts, labels, **settings)
        >>> _ = areas.process_activation_areas()
        >>> list(Evaluation(areas).evaluate_model(n_splits=2, metrics="accuracy"))
        ['accuracy']
    """

    @checked
    def __init__(self, activation_areas: ActivationAreas) -> None:
        self.activation_areas = activation_areas

    @checked
    def evaluate_model(
        self,
        n_splits: int = 5,
        test_size: float = 0.3,
        random_state: int = 42,
        n_components: int | None = None,
        metrics: str | Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Returns, for each metric, its mean with all states minus that with the map alone.

        Args:
            n_splits: How many random splits.
            test_size: The share of texts, or of groups, that are held out.
            random_state: The seed of the splits.
            n_components: Coordinates of the map, by default those of the areas.
            metrics: Names of scorers of scikit-learn; `METRICS` by default.

        Raises:
            ArgumentError: There is one category, one with too few texts, or no such metric.
        """
        from sklearn.metrics import get_scorer_names
        from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

        check_counts(1, n_splits=n_splits)
        if not 0 < test_size < 1:
            raise ArgumentError(f"test_size is a share between 0 and 1, got {test_size}")
        names = METRICS if metrics is None else (metrics,) if isinstance(metrics, str) else tuple(metrics)
        unknown = [name for name in names if name not in get_scorer_names()]
        if unknown or not names:
            wrong = repr(unknown[0]) if unknown else "without a name"
            raise ArgumentError(f"scikit-learn has no scorer {wrong}: there are {listed(METRICS)}, ...")
        areas, states = self.activation_areas.areas, self.activation_areas.states
        last = states[areas.layers[-1]]
        check_members(areas.labels, areas.groups, 2)
        single = len(areas.groups.unique()) == len(areas)
        splitter = (StratifiedShuffleSplit if single else GroupShuffleSplit)(
            n_splits, test_size=test_size, random_state=random_state % 2**32
        )
        splits = list(splitter.split(areas.labels, areas.labels, None if single else areas.groups))
        reduction = self.activation_areas.reduction
        reduction = reduction if n_components is None else replace(reduction, n_components=n_components)
        reduction.check(areas.layers[-1], min(len(train) for train, _ in splits), last.shape[1])
        full = scored(last, areas.labels, None, splits, names)
        reduced = scored(last, areas.labels, reduction, splits, names)
        return {name: float((full[name] - reduced[name]).mean()) for name in names}

    @checked
    def display_metrics(self, classifier_metrics: dict[str, float]) -> "Figure":
        """Returns a figure with what `evaluate_model` returned as bars.

        Args:
            classifier_metrics: Differences by metric.
        """
        if not classifier_metrics:
            raise ArgumentError("expected metrics to draw, got none")
        with drawing(None, 5.5, 0.8 + 0.4 * len(classifier_metrics)) as ax:
            names = list(classifier_metrics)[::-1]
            values = [classifier_metrics[name] for name in names]
            bars = ax.barh([shortened(name) for name in names], values, color=style.BLUE)
            ax.bar_label(bars, fmt="%+.3f", padding=3, fontsize=style.LABEL)
            ax.axvline(0, color="black", linewidth=0.8)
            ax.margins(x=0.15)
            ax.set(xlabel="states minus map", title="What classifiers of the map miss")
        figure: Figure = ax.figure  # type: ignore[assignment]
        return figure
