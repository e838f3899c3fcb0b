"""Pictures of areas: the map of a layer, its texts as points, and the graph through all layers."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import networkx as nx
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.summaries import counted, shortened
from ...plots import style
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SWEEPS = 6  # over the layers, to lay neighbours side by side


def plot_grid(counts: Tensor, most: int, title: str, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with a map, y upwards: the number of texts in each cell, written into cells that have any.

    Args:
        counts: (size, size), a row for each y.
        most: The number of texts of the darkest colour, the same for maps that are compared.
        title: Of the axes.
        ax: Where to draw; a new figure by default.
    """
    size = len(counts)
    with drawing(ax, 5.2, 4.2) as ax:
        heat_map(counts, list(map(str, range(size))), ax, label="texts", color=style.BLUE, limits=(0.0, most))
        ax.invert_yaxis()
        ax.set_aspect("equal")
        ax.spines[:].set_visible(True)
        ax.set(xlabel="x", ylabel="y", title=f"{title}: {counted(int(counts.sum()), 'text')}")
        if size <= 12:
            for y, x in counts.nonzero().tolist():
                color = "white" if int(counts[y, x]) > 0.3 * most else "black"
                ax.text(
                    x + 0.5, y + 0.5, str(int(counts[y, x])), ha="center", va="center", size=7, color=color
                )
    return ax


def plot_points(
    points: Tensor,
    labels: Tensor,
    categories: Sequence[str],
    edges: Tensor | None,
    title: str,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with texts as points, a colour a category, and the edges of the cells.

    Args:
        points: (texts, components); the first two are drawn.
        labels: (texts,) the number of each category.
        categories: Their names.
        edges: (2, size + 1) of the cells, None for none.
        title: Of the axes.
        ax: Where to draw; a new figure by default.
    """
    with drawing(ax, 5.2, 4.2) as ax:
        for number, (name, color) in enumerate(zip(categories, style.palette(len(categories)), strict=True)):
            mine = points[labels == number]
            ax.scatter(
                mine[:, 0], mine[:, 1], s=8, alpha=0.6, color=color, linewidths=0, label=shortened(name)
            )
        for values, line in zip(() if edges is None else edges, (ax.axvline, ax.axhline), strict=False):
            for value in values.tolist():
                line(value, color="0.85", linewidth=0.6, zorder=0)
        ax.set(xlabel="coordinate 0", ylabel="coordinate 1", title=title)
        ax.legend(markerscale=2)
    return ax


@checked
def plot_graph(
    graph: nx.DiGraph, colormap: str = "coolwarm", fix_node_positions: bool = True, ax: "Axes | None" = None
) -> "Axes":
    """Returns axes with a graph: a column for each layer, wider edges and larger nodes for more texts.

    In graphs of two categories the colour says how the texts are shared between the two.

    Args:
        graph: A graph of `Areas.graph`.
        colormap: A diverging colour map of matplotlib, for graphs of two categories.
        fix_node_positions: Give each cell its place, the same for all categories; else only the nodes of this
            graph are laid out, each near its neighbours.
        ax: Where to draw; a new figure by default.

    Raises:
        ArgumentError: It is no such graph, it has no edges, or there is no such colour map.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers.areas import ActivationAreas
        >>> model, tokenizer, world = facts_gpt()
        >>> facts = [fact for fact in world.facts if fact.relation in ("residence", "instrument")][:80]
        >>> texts, labels = [fact.text for fact in facts], [fact.relation for fact in facts]
        >>> settings = {"tokenizer": tokenizer, "map_dimension": 8, "verbose": False}
        >>> areas = ActivationAreas(model, texts, labels, **settings)
        >>> _ = areas.process_activation_areas()
        >>> plot_graph(areas.get_composed_graph("instrument", "residence")).get_title()
        'Texts from layer to layer: instrument and residence'
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    _check_drawn(graph, colormap)
    names, layers = graph.graph["label_names"], graph.graph["layers"]
    places = _cell_places(graph) if fix_node_positions else _side_by_side(graph)
    colors = colormaps[colormap] if len(names) == 2 else (lambda _: style.BLUE)
    edges = sorted(graph.edges(data=True), key=lambda edge: float(edge[2]["weight"]))
    heaviest = float(edges[-1][2]["weight"])
    width = min(max(5.0, 1.2 * len(layers)), 20.0)
    with drawing(ax, width, 5.0) as ax:
        lines = LineCollection(
            [(places[one], places[other]) for one, other, _ in edges],
            linewidths=[0.4 + 5 * float(data["weight"]) / heaviest for *_, data in edges],
            colors=[colors(data.get("share", 0.0)) for *_, data in edges],
            alpha=0.55,
            zorder=1,
        )
        ax.add_collection(lines)
        drawn = [(places[node], data) for node, data in graph.nodes(data=True)]
        most = max(data.get("texts", 1) for _, data in drawn)
        ax.scatter(
            [place[0] for place, _ in drawn],
            [place[1] for place, _ in drawn],
            s=[12 + 200 * data.get("texts", 0) / most for _, data in drawn],
            c=[colors(data["share"]) if "share" in data else "0.8" for _, data in drawn],
            edgecolors="black",
            linewidths=0.6,
            zorder=2,
        )
        _label(ax, graph, fix_node_positions)
        if len(names) == 2:
            _add_color_bar(ax, names, colors)
    return ax


def _check_drawn(graph: Any, colormap: str) -> None:
    from matplotlib import colormaps

    if not isinstance(graph, nx.Graph) or not {"layers", "label_names"} <= set(graph.graph):
        raise ArgumentError(f"expected a graph of get_graph or get_composed_graph, got {shown(graph)}")
    if not graph.number_of_edges():
        raise ArgumentError("the graph has no edges to draw: lower the threshold, or give several layers")
    if colormap not in colormaps:
        raise ArgumentError(f"matplotlib has no colour map {colormap!r}: a diverging one is 'coolwarm'")


def _cell_places(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Nodes at the number of their cell or component."""
    size = graph.graph["map_dimension"]
    return {
        node: (data["layer"], data.get("component", data.get("x", 0) * size + data.get("y", 0)))
        for node, data in graph.nodes(data=True)
    }


def _side_by_side(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Nodes of each layer in the order of the mean places of their neighbours, at even distances."""
    columns: dict[int, list[str]] = {}
    for node, (layer, _) in sorted(_cell_places(graph).items(), key=lambda item: item[1]):
        columns.setdefault(int(layer), []).append(node)
    places: dict[str, tuple[float, float]] = {}
    order = sorted(columns)
    for layer in chain(order, *([order[::-1], order] * (_SWEEPS // 2))):
        column = columns[layer]
        if places:
            means = {node: _mean_place(graph, node, places) for node in column}
            column.sort(key=lambda node: means[node])
        for place, node in enumerate(column):
            places[node] = (float(layer), (place + 0.5) / len(column))
    return places


def _mean_place(graph: nx.DiGraph, node: str, places: Mapping[str, tuple[float, float]]) -> float:
    """The mean height of the neighbours that have a place, weighted by texts."""
    near = [*graph.in_edges(node, data="weight"), *graph.out_edges(node, data="weight")]
    weighted = [
        (places[other][1], weight)
        for one, two, weight in near
        if (other := two if one == node else one) in places
    ]
    total = sum(weight for _, weight in weighted)
    return sum(place * weight for place, weight in weighted) / total if total else 0.5


def _label(ax: "Axes", graph: nx.DiGraph, fixed: bool) -> None:
    layers, names = graph.graph["layers"], graph.graph["label_names"]
    step = 1 + (len(layers) - 1) // 24
    ax.set_xticks(range(0, len(layers), step))
    ax.set_xlim(-0.3, len(layers) - 0.7)
    ax.set_xlabel(f"layer, from {shortened(layers[0])} to {shortened(layers[-1])}")
    ax.set_title(f"Texts from layer to layer: {' and '.join(shortened(name, 40) for name in names)}")
    ax.spines[["top", "right"]].set_visible(False)
    if any("component" in data for _, data in graph.nodes(data=True)):
        ax.set_ylabel("component" if fixed else "components, side by side")
    else:
        ax.set_ylabel("cell of the map, x and y" if fixed else "cells, side by side")
    if not fixed:
        ax.set_yticks([])
        return
    size = graph.graph["map_dimension"]
    if all("x" in data for _, data in graph.nodes(data=True)):
        rows = range(0, size, 1 + (size - 1) // 12)
        ax.set_yticks([x * size for x in rows], [f"{x}, 0" for x in rows])
        ax.set_ylim(-1, size**2)


def _add_color_bar(ax: "Axes", names: Sequence[str], colors: Any) -> None:
    bar = style.color_bar(ax, "part of the texts", (0.0, 1.0), colors)
    first, second = (shortened(name, 20) for name in names)
    bar.set_ticks([0, 0.5, 1], labels=[first, "both", second])
