"""Plots of modules: the network in layers, its sorted weights, eigenvalues, null distributions."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.summaries import counted
from ...plots import style
from ...plots.statistics import distribution
from ...plots.style import drawing
from .graph import Block, GraphLike, Labels, WeightGraph, as_graph, check_labels
from .matrices import draw_matrices

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 12  # clusters that are named in a legend
_NO_CLUSTER = "0.9"


@checked
def plot_layers(graph: GraphLike, labels: Labels, ax: "Axes | None" = None, *, edges: int = 2000) -> "Axes":
    """Returns axes with the network from left to right, units coloured and sorted by cluster.

    Args:
        graph: A graph, or a network.
        labels: (nodes,) cluster of each node, or what has them, such as a `SpectralPartition`.
        ax: Where to draw; a new figure by default.
        edges: How many of the strongest edges are drawn; stronger ones are wider. Edges inside a cluster have
            its colour, others are gray.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> graph = chain("abc", [torch.rand(4, 4), torch.rand(4, 4)])
        >>> ax = plot_layers(graph, [0, 0, 1, 1] * 3)
        >>> ax.get_xlabel()
        'layer'
    """
    from matplotlib.collections import LineCollection

    graph = as_graph(graph)
    labels = check_labels(graph, labels).cpu()
    colors = style.palette(max(int(labels.max()) + 1, 1))
    positions = _positions(graph, labels)
    sources, targets, weights = _strongest(graph, edges)
    inside = torch.where(labels[sources] == labels[targets], labels[sources], -1).tolist()
    lines = LineCollection(
        list(torch.stack([positions[sources], positions[targets]], 1).numpy()),
        linewidths=(2 * weights / weights.max()).numpy(),
        colors=[
            colors[c] if within else "0.7" for c, within in zip(labels[sources].tolist(), inside, strict=True)
        ],
        alpha=0.5,
        zorder=1,
    )
    size = min(max(2.0, 800 / max(graph.sizes)), 60)
    with drawing(ax, max(1.6 * len(graph.layers), 3) + 1.2, 4) as ax:
        ax.add_collection(lines)
        for cluster in labels.unique().tolist():
            x, y = positions[labels == cluster].T.numpy()
            name = f"cluster {cluster}" if cluster >= 0 else "no cluster"
            color = colors[cluster] if cluster >= 0 else _NO_CLUSTER
            ax.scatter(x, y, s=size, color=color, zorder=2, label=f"{name}, {counted(len(x), 'unit')}")
        ax.set_xticks(range(len(graph.layers)), graph.layers, rotation=30, ha="right")
        ax.set_xlabel("layer")
        ax.set_yticks([])
        ax.set_frame_on(False)
        if len(labels.unique()) <= _MOST_LABELS:
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax


@checked
def plot_blocks(graph: GraphLike, labels: Labels, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the weight matrices side by side, rows and columns sorted by cluster.

    Each matrix has its largest weight in its title; colours are shares of it. Lines separate clusters.

    Args:
        graph: One graph, or a network.
        labels: The cluster of each unit, or clusters that were found.
        ax: Where to draw; a new figure by default.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> graph = chain("abc", [torch.rand(4, 4), torch.rand(4, 4)])
        >>> ax = plot_blocks(graph, [0, 0, 1, 1] * 3)
        >>> len(ax.images)
        2
    """
    graph = as_graph(graph)
    labels = check_labels(graph, labels)
    layers = list(graph.by_layer(labels).values())
    orders = [clusters.argsort(stable=True) for clusters in layers]
    borders = [_borders(clusters[order]) for clusters, order in zip(layers, orders, strict=True)]
    blocks = graph.blocks
    return draw_matrices(
        [block.weight[orders[block.target]][:, orders[block.source]] for block in blocks],
        [f"{graph.layers[block.source]} to {graph.layers[block.target]}" for block in blocks],
        [(borders[block.target], borders[block.source]) for block in blocks],
        ax,
    )


@checked
def plot_eigenvalues(eigenvalues: Tensor, n_clusters: int, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the smallest eigenvalues of the Laplacian and the gap that follows the clusters.

    Args:
        eigenvalues: In ascending order, those of a `SpectralPartition`.
        n_clusters: How many clusters were chosen.
        ax: Where to draw; a new figure by default.

    Example:
        >>> ax = plot_eigenvalues(torch.tensor([0.0, 0.1, 0.8, 0.9]), n_clusters=2)
        >>> ax.get_title()
        '2 clusters by the eigenvalues of the graph'
    """
    from matplotlib.ticker import MaxNLocator

    if eigenvalues.dim() != 1:
        raise ShapeError(f"expected eigenvalues (count,), got {tuple(eigenvalues.shape)}")
    values = eigenvalues.tolist()
    with drawing(ax, 4, 3) as ax:
        ax.plot(range(1, len(values) + 1), values, "o-", color=style.BLUE, markersize=4, linewidth=0.8)
        gap = f"after {counted(n_clusters, 'cluster')}"
        ax.axvline(n_clusters + 0.5, color=style.RED, linewidth=0.8, linestyle="--", label=gap)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("number of the eigenvalue")
        ax.set_ylabel("eigenvalue of the Laplacian")
        ax.set_title(f"{counted(n_clusters, 'cluster')} by the eigenvalues of the graph")
        ax.legend(loc="lower right")
    return ax


@checked
def plot_null_test(samples: Tensor, value: float, measure: str = "ncut", ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the distribution over shuffled networks, its 95 % interval, and the measured value.

    Args:
        samples: The values of the shuffled networks, (S,).
        value: The value of the network.
        measure: What was measured, ``"ncut"`` or ``"modularity"``.
        ax: Where to draw; a new figure by default.

    Example:
        >>> ax = plot_null_test(torch.linspace(0.5, 0.9, 99), value=0.1)
        >>> ax.get_xlabel()
        'normalized cut'
    """
    from matplotlib.ticker import MaxNLocator

    with drawing(ax, 4.8, 3) as ax:
        distribution(samples, value, ax, names=("shuffled", "network"))
        ax.set_xlabel("normalized cut" if measure == "ncut" else "modularity Q")
        ax.set_ylabel("shuffled networks")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return ax


def _borders(clusters: Tensor) -> list[float]:
    """Where the next cluster begins, as shares of the length."""
    return ((clusters.diff().nonzero().flatten().double() + 1) / len(clusters)).tolist()


def _positions(graph: WeightGraph, labels: Tensor) -> Tensor:
    """Position of each node, (nodes, 2): layers from left to right, each sorted by cluster and centred."""
    positions = []
    for index, clusters in enumerate(graph.by_layer(labels).values()):
        rank = clusters.argsort(stable=True).argsort().float()
        height = (rank + 0.5) / len(clusters)
        positions.append(torch.stack([torch.full_like(height, index), 1 - height], 1))
    return torch.cat(positions)


def _strongest(graph: WeightGraph, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes and weights of the strongest edges, the same number from each block, on the CPU."""
    found = [_strongest_of(graph, block, max(1, count // len(graph.blocks))) for block in graph.blocks]
    sources, targets, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
    return sources, targets, weights


def _strongest_of(graph: WeightGraph, block: Block, count: int) -> tuple[Tensor, Tensor, Tensor]:
    weight = block.weight.detach().float().cpu()
    weight = weight.triu() if block.source == block.target else weight
    top = weight.flatten().topk(min(count, int(weight.count_nonzero())))
    rows, columns = top.indices // weight.shape[1], top.indices % weight.shape[1]
    strength = top.values / weight.max().clamp(min=1e-12)  # layers differ in scale
    return columns + graph.offsets[block.source], rows + graph.offsets[block.target], strength
