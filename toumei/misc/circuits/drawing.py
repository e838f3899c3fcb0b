"""The picture of a circuit of nodes."""

from typing import TYPE_CHECKING

from ...plots.style import NEGATIVE, POSITIVE, color_bar, diverging_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from networkx import DiGraph

_LABELLED = 60  # most nodes with their names
_WIDEST = 4.0  # points, of the strongest edge


def draw_circuit(axes: "Axes", graph: "DiGraph") -> None:
    """Draws a row of nodes for each site, what has no site above all, and the edges between them.

    Args:
        axes: Where to draw.
        graph: Nodes with ``site`` and ``score``, or with neither for the output; edges with ``weight``.
    """
    by_site = graph.nodes(data="site")
    sites = list(dict.fromkeys(site for _, site in by_site if site is not None))
    places: dict[str, tuple[float, float]] = {}
    for row, site in enumerate([*sites, None]):
        members = [node for node, of in by_site if of == site]
        places |= {node: (place - (len(members) - 1) / 2, row) for place, node in enumerate(members)}
    _draw_edges(axes, graph, places)
    scores = {node: score for node, score in graph.nodes(data="score") if score is not None}
    limit = max(map(abs, scores.values())) or 1.0
    labelled = len(scores) <= _LABELLED
    axes.scatter(
        [places[node][0] for node in scores],
        [places[node][1] for node in scores],
        c=list(scores.values()),
        cmap=diverging_map(),
        vmin=-limit,
        vmax=limit,
        s=420 if labelled else 24,
        edgecolors="0.3",
        linewidths=0.8,
        zorder=2,
    )
    for node, (x, y) in places.items():
        if node not in scores:
            box = {"facecolor": "white", "edgecolor": "0.3", "boxstyle": "round"}
            axes.text(x, y, node, ha="center", va="center", size="small", bbox=box, zorder=3)
        elif labelled:
            color = "white" if abs(scores[node]) > 0.6 * limit else "black"
            name = node.rpartition(":")[2]
            axes.text(x, y, name, ha="center", va="center", size="xx-small", color=color, zorder=3)
    axes.set_yticks(range(len(sites)), sites)
    axes.set_xticks([])
    axes.margins(x=0.12, y=0.15)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False)
    color_bar(axes, "score", (-limit, limit))


def _draw_edges(axes: "Axes", graph: "DiGraph", places: dict[str, tuple[float, float]]) -> None:
    from matplotlib.collections import LineCollection

    edges = list(graph.edges(data="weight"))
    strongest = max((abs(weight) for *_, weight in edges), default=0.0)
    if not strongest:
        return
    strength = [abs(weight) / strongest for *_, weight in edges]
    axes.add_collection(
        LineCollection(
            [[places[sender], places[receiver]] for sender, receiver, _ in edges],
            linewidths=[_WIDEST * one for one in strength],
            colors=[POSITIVE if weight > 0 else NEGATIVE for *_, weight in edges],
            alpha=[0.15 + 0.75 * one for one in strength],
            zorder=1,
        )
    )
