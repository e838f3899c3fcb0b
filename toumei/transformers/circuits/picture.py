"""Draws a circuit: nodes by layer, edges as wide as their scores are large, in two colours."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ...core.summaries import counted
from ...plots import style
from .labels import place_of
from .positions import GAP, Line, Sketch, end_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDEST = 4.0  # points
_IDLE = "0.85"  # of nodes without edges
MOST = 400  # edges in a picture


def draw_circuit(sketch: Sketch, ax: "Axes | None") -> "Axes":
    """Returns axes with a circuit.

    Args:
        sketch: What is drawn of it.
        ax: Where to draw; a new figure by default.
    """
    positions, lines = sketch.positions, sketch.lines
    width = max(x for x, _ in positions.values()) + 1.5
    height = max(y for _, y in positions.values()) + 2
    size = min(max(5.0, 0.75 * width), 14.0), min(max(4.0, 0.62 * height), 16.0)
    used = {label for line in lines for label in (line.writer, line.reader)}
    with style.drawing(ax, *size) as axes:
        _draw_nodes(axes, positions, used)
        largest = max((abs(line.score) for line in lines), default=0.0) or 1.0
        for line in reversed(lines):
            _draw_line(axes, line, positions, largest)
        _draw_frame(axes, sketch, used)
    return axes


def _draw_nodes(axes: "Axes", positions: Mapping[str, tuple[float, float]], used: Collection[str]) -> None:
    """Boxes with labels for nodes with edges, dots for the others."""
    from matplotlib.patches import FancyBboxPatch

    for label, (x, y) in positions.items():
        if label not in used:
            axes.plot(x, y, "o", color=_IDLE, markersize=3, zorder=1)
            continue
        place, half = place_of(label), _half(label)
        shape = "square,pad=0" if place.kind == "mlp" else "round,pad=0,rounding_size=0.08"
        box = FancyBboxPatch((x - half, y - GAP), 2 * half, 2 * GAP, boxstyle=shape, linewidth=0.8, zorder=3)
        box.set(facecolor="white", edgecolor="0.3")
        axes.add_patch(box)
        text = f"{place.layer}.{place.heads[0]}" if place.kind == "head" else label
        axes.text(x, y, text, ha="center", va="center", fontsize=7, zorder=4)


def _half(label: str) -> float:
    """Half the width of a node."""
    return 0.32 if place_of(label).kind in ("head", "mlp") else 0.75


def _draw_line(
    axes: "Axes", line: Line, positions: Mapping[str, tuple[float, float]], largest: float
) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    x, y = positions[line.writer]
    to, end = end_of(line, positions)
    start = y + GAP
    bend = max(0.4, (end - start) / 3)
    curve = Path([(x, start), (x, start + bend), (to, end - bend), (to, end)], [1, 4, 4, 4])
    strength = (abs(line.score) / largest) ** 0.5
    axes.add_patch(
        FancyArrowPatch(
            path=curve,
            arrowstyle="-|>,head_length=2.5,head_width=1.2",
            color=style.POSITIVE if line.score >= 0 else style.NEGATIVE,
            alpha=0.3 + 0.6 * strength,
            linewidth=0.4 + _WIDEST * strength,
            zorder=2,
        )
    )


def _draw_frame(axes: "Axes", sketch: Sketch, used: Collection[str]) -> None:
    """Limits, layers beside the axis, and what the colours mean."""
    from matplotlib.lines import Line2D

    positions = sketch.positions
    top = max(y for _, y in positions.values())
    right = max(x + _half(label) for label, (x, _) in positions.items())
    axes.set(
        xlim=(min(x - _half(label) for label, (x, _) in positions.items()) - 0.3, right + 0.2),
        ylim=(-1.5, top + 0.6),
        yticks=range(int(top)),
        xticks=[],
        ylabel="layer",
        title=f"{sketch.drawn} of {counted(sketch.total, 'edge', form=',')}, {sketch.found_by}",
    )
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    colors = {"positive score": style.POSITIVE, "negative score": style.NEGATIVE}
    marks = [Line2D([], [], color=color, label=label) for label, color in colors.items()]
    if any(label not in used for label in positions):
        dot = Line2D([], [], marker="o", linestyle="", color=_IDLE, markersize=3, label="no edge drawn")
        marks.append(dot)
    axes.legend(
        handles=marks,
        loc="upper right",
        bbox_to_anchor=(1, 0),
        ncols=len(marks),
        frameon=False,
        fontsize=style.LABEL,
    )
