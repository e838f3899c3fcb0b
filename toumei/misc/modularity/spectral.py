"""Spectral clustering of weight graphs: eigenvectors of the normalized Laplacian, then k-means."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted, listed
from ...core.tensor_specs import Spec, specs
from .graph import GraphLike, WeightGraph, as_graph
from .plots import plot_eigenvalues

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMALL = 256  # up to this many nodes the dense matrix is solved
CLUSTERING_TOLERANCE = 1e-3  # gives the same cuts as exact eigenvectors
_COLUMNS = 8  # products with so many columns, or twice as many, take half the time of those with one less
_STEPS = 4  # blocks of Krylov vectors between two checks of the residuals


@checked
def laplacian_eigenpairs(
    graph: WeightGraph, count: int, seed: int = 0, *, tolerance: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Returns the smallest eigenvalues of the normalized Laplacian and their eigenvectors.

    They are computed by block Lanczos iteration with full reorthogonalization on the blocks of the graph, for
    S graphs at once. The entries of isolated nodes are zero.

    Args:
        graph: The graph, or S graphs in one.
        count: How many eigenvalues.
        seed: Seed of the vectors to start from.
        tolerance: Residual of an eigenpair at which the iteration ends; the error of the eigenvalue is about
            the square of the residual.

    Returns:
        Eigenvalues (..., count), ascending from 0, and eigenvectors (..., nodes, count) of
        ``I - D^-1/2 A D^-1/2``.

    Raises:
        ArgumentError: More eigenvalues than nodes with edges.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> laplacian_eigenpairs(chain("ab", [torch.eye(2)]), 3)[0].round(decimals=4).abs()
        tensor([0., 0., 2.])
    """
    graph = as_graph(graph)
    degrees = graph.degrees()
    connected = int((degrees > 0).sum(-1).min())
    if not 1 <= count <= connected:
        raise ArgumentError(
            f"{counted(count, 'eigenvalue')} of a graph of {counted(connected, 'node')} with edges"
        )
    root = torch.where(degrees > 0, degrees, 1).rsqrt() * (degrees > 0)
    scale = root[..., None]

    def normalized(vectors: Tensor) -> Tensor:
        return scale * (graph @ (scale * vectors))

    if len(graph) <= _SMALL:
        identity = torch.eye(len(graph), dtype=degrees.dtype, device=degrees.device)
        # Isolated nodes get the eigenvalue -2, below all others.
        matrix = normalized(identity) - 2 * torch.diag_embed((root == 0).to(degrees))
        values, vectors = torch.linalg.eigh(matrix)
        values, vectors = values[..., -count:].flip(-1), vectors[..., -count:].flip(-1)
    else:
        columns = _COLUMNS * ceil((count + 3) / _COLUMNS) - 1  # the roots of the degrees are one more
        start = torch.randn(len(graph), columns, generator=make_generator(seed)).to(degrees)
        start = torch.cat([degrees.sqrt()[..., None], start.expand(*degrees.shape, -1)], -1)
        values, vectors = _largest(normalized, start * (scale > 0), count, tolerance)
    return (1 - values).clamp(min=0), vectors


def _largest(
    operator: Callable[[Tensor], Tensor], start: Tensor, count: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of symmetric operators, descending, and their eigenvectors."""
    block = torch.linalg.qr(start).Q
    basis, images = block, list[Tensor]()
    while True:
        image = operator(block)
        images.append(image)
        full = basis.shape[-1] + block.shape[-1] > basis.shape[-2]
        if full or len(images) % _STEPS == 0:
            image_of_basis = torch.cat(images, -1)
            values, ritz = torch.linalg.eigh(basis.mT @ image_of_basis)
            values, ritz = values[..., -count:].flip(-1), ritz[..., -count:].flip(-1)
            vectors = basis @ ritz
            error = torch.linalg.vector_norm(image_of_basis @ ritz - vectors * values[..., None, :], dim=-2)
            if full or bool((error < tolerance).all()):
                return values, vectors
        for _ in range(2):  # twice makes them orthogonal up to rounding (Giraud et al., 2005)
            image = torch.linalg.qr(image - basis @ (basis.mT @ image)).Q
        block = image
        basis = torch.cat([basis, block], -1)


@dataclass(frozen=True, eq=False)
class SpectralPartition(Saved):
    """A clustering and the eigenvalues that it is based on.

    Attributes:
        labels: (nodes,) cluster of each node, -1 for isolated ones.
        eigenvalues: (k + 1,) or more: the smallest of the normalized Laplacian, on the CPU.
        isolated: Names of the units without edges, which belong to no cluster.

    Example:
        >>> partition = SpectralPartition(torch.tensor([0, 0, 1]), torch.tensor([0.0, 0.1, 0.9]), [])
        >>> partition
        SpectralPartition(2 clusters of 2, 1 units)
        >>> partition.n_clusters
        2
    """

    labels: Tensor
    eigenvalues: Tensor
    isolated: list[str]

    _specs = specs(labels=Spec("nodes", "integer"), eigenvalues="k")

    @property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max()) + 1

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the eigenvalues and the gap that follows the clusters."""
        return plot_eigenvalues(self.eigenvalues, self.n_clusters, ax)

    def __repr__(self) -> str:
        sizes = listed(torch.bincount(self.labels[self.labels >= 0]).tolist(), 12)
        word = "unit" if sizes == "1" else "units"
        left_out = f", {counted(len(self.isolated), 'isolated unit')}" if self.isolated else ""
        return f"SpectralPartition({counted(self.n_clusters, 'cluster')} of {sizes} {word}{left_out})"


@checked
def spectral_partition(
    graph: GraphLike, n_clusters: int | None = None, seed: int = 0, *, largest: int = 16
) -> SpectralPartition:
    """Returns the clusters of a graph by spectral clustering (Shi and Malik, 2000).

    The bottom eigenvectors of the normalized Laplacian, divided by the roots of the degrees, are clustered by
    k-means with ten starts.

    Args:
        graph: One graph, or a network.
        n_clusters: How many clusters; by default the number of eigenvalues before the largest gap, at least
            two. In a network without modules the second eigenvector is its depth, so the number should be
            compared with `null_test`.
        seed: Seed of the start of the iteration and of k-means.
        largest: The most clusters that the gap may choose.

    Raises:
        ArgumentError: More clusters than nodes with edges, or fewer than one.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> spectral_partition(chain("ab", [torch.block_diag(torch.ones(3, 2), torch.ones(2, 2))]))
        SpectralPartition(2 clusters of 5, 4 units)
    """
    graph = as_graph(graph)
    degrees = graph.degrees()
    connected = int((degrees > 0).sum())
    if n_clusters is not None and not 1 <= n_clusters <= connected:
        raise ArgumentError(
            f"n_clusters is a number from 1 to {connected}, the units with edges, got {n_clusters}"
        )
    count = min(connected, (n_clusters or min(largest, max(2, connected // 2))) + 1)
    values, vectors = laplacian_eigenpairs(graph, count, seed, tolerance=CLUSTERING_TOLERANCE)
    chosen = n_clusters or _before_gap(values)
    embedding = vectors[:, :chosen] * torch.where(degrees > 0, degrees, 1).rsqrt()[:, None]
    labels = k_means(embedding, degrees > 0, chosen, seed)
    return SpectralPartition(labels, values.cpu(), graph.isolated())


def _before_gap(values: Tensor) -> int:
    gaps = values.diff()[1:]  # at least two clusters
    return int(gaps.argmax()) + 2 if len(gaps) else len(values)


def k_means(points: Tensor, kept: Tensor, n_clusters: int, seed: int = 0) -> Tensor:
    """Returns labels (n,) of the points (n, d) that are kept, -1 for the others; the largest cluster is 0."""
    from sklearn.cluster import KMeans

    means = KMeans(n_clusters, n_init=10, random_state=seed % 2**32)
    found = torch.from_numpy(means.fit_predict(points[kept].double().cpu().numpy())).long()
    rank = torch.bincount(found, minlength=n_clusters).argsort(descending=True, stable=True).argsort()
    labels = torch.full((len(points),), -1)
    labels[kept.cpu()] = rank[found]
    return labels.to(points.device)
