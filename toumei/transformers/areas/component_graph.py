"""The graph of components: those of neighbouring layers, joined where they rise and fall together."""

from collections.abc import Sequence

import networkx as nx
import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.summaries import counted
from .cell_graph import categories_among, empty_graph
from .maps import Maps


def correlation_graph(
    areas: Maps, category: str | int | Sequence[str | int] | None = None, threshold: float = 0.3
) -> nx.DiGraph:
    """Returns the graph of the components of one category, of two, or of all texts.

    A node ``layer_component`` is a coordinate in a layer. Two of neighbouring layers have an edge if the
    absolute rank correlation (Spearman, ties share their mean rank) of a category's texts is above the
    threshold. Signs of components are arbitrary, so ``weight`` is the absolute value; ``weights`` has the
    correlation of each category with its sign. The components are the same for all categories.

    Args:
        areas: The areas.
        category: A category, two of them, or None for all texts.
        threshold: From 0 to 1.

    Raises:
        ArgumentError: There is no such category, it has fewer than three texts, or the threshold is none.
    """
    if not 0 <= threshold < 1:
        raise ArgumentError(f"threshold is a correlation from 0 to below 1, got {threshold}")
    chosen = categories_among(areas.categories, category)
    graph = empty_graph(areas, chosen)
    components = areas.coordinates.shape[2]
    for layer in range(len(areas.layers)):
        for component in range(components):
            graph.add_node(f"{layer}_{component}", layer=layer, component=component)
    found = {name: _correlations(areas, name, number) for name, number in chosen.items()}
    stacked = torch.stack(list(found.values()))
    strongest = stacked.abs().amax(0)
    for layer, first, second in (strongest > threshold).nonzero().tolist():
        weights = {name: float(rho[layer, first, second]) for name, rho in found.items()}
        sizes = {name: abs(value) if abs(value) > threshold else 0.0 for name, value in weights.items()}
        graph.add_edge(f"{layer}_{first}", f"{layer + 1}_{second}", weights=weights)
        edge = graph.edges[f"{layer}_{first}", f"{layer + 1}_{second}"]
        edge["weight"] = max(sizes.values())
        if len(chosen) == 2:
            one, other = sizes.values()
            edge["share"] = other / (one + other)
            edge["overlap"] = bool(one and other)
    return graph


def _correlations(areas: Maps, name: str, number: int | None) -> Tensor:
    """The rank correlations of neighbours, (layers - 1, components, components); 0 where constant."""
    from scipy.stats import rankdata

    coordinates = areas.coordinates[:, areas.in_category(number)]
    if coordinates.shape[1] < 3:
        raise ArgumentError(
            f"category {name!r} has {counted(coordinates.shape[1], 'text')}: correlations take three or more"
        )
    ranks = torch.from_numpy(rankdata(coordinates.numpy(), axis=1))
    ranks -= ranks.mean(1, keepdim=True)
    lengths = ranks.norm(dim=1, keepdim=True)
    ranks /= torch.where(lengths > 0, lengths, torch.inf)
    return ranks[:-1].transpose(1, 2) @ ranks[1:]
