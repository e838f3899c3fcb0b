"""Whether two categories differ: maps and graphs against those of shuffled categories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.progress import trange
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.style import drawing
from .cell_graph import Edges, cell_numbers, edges_of
from .maps import Maps
from .metrics import NAMES, metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AreaComparison(Saved):
    """How the areas of two categories differ, with p-values of a permutation test.

    The null hypothesis is that the categories of texts (of whole groups, where groups were given) can be
    exchanged. The p-value of a number is (1 + how many shuffles reach it) / (1 + shuffles), two-sided for the
    metrics of the graph (Phipson and Smyth 2010); it is never 0.

    Attributes:
        categories: The two names.
        texts: How many texts each has.
        layers: The names of the layers.
        distances: (layers,) the total variation distance of the two maps of a layer: the share of texts that
            would have to move for one map to become the other.
        null_distances: (permutations, layers) that of shuffled categories.
        metrics: The names of the metrics of graphs; see `graph_metrics`.
        values: (2, metrics) the metrics of both graphs.
        null_differences: (permutations, metrics) the second minus the first, of shuffled categories.

    Example:
        >>> found = AreaComparison(
        ...     categories=("a", "b"), texts=(9, 9), layers=("block",), metrics=("density",),
        ...     distances=torch.tensor([0.5]), null_distances=torch.tensor([[0.1], [0.2], [0.1]]),
        ...     values=torch.tensor([[0.2], [0.3]]), null_differences=torch.tensor([[0.0], [0.2], [0.1]]),
        ... )
        >>> found.distance_p_values, found.p_values
        (tensor([0.2500]), tensor([0.7500]))
    """

    categories: tuple[str, str]
    texts: tuple[int, int]
    layers: tuple[str, ...]
    distances: Tensor
    null_distances: Tensor
    metrics: tuple[str, ...]
    values: Tensor
    null_differences: Tensor

    _specs = specs(
        layers="layers",
        distances="layers",
        null_distances="permutations layers",
        metrics="metrics",
        values=Spec("2 metrics"),
        null_differences="permutations metrics",
    )

    @property
    def differences(self) -> Tensor:
        """The metrics of the second graph minus those of the first, (metrics,)."""
        return self.values[1] - self.values[0]

    @property
    def distance_p_values(self) -> Tensor:
        """The p-value of the distance in each layer, (layers,)."""
        return _p_values(self.distances, self.null_distances)

    @property
    def p_values(self) -> Tensor:
        """The two-sided p-value of each metric, (metrics,); NaN where it is not defined."""
        return _p_values(self.differences.abs(), self.null_differences.abs())

    @property
    def adjusted(self) -> tuple[Tensor, Tensor]:
        """The p-values of layers, and those of metrics, adjusted for their number.

        By Benjamini and Yekutieli (2001), which holds for tests that depend on each other: of the layers at
        or below a level, at most this share is expected to be there by chance.
        """
        return _adjusted(self.distance_p_values), _adjusted(self.p_values)

    def __len__(self) -> int:
        """How many permutations there were."""
        return len(self.null_distances)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the distance of the maps in each layer, and 95 % of those of shuffles.

        Args:
            ax: Where to draw; a new figure by default.
        """
        places = range(len(self.layers))
        quantiles = torch.tensor([0.025, 0.5, 0.975], dtype=self.null_distances.dtype)
        low, middle, high = self.null_distances.quantile(quantiles, dim=0)
        with drawing(ax, 3 + 0.16 * max(len(self.layers), 12), 3.4) as ax:
            ax.fill_between(
                places, low, high, color=style.GRAY, alpha=0.3, linewidth=0, label="95 % of shuffles"
            )
            ax.plot(places, middle, color=style.GRAY, linestyle="--", label="median of shuffles")
            ax.plot(places, self.distances, color=style.BLUE, marker="o", label="categories")
            ax.set_ylim(0, 1.04)
            ax.set_xlabel("layer")
            ax.set_ylabel("total variation distance")
            first, second = (shortened(name, 30) for name in self.categories)
            ax.set_title(f"How far apart the maps of {first} and {second} are")
            ax.locator_params("x", integer=True)
            ax.legend()
        return ax

    def __repr__(self) -> str:
        best = int(self.distances.argmax())
        names = " and ".join(shortened(name, 27) for name in self.categories)
        return (
            f"AreaComparison({names}: distance at most {float(self.distances[best]):.2f} in "
            f"{shortened(self.layers[best], 40)}, p {float(self.distance_p_values[best]):.2g}, "
            f"{counted(len(self), 'shuffle')})"
        )

    def __str__(self) -> str:
        by_layer, by_metric = (column.tolist() for column in self.adjusted)
        width = max(len(shortened(name)) for name in (*self.layers, *self.metrics))
        names = " ".join(f"{shortened(name, 14):>14}" for name in self.categories)
        lines = [f"{'distance of maps':{width}}  distance        p  adjusted"]
        columns = (self.distances.tolist(), self.distance_p_values.tolist(), by_layer)
        lines += [
            f"{shortened(layer):{width}}  {value:8.3f}  {p:7.2g}  {adjusted:8.2g}"
            for layer, value, p, adjusted in zip(self.layers, *columns, strict=True)
        ]
        lines.append(f"{'metric of graphs':{width}} {names}        p  adjusted")
        metrics = zip(self.metrics, *self.values.tolist(), self.p_values.tolist(), by_metric, strict=True)
        lines += [
            f"{name:{width}} {one:14.4g} {other:14.4g}  {p:7.2g}  {adjusted:8.2g}"
            for name, one, other, p, adjusted in metrics
        ]
        return "\n".join(lines)


def compared(
    areas: Maps, pair: tuple[int, int], permutations: int, seed: int, verbose: bool
) -> AreaComparison:
    """Returns the comparison of two categories; see `Areas.compare`."""
    check_counts(1, permutations=permutations)
    check_seed(seed)
    names = areas.categories[pair[0]], areas.categories[pair[1]]
    if pair[0] == pair[1]:
        raise ArgumentError(f"expected two different categories, got {names[0]!r} twice")
    chosen = (areas.labels == pair[0]) | (areas.labels == pair[1])
    second = areas.labels[chosen] == pair[1]
    shuffles = _Shuffles(second, areas.groups[chosen], names, seed)
    numbers = cell_numbers(areas.cells[:, chosen], areas.size)
    cells = len(areas.layers) * areas.size**2
    distances, values = _measured(numbers, second, len(areas.layers), cells)
    turns = trange(permutations, desc="shuffles", disable=not verbose)
    null = [_measured(numbers, shuffles.next(), len(areas.layers), cells) for _ in turns]
    return AreaComparison(
        categories=names,
        texts=(int((~second).sum()), int(second.sum())),
        layers=areas.layers,
        distances=distances,
        null_distances=torch.stack([one for one, _ in null]),
        metrics=NAMES,
        values=values,
        null_differences=torch.stack([both[1] - both[0] for _, both in null]),
    )


class _Shuffles:
    """Shuffles the categories of texts, or of whole groups of texts."""

    def __init__(self, second: Tensor, groups: Tensor, names: tuple[str, str], seed: int) -> None:
        _, self._group = groups.unique(return_inverse=True)
        sizes = self._group.bincount()
        inside = self._group.bincount(second.double())
        if bool(((inside > 0) & (inside < sizes)).any()):
            raise ArgumentError(
                f"there are groups with texts of both {names[0]!r} and {names[1]!r}: categories of whole "
                f"groups are shuffled, so that each group is of one category"
            )
        self._second = inside > 0
        for name, count in zip(names, (int((~self._second).sum()), int(self._second.sum())), strict=True):
            if count < 2:
                what = counted(count, "text" if len(sizes) == len(groups) else "group")
                raise ArgumentError(f"category {name!r} has {what}: a comparison takes two or more")
        self._generator = torch.Generator().manual_seed(seed)

    def next(self) -> Tensor:
        """Which texts are of the second category in the next shuffle."""
        order = torch.randperm(len(self._second), generator=self._generator)
        result: Tensor = self._second[order][self._group]
        return result


def _measured(numbers: Tensor, second: Tensor, depth: int, cells: int) -> tuple[Tensor, Tensor]:
    """The distances of maps, (layers,), and the metrics of both graphs, (2, metrics)."""
    shares, found = [], []
    for members in (~second, second):
        mine = numbers[:, members]
        counts = torch.bincount(mine.flatten(), minlength=cells).double()
        shares.append(counts.view(depth, -1) / mine.shape[1])
        sources, targets, weights = edges_of(mine)
        nodes = counts.nonzero()[:, 0]
        edges = Edges(torch.searchsorted(nodes, sources), torch.searchsorted(nodes, targets), weights)
        layers = (nodes // (cells // depth)).numpy()
        found.append(metrics_of(edges, layers, depth))
    distances = (shares[0] - shares[1]).abs().sum(1) / 2
    return distances, torch.tensor([[one[name] for name in NAMES] for one in found], dtype=torch.float64)


def _p_values(observed: Tensor, null: Tensor) -> Tensor:
    """The share of shuffles, and of what was observed, that reach what was observed."""
    reached = (null >= observed - 1e-6 * observed.abs()).sum(0)
    p_values = (1 + reached) / (1 + len(null))
    return torch.where(observed.isnan() | null.isnan().any(0), torch.nan, p_values)


def _adjusted(p_values: Tensor) -> Tensor:
    """The p-values for their number, NaN where there is none."""
    from scipy.stats import false_discovery_control

    known = ~p_values.isnan()
    adjusted = p_values.clone()
    if bool(known.any()):
        found = false_discovery_control(p_values[known].double().numpy(), method="by")
        adjusted[known] = torch.from_numpy(found).to(p_values.dtype)
    return adjusted
