"""The quality of a clustering: normalized cut, modularity, and the ratio of weights inside and between."""

import torch
from torch import Tensor

from ...core.checks import checked
from .graph import GraphLike, Labels, WeightGraph, as_graph, check_labels


def _masses(graph: WeightGraph, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the weight within each cluster and the sum of its degrees, (..., clusters), in float64."""
    graph = graph.to(torch.float64)
    count = int(labels.max()) + 1
    members = torch.nn.functional.one_hot(labels.clamp(min=0), count).double() * (labels >= 0)[..., None]
    within = (members * (graph @ members)).sum(-2)
    return within, (members * graph.degrees()[..., None]).sum(-2)


@checked
def ncut_by_cluster(graph: GraphLike, labels: Labels) -> Tensor:
    """Returns for each cluster the share of its edges that leave it, (clusters,), from 0 to 1.

    It is 0 for a cluster without members.

    Args:
        graph: One graph, or a network.
        labels: The cluster of each unit, or clusters that were found.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> graph = chain("ab", [torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)) + 0.1])
        >>> ncut_by_cluster(graph, [0, 0, 1, 1, 0, 0, 1, 1])
        tensor([0.0833, 0.0833], dtype=torch.float64)
    """
    graph = as_graph(graph)
    return _shares_cut(graph, check_labels(graph, labels))


def ncuts(graph: WeightGraph, labels: Tensor) -> Tensor:
    """Returns the normalized cuts (S,) of S graphs in one, with labels (S, nodes)."""
    return _shares_cut(graph, labels).sum(-1)


def _shares_cut(graph: WeightGraph, labels: Tensor) -> Tensor:
    within, volume = _masses(graph, labels)
    return torch.where(volume > 0, 1 - within / volume.clamp(min=torch.finfo(volume.dtype).tiny), 0.0)


@checked
def ncut(graph: GraphLike, labels: Labels) -> float:
    """Returns the normalized cut of a clustering: the sum of cut / volume (Shi and Malik, 2000).

    It is 0 without edges between clusters and at most the number k of clusters; a random clustering has
    about k - 1.

    Args:
        graph: A graph, or a network.
        labels: (nodes,) cluster of each node, -1 for isolated ones; or what has them, such as a
            `SpectralPartition`.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> ncut(chain("ab", [torch.eye(2)]), [0, 1, 0, 1])
        0.0
    """
    return float(ncut_by_cluster(graph, labels).sum())


@checked
def modularity_by_cluster(graph: GraphLike, labels: Labels, resolution: float = 1.0) -> Tensor:
    """Returns what each cluster adds to the modularity, (clusters,).

    Args:
        graph: One graph, or a network.
        labels: The cluster of each unit, or clusters that were found.
        resolution: How much chance counts; larger numbers prefer smaller clusters.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> graph = chain("ab", [torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))])
        >>> modularity_by_cluster(graph, [0, 0, 1, 1, 0, 0, 1, 1])
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    graph = as_graph(graph)
    within, volume = _masses(graph, check_labels(graph, labels))
    total = volume.sum()
    return within / total - resolution * (volume / total).square()


@checked
def modularity(graph: GraphLike, labels: Labels, resolution: float = 1.0) -> float:
    """Returns Newman's modularity Q of a clustering, between -1/2 and 1 (Newman and Girvan, 2004).

    Args:
        graph: A graph, or a network.
        labels: (nodes,) cluster of each node, -1 for isolated ones; or what has them, such as a
            `SpectralPartition`.
        resolution: Weight of the edges that chance would put within clusters.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> modularity(chain("ab", [torch.eye(2)]), [0, 1, 0, 1])
        0.5
    """
    return float(modularity_by_cluster(graph, labels, resolution).sum())


def modularities(graph: WeightGraph, labels: Tensor) -> Tensor:
    """Returns the modularities (S,) of S graphs in one, with labels (S, nodes)."""
    within, volume = _masses(graph, labels)
    total = volume.sum(-1, keepdim=True)
    return (within / total - (volume / total).square()).sum(-1)


@checked
def in_out_ratio(graph: GraphLike, labels: Labels) -> float:
    """Returns the mean weight within clusters over that between them, in the form of Filan et al. (2021).

    With the normalized cut n of k clusters it is (1 - n / k) / (2 n / k); infinite if no edge is cut.

    Args:
        graph: One graph, or a network.
        labels: The cluster of each unit, or clusters that were found.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> graph = chain("ab", [torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)) + 0.1])
        >>> round(in_out_ratio(graph, [0, 0, 1, 1, 0, 0, 1, 1]), 3)
        5.5
    """
    shares = ncut_by_cluster(graph, labels)
    between = float(shares.mean())
    return (1 - between) / (2 * between) if between else float("inf")
