"""Plots of modules: the network in layers, its sorted weights, eigenvalues, null distributions."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ShapeError
from ...plots import style
from ...plots.statistics import distribution
from .graph import Block, WeightGraph, check_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = "tab20"


@checked
def plot_layers(graph: WeightGraph, labels: Tensor, ax: "Axes | None" = None, *, edges: int = 2000) -> "Axes":
    """Returns axes with the network from left to right, units coloured and sorted by cluster.

    Args:
        graph: The graph.
        labels: (nodes,) cluster of each node.
        ax: Where to draw; a new figure by default.
        edges: How many of the strongest edges are drawn; stronger ones are wider. Edges inside a cluster have
            its colour.
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    labels, ax = check_labels(graph, labels).cpu(), ax or _axes(1.6 * len(graph.layers), 4)
    colors = colormaps[_COLORS]
    positions = _positions(graph, labels)
    sources, targets, weights = _strongest(graph, edges)
    inside = labels[sources] == labels[targets]
    ax.add_collection(
        LineCollection(
            list(torch.stack([positions[sources], positions[targets]], 1).numpy()),
            linewidths=(2 * weights / weights.max()).numpy(),
            colors=[
                colors(int(label) % 20) if within else (0.7, 0.7, 0.7)
                for label, within in zip(labels[sources], inside, strict=True)
            ],
            alpha=0.5,
            zorder=1,
        )
    )
    size = max(2.0, 800 / max(graph.sizes))
    shades = [colors(int(label) % 20) if label >= 0 else (0.9, 0.9, 0.9) for label in labels]
    ax.scatter(positions[:, 0].numpy(), positions[:, 1].numpy(), s=min(size, 60), c=shades, zorder=2)
    ax.set_xticks(range(len(graph.layers)), graph.layers, rotation=30, ha="right", fontsize="small")
    ax.set_yticks([])
    ax.set_frame_on(False)
    return ax


@checked
def plot_blocks(graph: WeightGraph, labels: Tensor, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the weight matrices side by side, rows and columns sorted by cluster."""
    labels = check_labels(graph, labels)
    layers = list(graph.by_layer(labels).values())
    orders = [clusters.argsort(stable=True) for clusters in layers]
    ordered = [clusters[order] for clusters, order in zip(layers, orders, strict=True)]
    ax = ax or _axes(2.2 * len(graph.blocks), 2.6)
    left = 0.0
    for block in graph.blocks:
        matrix = block.weight[orders[block.target]][:, orders[block.source]].detach().float().cpu()
        extent = (left, left + 1, 1, 0)
        ax.imshow(matrix.numpy(), cmap="magma", extent=extent, aspect="auto", interpolation="nearest")
        for across, cluster in ((True, ordered[block.source]), (False, ordered[block.target])):
            for border in (cluster.diff().nonzero().flatten().double() + 1) / len(cluster):
                (ax.vlines if across else ax.hlines)(
                    left + border if across else border,
                    0 if across else left,
                    1 if across else left + 1,
                    color="white",
                    lw=0.4,
                )
        title = f"{graph.layers[block.source]} to {graph.layers[block.target]}"
        ax.text(left + 0.5, -0.03, title, ha="center", va="bottom", fontsize="x-small")
        left += 1.1
    ax.set_xlim(-0.05, left - 0.05)
    ax.set_ylim(1.02, -0.12)
    ax.set_axis_off()
    return ax


@checked
def plot_eigenvalues(eigenvalues: Tensor, n_clusters: int, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the smallest eigenvalues of the Laplacian and the gap that follows the clusters.

    Args:
        eigenvalues: In ascending order, those of a `SpectralPartition`.
        n_clusters: How many clusters were chosen.
        ax: Where to draw; a new figure by default.
    """
    if eigenvalues.dim() != 1:
        raise ShapeError(f"expected eigenvalues (count,), got {tuple(eigenvalues.shape)}")
    ax = ax or _axes(4, 3)
    values = eigenvalues.tolist()
    ax.plot(range(1, len(values) + 1), values, "o-", markersize=4, linewidth=0.8)
    ax.axvline(n_clusters + 0.5, color=style.RED, linewidth=0.8, linestyle="--")
    ax.set_xlabel("number")
    ax.set_ylabel("eigenvalue")
    ax.set_title(f"{n_clusters} clusters", fontsize="medium")
    return ax


@checked
def plot_null_test(samples: Tensor, value: float, measure: str = "ncut", ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the distribution over shuffled networks, its 95 % interval, and the measured value.

    Args:
        samples: The values of the shuffled networks, (S,).
        value: The value of the network.
        measure: What was measured, ``"ncut"`` or ``"modularity"``.
        ax: Where to draw; a new figure by default.
    """
    ax = distribution(samples, value, ax or _axes(4, 3), names=("shuffled", "network"))
    ax.set_xlabel("normalized cut" if measure == "ncut" else "modularity Q")
    ax.set_ylabel("graphs")
    return ax


def _axes(width: float, height: float) -> "Axes":
    from matplotlib import pyplot

    return pyplot.figure(figsize=(max(width, 3), height), layout="constrained").add_subplot()


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
