"""The graph of activation areas: cells of neighbouring layers, joined by the texts that lie in both.

A node ``layer_x_y`` is a cell of the map of a layer. The edge from a cell of one layer to a cell of the next
has as its weight the number of texts that lie in the one and then in the other, so that the weights that
leave a layer sum to the number of texts (LLM-MRI, https://github.com/explic-ai/LLM-MRI).
"""

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ...core.errors import ArgumentError
from .choices import category_of
from .maps import Maps


class Edges(NamedTuple):
    """The edges of a graph of areas, as numbers.

    Attributes:
        sources: (edges,) numbers of cells: layer * size^2 + x * size + y.
        targets: (edges,) the cells of the next layer.
        weights: (edges,) how many texts.
    """

    sources: Tensor
    targets: Tensor
    weights: Tensor


def cell_numbers(cells: Tensor, size: int) -> Tensor:
    """Returns the number of the cell of each text among all cells of all layers, (layers, texts).

    Args:
        cells: (layers, texts, 2), x and y.
        size: Cells in a row.

    Example:
        >>> cell_numbers(torch.tensor([[[0, 1]], [[1, 1]]]), 2)
        tensor([[1],
                [7]])
    """
    first = torch.arange(len(cells))[:, None] * size**2
    return first + cells[..., 0] * size + cells[..., 1]


def edges_of(numbers: Tensor) -> Edges:
    """Returns the edges between the cells of neighbouring layers.

    Args:
        numbers: (layers, texts); see `cell_numbers`.

    Example:
        >>> edges_of(torch.tensor([[0, 0, 1], [4, 4, 6]]))
        Edges(sources=tensor([0, 1]), targets=tensor([4, 6]), weights=tensor([2, 1]))
    """
    base = int(numbers.max()) + 1 if numbers.numel() else 1
    pairs, weights = torch.unique(numbers[:-1] * base + numbers[1:], return_counts=True)
    return Edges(pairs // base, pairs % base, weights)


def activation_graph(areas: Maps, category: str | int | Sequence[str | int] | None = None) -> nx.DiGraph:
    """Returns the graph of the areas of one category, of two, or of all texts.

    Nodes have ``layer``, ``x``, ``y``, ``texts`` and ``weights``, the number of texts of each category. Edges
    have ``weight``, the number of texts, and ``weights``, that of each category; in graphs of two categories
    also ``share``, the part of the texts that are of the second one, and ``overlap``, whether there are texts
    of both. The graph has ``layers``, ``label_names``, ``map_dimension`` and ``dimensionality_reduction``.

    Args:
        areas: The areas.
        category: A category, two of them, or None for all texts.

    Raises:
        ArgumentError: There is no such category, or there are more than two.
    """
    chosen = categories_among(areas.categories, category)
    graph = empty_graph(areas, chosen)
    for name, number in chosen.items():
        members = areas.in_category(number)
        numbers = cell_numbers(areas.cells[:, members], areas.size)
        _count_nodes(graph, numbers, areas.size, name)
        edges = edges_of(numbers)
        for source, target, weight in zip(*(column.tolist() for column in edges), strict=True):
            pair = _node(source, areas.size), _node(target, areas.size)
            if not graph.has_edge(*pair):
                graph.add_edge(*pair, weight=0, weights=dict.fromkeys(chosen, 0))
            graph.edges[pair]["weight"] += weight
            graph.edges[pair]["weights"][name] += weight
    for found in (graph.nodes(data=True), graph.edges(data=True)):
        for *_, attributes in found:
            _add_share(attributes, chosen)
    return graph


def categories_among(
    categories: Sequence[str], category: str | int | Sequence[str | int] | None
) -> dict[str, int | None]:
    """Returns the numbers of one or two categories by their names; None stands for all texts.

    Raises:
        ArgumentError: There is no such category, they are the same, or there are more than two.
    """
    if category is None:
        return {"all texts": None}
    given = [category] if isinstance(category, str | int) else list(category)
    numbers = [category_of(categories, one) for one in given]
    if not 1 <= len(numbers) <= 2 or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"expected one category or two different ones, got {given}")
    return {categories[number]: number for number in numbers}


def empty_graph(areas: Maps, chosen: dict[str, int | None]) -> nx.DiGraph:
    """Returns a graph without nodes that says what it is of."""
    return nx.DiGraph(
        layers=areas.layers,
        label_names=list(chosen),
        map_dimension=areas.size,
        dimensionality_reduction=areas.reduction,
    )


def _count_nodes(graph: nx.DiGraph, numbers: Tensor, size: int, name: str) -> None:
    """Adds the texts of a category to the cells that they lie in."""
    found, counts = numbers.unique(return_counts=True)
    for number, count in zip(found.tolist(), counts.tolist(), strict=True):
        node = _node(number, size)
        layer, x, y = map(int, node.split("_"))
        if node not in graph:
            weights = dict.fromkeys(graph.graph["label_names"], 0)
            graph.add_node(node, layer=layer, x=x, y=y, texts=0, weights=weights)
        graph.nodes[node]["texts"] += count
        graph.nodes[node]["weights"][name] += count


def _add_share(attributes: dict[str, object], chosen: dict[str, int | None]) -> None:
    if len(chosen) == 2:
        first, second = attributes["weights"].values()  # type: ignore[attr-defined]
        attributes["share"] = second / (first + second)
        attributes["overlap"] = bool(first and second)


def _node(number: int, size: int) -> str:
    return f"{number // size**2}_{number % size**2 // size}_{number % size}"
