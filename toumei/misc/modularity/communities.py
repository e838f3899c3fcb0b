"""Networks as networkx graphs, and their communities by the methods of the field."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, get_args

import networkx as nx
import torch
from torch import nn
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.optional import require
from ...core.summaries import counted, listed
from .graph import WeightGraph, as_graph
from .norms import Norm
from .quality import modularity, ncut
from .spectral import spectral_partition

CommunityMethod = Literal["spectral", "louvain", "leiden", "greedy"]


class Communities(float):
    """Newman's modularity Q of a graph, a number, and the communities that have it.

    Args:
        modularity: Newman's Q.
        communities: The nodes of each community, the largest first.
        labels: The number of each node's community, -1 for none, (nodes,).
        ncut: The normalized cut.

    Example:
        >>> found = ModelGraph(nx.caveman_graph(2, 4)).get_model_modularity(2)
        >>> found > 0.4, found.ncut, [len(nodes) for nodes in found.communities]
        (True, 0.0, [4, 4])
        >>> found
        Communities(Q 0.5, n-cut 0, 2 communities of 4, 4 nodes)
    """

    def __new__(
        cls, modularity: float, communities: Sequence[set[Any]], labels: torch.Tensor, ncut: float
    ) -> Self:
        """The number, with what it belongs to."""
        number = super().__new__(cls, modularity)
        number.communities = list(communities)
        number.labels = labels
        number.ncut = ncut
        return number

    communities: list[set[Any]]
    labels: torch.Tensor
    ncut: float

    @property
    def modularity(self) -> float:
        """Newman's Q as a plain number."""
        return float(self)

    @property
    def partition(self) -> list[set[Any]]:
        """The communities, as networkx calls them."""
        return self.communities

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.modularity, self.communities, self.labels, self.ncut

    def __str__(self) -> str:
        return str(self.modularity)

    def __repr__(self) -> str:
        sizes = listed([len(nodes) for nodes in self.communities], 12)
        found = counted(len(self.communities), "community")
        word = "node" if sizes == "1" else "nodes"
        return f"Communities(Q {self:.4g}, n-cut {self.ncut:.4g}, {found} of {sizes} {word})"


class _WrittenWhenRead(type(nx.Graph.__dict__["_adj"])):  # type: ignore[misc]
    """The adjacency of networkx, a dictionary for each edge, written when an algorithm first reads it."""

    def __get__(self, graph: Any, owner: Any = None) -> Any:
        if graph is None:
            return self
        weights = graph.__dict__.pop("_weights", None)
        if weights is not None:
            _write_edges(graph.__dict__["_adj"], weights)
        return graph.__dict__["_adj"]


@checked
class ModelGraph(nx.Graph):  # type: ignore[misc]  # networkx has no types
    """A network as a networkx graph: nodes ``"layer:unit"``, edges with the size of a weight as ``weight``.

    Copies, subgraphs and all algorithms of networkx work. A node has the attributes ``layer``, ``unit`` and
    ``subset`` (the index of its layer, for `networkx.multipartite_layout`). The millions of dictionaries that
    networkx keeps for edges are written when they are first read, so that a large network can be clustered
    without them.

    Args:
        model: A feed-forward network, a `WeightGraph`, or anything that `networkx.Graph` takes.
        example_input: See `WeightGraph.from_model`.
        norm: See `WeightGraph.from_model`.
        **attributes: Attributes of the graph.

    Example:
        >>> from toumei.models import SimpleMLP
        >>> graph = ModelGraph(SimpleMLP(4, 3))
        >>> graph.number_of_edges(), graph.nodes["fc0:2"]
        (12, {'layer': 'fc0', 'unit': 2, 'subset': 1})
    """

    _adj = _WrittenWhenRead()

    def __init__(
        self, model: Any = None, example_input: object = None, norm: Norm = "l1", **attributes: Any
    ) -> None:
        is_model = isinstance(model, nn.Module)
        data = None if is_model or isinstance(model, WeightGraph) else model
        try:
            super().__init__(data, **attributes)
        except Exception as error:  # networkx has errors of its own
            raise ArgumentError(
                f"expected a torch.nn.Module, a WeightGraph, or data of a networkx.Graph, got {shown(data)}"
            ) from error
        if is_model:
            model = self._weight_graph(model, example_input, norm)
        if isinstance(model, WeightGraph):
            names = iter(model.nodes())
            for index, (layer, size) in enumerate(zip(model.layers, model.sizes, strict=True)):
                self.add_nodes_from(
                    (next(names), {"layer": layer, "unit": unit, "subset": index}) for unit in range(size)
                )
            self._weights = model

    def _weight_graph(self, model: nn.Module, example_input: object, norm: Norm) -> WeightGraph:
        return WeightGraph.from_model(model, example_input, norm)

    @checked
    def get_model_modularity(
        self,
        n_clusters: int | None = None,
        method: CommunityMethod = "spectral",
        resolution: float = 1.0,
        seed: int = 0,
    ) -> Communities:
        """Returns the modularity of the network, a number that has its communities and their normalized cut.

        The numbers mean little alone: compare them with those of shuffled weights (`null_test`).

        Args:
            n_clusters: How many communities; by default ``"spectral"`` takes the largest eigenvalue gap and
                ``"greedy"`` the best modularity. ``"louvain"`` and ``"leiden"`` always choose the number.
            method: ``"spectral"``, ``"louvain"``, ``"greedy"`` (Clauset et al., 2004), or ``"leiden"``, which
                needs the package igraph.
            resolution: Larger for more and smaller communities.
            seed: Seed of the method.

        Raises:
            ArgumentError: An unknown method, a number of clusters that the method does not take, or more than
                nodes with edges.
        """
        if method not in get_args(CommunityMethod):
            raise ArgumentError(f"method is one of {get_args(CommunityMethod)}, got {method!r}")
        if n_clusters is not None and method in ("louvain", "leiden"):
            raise ArgumentError(f"{method!r} chooses the number of clusters; change its resolution instead")
        nodes = list(self)
        graph = as_graph(self)
        if method == "spectral":
            labels = spectral_partition(graph, n_clusters, seed).labels
        else:
            connected = self.subgraph([node for node, degree in self.degree if degree > 0])
            found = _found(connected, n_clusters, method, resolution, seed)
            number = {node: index for index, members in enumerate(found) for node in members}
            labels = torch.tensor([number.get(node, -1) for node in nodes])
        communities: list[set[Any]] = [set() for _ in range(int(labels.max()) + 1)]
        for node, label in zip(nodes, labels.tolist(), strict=True):
            if label >= 0:
                communities[label].add(node)
        return Communities(modularity(graph, labels, resolution), communities, labels, ncut(graph, labels))


class MLPGraph(ModelGraph):
    """The graph of a multi-layer perceptron, its inputs among the nodes.

    Raises:
        ArgumentError: The model has convolutions, or other errors of `WeightGraph.from_model`.

    Example:
        >>> from toumei.models import SimpleMLP
        >>> MLPGraph(SimpleMLP(4, 4)).number_of_nodes()
        8
    """

    def _weight_graph(self, model: nn.Module, example_input: object, norm: Norm) -> WeightGraph:
        convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]
        if convolutions:
            raise ArgumentError(
                f"an MLPGraph has linear layers only, and {convolutions[0]!r} is a convolution: CNNGraph"
            )
        return super()._weight_graph(model, example_input, norm)


class CNNGraph(ModelGraph):
    """The graph of the convolutions of a network: channels, joined by the norms of kernels.

    As in Filan et al. (2021) neither the input nor the dense head is part of it.

    Raises:
        ArgumentError: Fewer than two convolutions, or other errors of `WeightGraph.from_model`.

    Example:
        >>> from toumei.models import SimpleCNN
        >>> CNNGraph(SimpleCNN(1, 10)).number_of_nodes()
        112
    """

    def _weight_graph(self, model: nn.Module, example_input: object, norm: Norm) -> WeightGraph:
        graph = super()._weight_graph(model, example_input, norm)
        modules = dict(model.named_modules())
        others = [
            name
            for name in graph.layers
            if name not in modules or not isinstance(modules[name], nn.modules.conv._ConvNd)
        ]
        if len(graph.layers) - len(others) < 2:
            raise ArgumentError(
                f"a CNNGraph needs at least two convolutions, {type(model).__name__} has "
                f"{len(graph.layers) - len(others)}: MLPGraph takes linear layers, ModelGraph both"
            )
        return graph.without(*others)


def _write_edges(adjacency: dict[str, dict[str, Any]], weights: WeightGraph) -> None:
    """Writes edges into the dictionaries of networkx, row by row; both directions share attributes."""
    names, rows = list(adjacency), list(adjacency.values())
    layers = [slice(first, last) for first, last in pairwise(weights.offsets)]
    with _without_garbage_collection():
        for block in weights.blocks:
            source, target = layers[block.source], layers[block.target]
            matrix = block.weight.tolist()
            full = bool(block.weight.all())
            edges = [[{"weight": weight} for weight in row] for row in matrix]
            if block.source == block.target:
                edges = [[edges[max(i, j)][min(i, j)] for j in range(len(edges))] for i in range(len(edges))]
            _connect(rows[target], names[source], edges, full)
            _connect(rows[source], names[target], zip(*edges, strict=True), full)


def _connect(
    rows: Iterable[dict[str, Any]], names: list[str], edges: Iterable[Iterable[Any]], full: bool
) -> None:
    for row, row_edges in zip(rows, edges, strict=True):
        pairs = zip(names, row_edges, strict=True)
        row.update(pairs if full else [pair for pair in pairs if pair[1]["weight"]])


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Avoids garbage collection, which takes half of the time: all dictionaries of edges are kept."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _found(graph: Any, n_clusters: int | None, method: str, resolution: float, seed: int) -> list[set[Any]]:
    """The communities that a method finds, the largest first."""
    if method == "louvain":
        found = nx.community.louvain_communities(graph, resolution=resolution, seed=seed)
    elif method == "leiden":
        found = _leiden(graph, resolution, seed)
    else:
        count = {"cutoff": n_clusters, "best_n": n_clusters} if n_clusters else {}
        found = nx.community.greedy_modularity_communities(graph, "weight", resolution, **count)
    return sorted(map(set, found), key=len, reverse=True)


def _leiden(graph: Any, resolution: float, seed: int) -> list[set[Any]]:
    import random

    igraph = require("igraph", "the Leiden method")
    nodes = list(graph)
    random_numbers = random.Random(seed)
    igraph.set_random_number_generator(random_numbers)
    try:
        position = {node: index for index, node in enumerate(nodes)}
        edges = [(position[u], position[v]) for u, v in graph.edges]
        weights = [weight for _, _, weight in graph.edges(data="weight")]
        found = igraph.Graph(len(nodes), edges).community_leiden(
            "modularity", weights=weights, resolution=resolution, n_iterations=-1
        )
    finally:
        igraph.set_random_number_generator(random)
    return [{nodes[index] for index in members} for members in found]
