"""Networks as networkx graphs, and their communities by the methods of the field."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import networkx as nx
import torch
from torch import nn

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.optional import require
from .graph import Block, WeightGraph
from .norms import Norm
from .quality import modularity, ncut
from .spectral import spectral_partition

CommunityMethod = Literal["spectral", "louvain", "leiden", "greedy"]


class Communities(NamedTuple):
    """The communities of a graph.

    Attributes:
        modularity: Newman's Q.
        communities: The nodes of each community, the largest first.
        ncut: The normalized cut.
    """

    modularity: float
    communities: list[set[Any]]
    ncut: float


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
class ModelGraph(nx.Graph):
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
        """Returns the communities of the network, with their modularity and their normalized cut.

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
        # Spectral clustering does not need the dictionaries of edges.
        graph = self.__dict__.get("_weights") if method == "spectral" else None
        graph = graph or _as_weight_graph(self, nodes)
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
        return Communities(modularity(graph, labels, resolution), communities, ncut(graph, labels))


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


def _as_weight_graph(graph: Any, nodes: list[Any]) -> WeightGraph:
    """A networkx graph as one layer with edges inside."""
    matrix = torch.from_numpy(nx.to_numpy_array(graph, nodes))
    return WeightGraph(("nodes",), (len(nodes),), (Block(0, 0, matrix),))


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
