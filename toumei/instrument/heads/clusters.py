"""The comparison of all attention heads of a model: divergences, behaviours, clusters and a map."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import check_seed, checked
from ...core.errors import ArgumentError
from ...core.notebooks import escaped
from ...core.serialization import Saved
from ...core.summaries import counted, listed
from ...core.tensor_specs import Spec, specs
from .behaviours import LABELS, OTHER, HeadBehaviours
from .pictures import plot_divergences, plot_heads

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class AttentionHeadClusteringResult(Saved):
    """How differently all heads attend, and where to. Tensors are on the CPU.

    Attributes:
        divergences: (heads, heads), Jensen-Shannon divergence of an average query row in nats, float64.
        standard_errors: (heads, heads), of `divergences` if the texts are a sample of texts; NaN for one.
        layer_names: Of each layer, the name of the tensor or of the module.
        layers: (heads,), of each head the place of its layer in `layer_names`.
        heads: (heads,), its place in the layer.
        behaviours: Where the heads attend to on average.
        labels: A label for each head; see `HeadBehaviours.labels`.
        coordinates: (heads, 2), metric multidimensional scaling of the divergences.
        stress: How far the distances of the coordinates are from the divergences: the root of the squared
            differences over the squared divergences (Kruskal's stress-1, without a transformation).
        texts: How many texts.
        rows: How many query rows they have, without padding.
        compared_rows: How many of these were compared; fewer if `rows_per_text` was given.

    Example:
        >>> from toumei.instrument import cluster_attention_heads
        >>> weights = torch.rand(2, 1, 3, 5, 5).tril().softmax(-1)  # two layers of three heads
        >>> result = cluster_attention_heads([list(weights)], verbose=False)
        >>> len(result), result.coordinates.shape
        (6, torch.Size([6, 2]))
    """

    divergences: Tensor
    standard_errors: Tensor
    layer_names: tuple[str, ...]
    layers: Tensor
    heads: Tensor
    behaviours: HeadBehaviours
    labels: tuple[str, ...]
    coordinates: Tensor
    stress: float
    texts: int
    rows: int
    compared_rows: int

    _specs = specs(
        divergences=Spec("heads heads", finite=True),
        standard_errors="heads heads",
        layers=Spec("heads", "integer"),
        heads=Spec("heads", "integer"),
        labels="heads",
        coordinates=Spec("heads 2", finite=True),
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Layer and head, both from 0 on, such as ``"0.2"``."""
        pairs = zip(self.layers.tolist(), self.heads.tolist(), strict=True)
        return tuple(f"{layer}.{head}" for layer, head in pairs)

    @property
    def summed_divergences(self) -> Tensor:
        """(heads, heads), the sum over all rows in nats, which is the distance of the paper."""
        return self.divergences * self.rows

    @property
    def mds(self) -> list[dict[str, Any]]:
        """A dictionary of each head with ``tensor_id``, ``head_index``, ``x`` and ``y``, as in fMRAi."""
        return [
            {"tensor_id": self.layer_names[layer], "head_index": head, "x": x, "y": y}
            for layer, head, (x, y) in zip(
                self.layers.tolist(), self.heads.tolist(), self.coordinates.tolist(), strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> Tensor:
        """(heads,), the heads so that similar ones follow each other: the leaves of `clusters`' tree."""
        from scipy.cluster.hierarchy import leaves_list, optimal_leaf_ordering

        condensed = _condensed(self.divergences)
        return torch.from_numpy(leaves_list(optimal_leaf_ordering(self._tree(), condensed))).long()

    @checked
    def clusters(self, k: int) -> Tensor:
        """Returns the cluster of each head, (heads,) from 0 to k - 1, numbered by their first head.

        Clusters are joined from single heads on, first those with the least average divergence.

        Args:
            k: How many.

        Raises:
            ArgumentError: No number of clusters from 1 to that of the heads.
        """
        from scipy.cluster.hierarchy import cut_tree

        if not 1 <= k <= len(self):
            raise ArgumentError(f"expected 1 to {counted(len(self), 'cluster')}, as many as heads, got {k}")
        found = cut_tree(self._tree(), k)[:, 0].tolist()
        numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(found))}
        return torch.tensor([numbers[cluster] for cluster in found])

    def _tree(self) -> "NDArray[Any]":
        from scipy.cluster.hierarchy import linkage

        tree: NDArray[Any] = linkage(_condensed(self.divergences), "average")
        return tree

    @checked
    def plot(self, figsize: tuple[float, float] | None = None, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a point for each head: the nearer two points, the more alike the heads attend.

        The colour is the layer, the form is the label. Names stand beside the points where there is room; a
        larger figure has room for more.

        Args:
            figsize: Width and height of a new figure in inches.
            ax: Where to draw; a new figure by default.
        """
        return plot_heads(self.coordinates, self.layers, self.names, self.labels, self.stress, figsize, ax)

    @checked
    def plot_divergences(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the divergences as a heat map; similar heads follow each other.

        Args:
            ax: Where to draw; a new figure by default.
        """
        order = self.order
        names = [self.names[head] for head in order.tolist()]
        return plot_divergences(self.divergences[order][:, order], names, ax)

    def __repr__(self) -> str:
        counts = Counter(self.labels)
        labels = ", ".join(f"{counts[label]} {label}" for label in (*LABELS, OTHER) if counts[label])
        return (
            f"AttentionHeadClusteringResult({counted(len(self), 'head')} of "
            f"{counted(len(self.layer_names), 'layer')} over {counted(self.texts, 'text', form=',')}, "
            f"{counted(self.rows, 'row', form=',')}: {labels})"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        if self.compared_rows < self.rows:
            lines.append(f"{self.compared_rows:,} of the rows, drawn at random, were compared")
        lines += [f"{label:<12}{listed(names, 16)}" for label, names in self._by_label().items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{label}</td><td>{escaped(', '.join(names))}</td></tr>"
            for label, names in self._by_label().items()
        )
        head = "<tr><th>attends to</th><th>heads (layer.head)</th></tr>"
        return f"<p>{escaped(repr(self))}</p><table>{head}{rows}</table>"

    def _by_label(self) -> dict[str, list[str]]:
        """The names of the heads with each label that there is."""
        pairs = list(zip(self.names, self.labels, strict=True))
        found = {label: [name for name, given in pairs if given == label] for label in (*LABELS, OTHER)}
        return {label: names for label, names in found.items() if names}


def embedding(divergences: Tensor, seed: int) -> Tensor:
    """Returns coordinates (heads, 2) whose distances are as near to the divergences as they can be.

    Metric multidimensional scaling with the settings of Clark et al. 2019: the best of 5 starts, at most 1000
    steps of SMACOF.
    """
    from sklearn.manifold import smacof

    check_seed(seed)
    coordinates, _ = smacof(
        divergences.numpy(), n_components=2, n_init=5, max_iter=1000, eps=1e-10, random_state=seed % 2**32
    )
    return torch.from_numpy(coordinates)


def stress_of(coordinates: Tensor, divergences: Tensor) -> float:
    """Returns the root of the squared misfits of the distances over the squared divergences."""
    total = float(divergences.square().sum())
    misfit = float((torch.cdist(coordinates, coordinates) - divergences).square().sum())
    return (misfit / total) ** 0.5 if total else 0.0


def _condensed(divergences: Tensor) -> "NDArray[Any]":
    """The numbers above the diagonal, row by row, as SciPy takes them."""
    from scipy.spatial.distance import squareform

    condensed: NDArray[Any] = squareform(divergences.numpy())
    return condensed
