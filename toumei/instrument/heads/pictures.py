"""A map of attention heads, and their divergences as a heat map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...plots.statistics import heat_map
from ...plots.style import BLACK, BLUE, GRAY, color_bar, darker, drawing
from .behaviours import LABELS, OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

# of each label its words in the legend, the form and the size of its points
_POINTS = {
    "next": ("next token", ">", 55),
    "previous": ("previous token", "<", 55),
    "broad": ("broadly", "^", 55),
    "first": ("first token", "P", 60),
    "separator": ("separators", "s", 45),
    "punctuation": ("punctuation", "D", 40),
    OTHER: ("none of these", "o", 30),
}
# where a name can stand: the way from the point in points of 1/72 inch, and what lies at its end
_PLACES = (
    ((6.0, 0.0), "left", "center"),
    ((-6.0, 0.0), "right", "center"),
    ((0.0, 6.0), "center", "bottom"),
    ((0.0, -6.0), "center", "top"),
)
_POINT = 4.0  # from the middle of a point to its edge, in points of 1/72 inch
_LETTER = (2.2, 3.2)  # half the width and half the height of a letter
_ENOUGH = 5.0  # points of 1/72 inch around a name
_MOST_NAMES = 100  # beside rows and columns


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
        names: What to write beside the points.
        labels: Of each head one of `LABELS`, or ``"other"``.
        stress: Of the coordinates, written above.
        figsize: Width and height of a new figure in inches; with larger ones points and letters grow too.
        ax: Where to draw; a new figure by default.
    """
    size = figsize or (7.0, 7.0)
    scale = 1.0 if ax is not None else max(1.0, min(size) / 7) ** 0.5
    colors = _layer_colors(int(layers.max()) + 1)
    with drawing(ax, *size) as axes:
        for label in (*LABELS, OTHER):
            chosen = [head for head, given in enumerate(labels) if given == label]
            if chosen:
                shown = [colors(int(layer)) for layer in layers[chosen]]
                _draw_points(axes, label, coordinates[chosen], shown, scale)
        axes.set_aspect("equal", "datalim")
        axes.margins(0.1)
        _draw_names(axes, coordinates, names, labels, scale)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"attention heads by their divergence (stress {stress:.2f})", fontsize=10 * scale)
        _draw_length(axes, scale)
        axes.legend(
            title="attends to",
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=_columns(len(set(labels))),
            frameon=False,
            fontsize=8.5 * scale,
            title_fontsize=8.5 * scale,
        )
        bar = color_bar(axes, "layer", (-0.5, colors.N - 0.5), colors)
        bar.set_ticks(range(0, colors.N, -(-colors.N // 12)))
        bar.ax.tick_params(labelsize=8.5 * scale)
        bar.ax.yaxis.label.set_fontsize(8.5 * scale)
    return axes


def plot_divergences(divergences: Tensor, names: Sequence[str], ax: "Axes | None" = None) -> "Axes":
    """Returns axes with divergences as a heat map, with the names of the heads on both sides.

    Args:
        divergences: (heads, heads) in nats.
        names: Of the heads; of many, only some are written.
        ax: Where to draw; a new figure by default.
    """
    side = min(max(3.0, 0.1 * len(names)), 10.0)
    with drawing(ax, side + 1.5, side) as axes:
        heat_map(divergences, names, axes, label="Jensen-Shannon divergence (nats)", color=BLUE)
        shown = range(0, len(names), -(-len(names) // _MOST_NAMES))
        written, size = [names[head] for head in shown], 6 if len(names) > 20 else 8
        axes.set_xticks([head + 0.5 for head in shown], written, rotation=90, fontsize=size)
        axes.set_yticks([head + 0.5 for head in shown], written, fontsize=size)
        axes.tick_params(length=0)
        axes.set_aspect("equal")
        axes.set_title("divergences of all pairs of heads, similar heads side by side", fontsize=10)
    return axes


def _columns(count: int) -> int:
    """How many columns a legend has, so that its rows, of at most four, are about equally long."""
    rows = -(-count // 4)
    return -(-count // rows)


def _draw_points(
    axes: "Axes", label: str, places: Tensor, colors: Sequence[tuple[float, ...]], scale: float
) -> None:
    words, marker, size = _POINTS[label]
    edge = "white" if label == OTHER else BLACK
    x, y = places.T.numpy()
    axes.scatter(x, y, size * scale**2, c=colors, marker=marker, edgecolors=edge, linewidths=0.6)
    # in the legend in gray, because the other colours are layers
    axes.scatter([], [], size * scale**2, c=GRAY, marker=marker, edgecolors=edge, linewidths=0.6, label=words)


def _draw_names(
    axes: "Axes", coordinates: Tensor, names: Sequence[str], labels: Sequence[str], scale: float
) -> None:
    """Writes each name on the side of its point where the other points and names are farthest.

    Names that would cover others are left out, those of heads without a label first.
    """
    letter = scale * torch.tensor(_LETTER, dtype=torch.float64)
    halves = torch.stack([letter * torch.tensor([len(name), 1.0]) for name in names])
    sizes = torch.full((len(names), 2), _POINT * scale, dtype=torch.float64)
    axes.figure.canvas.draw()  # the scale of the axes is known from now on
    shown = torch.from_numpy(axes.transData.transform(coordinates.numpy())) * 72 / axes.figure.dpi
    ways = torch.tensor([way for way, *_ in _PLACES], dtype=torch.float64)
    taken = shown.clone()
    for head in sorted(range(len(names)), key=lambda head: labels[head] == OTHER):
        name, label = names[head], labels[head]
        middles = shown[head] + scale * ways + ways.sign() * halves[head]
        apart = (middles[:, None] - taken).abs() - halves[head] - sizes
        apart[:, head] = torch.inf  # its point stands beside it
        room = apart.amax(2).amin(1)  # from the edge of the name to the nearest of the others
        side = int(room.clamp_max(_ENOUGH * scale).argmax())  # the first that has enough
        if room[side] < 0:
            continue
        taken, sizes = torch.cat([taken, middles[side, None]]), torch.cat([sizes, halves[head, None]])
        (right, up), horizontal, vertical = _PLACES[side]
        x, y = coordinates[head].tolist()
        axes.annotate(
            name,
            (x, y),
            (right * scale, up * scale),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=6 * scale,
            color=darker(GRAY) if label == OTHER else BLACK,
            fontweight="normal" if label == OTHER else "bold",
        )


def _draw_length(axes: "Axes", scale: float) -> None:
    """A line of a round length, because only distances mean something."""
    from matplotlib.lines import Line2D
    from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
    from matplotlib.ticker import MaxNLocator

    left, right = axes.get_xlim()
    length = MaxNLocator(10).tick_values(0, right - left)[1]
    line = AuxTransformBox(axes.transData)
    line.add_artist(Line2D([0, length], [0, 0], color=BLACK))
    text = TextArea(f"{length:g} nats", textprops={"size": 8.5 * scale})
    box = VPacker(children=[line, text], align="center", pad=0, sep=3)
    axes.add_artist(AnchoredOffsetbox("lower right", child=box, frameon=False))


def _layer_colors(count: int) -> "ListedColormap":
    """From dark blue for the first layer to yellow for the last one."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap([colormaps["viridis"](0.95 * layer / max(count - 1, 1)) for layer in range(count)])
