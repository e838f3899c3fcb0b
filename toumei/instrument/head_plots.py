"""A map of attention heads, and their divergences as a heat map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..plots.statistics import heat_map
from ..plots.style import BLACK, BLUE, GRAY, LABEL, drawing
from .head_behaviours import LABELS, OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

# form and size of the points of each label
_MARKERS = {
    "next": (">", 60),
    "previous": ("<", 60),
    "broad": ("^", 60),
    "first": ("P", 65),
    "separator": ("s", 50),
    "punctuation": ("D", 45),
    OTHER: ("o", 36),
}
_WORDS = {
    "next": "next token",
    "previous": "previous token",
    "broad": "broadly",
    "first": "first token",
    "separator": "separators",
    "punctuation": "punctuation",
    OTHER: "other",
}


def plot_heads(
    coordinates: Tensor,
    layers: Tensor,
    names: Sequence[str],
    labels: Sequence[str],
    stress: float,
    figsize: tuple[float, float] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with a point for each head.

    Args:
        coordinates: (heads, 2).
        layers: (heads,), from 0 on.
        names: What to write beside heads with a label.
        labels: Of each head one of `LABELS`, or ``"other"``.
        stress: Of the coordinates, written below.
        figsize: Width and height of a new figure in inches.
        ax: Where to draw; a new figure by default.
    """
    colors = _layer_colors(int(layers.max()) + 1)
    with drawing(ax, *(figsize or (7.0, 6.0))) as axes:
        for label in (OTHER, *LABELS):
            chosen = [head for head, given in enumerate(labels) if given == label]
            if not chosen:
                continue
            marker, size = _MARKERS[label]
            x, y = coordinates[chosen].T.numpy()
            axes.scatter(
                x,
                y,
                size,
                c=[colors(int(layer)) for layer in layers[chosen]],
                marker=marker,
                edgecolors="white" if label == OTHER else BLACK,
                linewidths=0.6,
            )
            if label != OTHER:
                for head in chosen:
                    axes.annotate(
                        names[head],
                        coordinates[head].tolist(),
                        (5, 4),
                        textcoords="offset points",
                        fontsize="x-small",
                    )
        axes.set_aspect("equal", "datalim")
        axes.set_xticks([])
        axes.set_yticks([])
    return axes


def plot_divergences(divergences: Tensor, names: Sequence[str], ax: "Axes | None" = None) -> "Axes":
    """Returns axes with divergences as a heat map, with the names of the heads on both sides."""
    side = max(4.0, 0.11 * len(names) + 1)
    with drawing(ax, side + 1, side) as axes:
        heat_map(divergences, names, axes, label="divergence (nats)", color=BLUE)
    return axes


def _layer_colors(count: int) -> "ListedColormap":
    """From dark blue for the first layer to yellow for the last one, which the bar at the side tells."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    places = [0.95 * layer / max(count - 1, 1) for layer in range(count)]
    return ListedColormap([colormaps["viridis"](place) for place in places])
