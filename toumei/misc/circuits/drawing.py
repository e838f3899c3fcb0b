"""The picture of a circuit of nodes."""

from typing import TYPE_CHECKING

import torch

from ...plots.style import GRAY, NEGATIVE, POSITIVE, color_bar, diverging_map
from .node_circuit import OUTPUT, NodeCircuit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELLED = 60  # most nodes with their names
_WIDEST = 4.0  # points, of the strongest edge


def draw_circuit(axes: "Axes", circuit: NodeCircuit) -> None:
    """Draws a row of nodes for each site, the output on top, and the edges between them."""
    sites = list(dict.fromkeys(circuit.sites))
    places: dict[str, tuple[float, float]] = {}
    for row, site in enumerate(sites):
        members = [node for node, of in zip(circuit.nodes, circuit.sites, strict=True) if of == site]
        places |= {node: (place - (len(members) - 1) / 2, row) for place, node in enumerate(members)}
    if circuit.edges:
        places[OUTPUT] = (0.0, len(sites))
    _draw_edges(axes, circuit, places)
    scores = circuit.scores
    limit = float(scores.abs().max()) or 1.0
    labelled = len(circuit.nodes) <= _LABELLED
    axes.scatter(
        [places[node][0] for node in circuit.nodes],
        [places[node][1] for node in circuit.nodes],
        c=scores.tolist(),
        cmap=diverging_map(),
        vmin=-limit,
        vmax=limit,
        s=420 if labelled else 24,
        edgecolors="0.3",
        linewidths=0.8,
        zorder=2,
    )
    for node, (x, y) in places.items():
        if node == OUTPUT:
            box = {"facecolor": "white", "edgecolor": "0.3", "boxstyle": "round"}
            axes.text(x, y, node, ha="center", va="center", size="small", bbox=box, zorder=3)
        elif labelled:
            dark = abs(circuit[node]) > 0.6 * limit
            name = node.rpartition(":")[2]
            color = "white" if dark else "black"
            axes.text(x, y, name, ha="center", va="center", size="xx-small", color=color, zorder=3)
    axes.set_yticks(range(len(sites)), sites)
    axes.set_xticks([])
    axes.margins(x=0.12, y=0.15)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(left=False)
    axes.set_title(circuit.method)
    color_bar(axes, "score", (-limit, limit))


def _draw_edges(axes: "Axes", circuit: NodeCircuit, places: dict[str, tuple[float, float]]) -> None:
    from matplotlib.collections import LineCollection

    if not circuit.edges:
        return
    weights = circuit.weights
    strength = weights.abs() / weights.abs().max().clamp(min=torch.finfo(weights.dtype).tiny)
    lines = [[places[sender], places[receiver]] for sender, receiver in circuit.edges]
    colors = [POSITIVE if weight > 0 else NEGATIVE if weight < 0 else GRAY for weight in weights.tolist()]
    axes.add_collection(
        LineCollection(
            lines,
            linewidths=(_WIDEST * strength).tolist(),
            colors=colors,
            alpha=(0.15 + 0.75 * strength).tolist(),
            zorder=1,
        )
    )
