"""Numbers that describe a graph of areas: degrees, strengths, assortativity, density, centres."""

import networkx as nx
import numpy as np
import torch

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from .cell_graph import Edges

NAMES = (
    *("mean_degree", "var_degree", "skew_degree", "kurt_degree"),
    *("mean_strength", "var_strength", "skew_strength", "kurt_strength"),
    *("assortativity", "density", "center_of_mass", "center_of_strength"),
)


@checked
def graph_metrics(graph: nx.DiGraph) -> dict[str, float]:
    """Returns the numbers that describe a graph of areas or of components.

    The graph counts as undirected. Degrees are numbers of edges, strengths sums of weights; variance,
    skewness and excess kurtosis are the unbiased ones. ``assortativity`` is the correlation of the strengths
    at both ends of an edge, ``density`` the share of all pairs of nodes that have an edge. ``center_of_mass``
    is the mean layer of the nodes and ``center_of_strength`` that of the standard deviations of strengths
    within each layer, both counted from the middle of the network. What is not defined is NaN.

    Args:
        graph: A graph from `Areas.graph`.

    Raises:
        ArgumentError: It is none.

    Example:
        >>> graph = nx.DiGraph(layers=("embedding", "block"))
        >>> graph.add_edge("0_0_0", "1_0_0", weight=2)
        >>> graph.add_edge("0_0_1", "1_0_0", weight=1)
        >>> found = graph_metrics(graph)
        >>> round(found["mean_degree"], 3), found["mean_strength"], round(found["center_of_mass"], 3)
        (1.333, 2.0, -0.167)
    """
    if not isinstance(graph, nx.Graph) or "layers" not in graph.graph:
        raise ArgumentError(f"expected a graph of get_graph or get_composed_graph, got {shown(graph)}")
    places = {node: place for place, node in enumerate(graph)}
    rows = [(places[one], places[two], data["weight"]) for one, two, data in graph.edges(data=True)]
    columns = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3).T
    layers = np.array([int(str(node).split("_")[0]) for node in graph], dtype=int)
    edges = Edges(columns[0].long(), columns[1].long(), columns[2])
    return metrics_of(edges, layers, len(graph.graph["layers"]))


def metrics_of(edges: Edges, layers: np.ndarray, depth: int) -> dict[str, float]:
    """Returns the numbers of `graph_metrics`.

    Args:
        edges: Edges between nodes that are counted from 0 on.
        layers: (nodes,) the layer of each node.
        depth: How many layers there are.
    """
    ends = np.concatenate([edges.sources.numpy(), edges.targets.numpy()])
    weights = np.tile(edges.weights.numpy().astype(float), 2)
    nodes = len(layers)
    degrees = np.bincount(ends, minlength=nodes).astype(float)
    strengths = np.bincount(ends, weights, minlength=nodes)
    found = {}
    for name, numbers in (("degree", degrees), ("strength", strengths)):
        moments = zip(("mean", "var", "skew", "kurt"), _moments(numbers), strict=True)
        found.update({f"{kind}_{name}": value for kind, value in moments})
    found["assortativity"] = _correlation(strengths[ends], strengths[np.roll(ends, len(ends) // 2)])
    found["density"] = 2 * len(edges.sources) / (nodes * (nodes - 1)) if nodes > 1 else np.nan
    middle = (depth - 1) / 2
    found["center_of_mass"] = float(layers.mean() - middle) if nodes else np.nan
    spreads = np.array(
        [strengths[layers == layer].std() if (layers == layer).any() else 0 for layer in range(depth)]
    )
    total = spreads.sum()
    found["center_of_strength"] = float(spreads @ np.arange(depth) / total - middle) if total else np.nan
    return found


def _moments(numbers: np.ndarray) -> tuple[float, float, float, float]:
    """The mean and the unbiased variance, skewness and excess kurtosis; NaN where they are not defined.

    scipy.stats says the same, and takes ten times as long for so few numbers.
    """
    count = len(numbers)
    if not count:
        return (np.nan,) * 4
    centred = numbers - numbers.mean()
    second, third, fourth = (float((centred**power).mean()) for power in (2, 3, 4))
    variance = second * count / (count - 1) if count > 1 else np.nan
    skewness = kurtosis = np.nan
    if count > 2 and second > 0:
        skewness = third / second**1.5 * (count * (count - 1)) ** 0.5 / (count - 2)
    if count > 3 and second > 0:
        excess = (count + 1) * fourth / second**2 - 3 * (count - 1)
        kurtosis = excess * (count - 1) / ((count - 2) * (count - 3))
    return float(numbers.mean()), variance, skewness, kurtosis


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two lists of numbers, NaN where one is constant."""
    if not len(one) or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float(np.nan)
    return float(np.corrcoef(one, other)[0, 1])
