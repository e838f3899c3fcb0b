"""One level of the graph of operations, or several, as a picture for a paper."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING

from ...core.errors import ArgumentError, LayerError
from ...core.summaries import listed
from ...plots import drawing
from ...plots.style import BLACK, BLUE, GRAY, ORANGE, RED
from .arrangement import (
    END_HEIGHT,
    HEADER,
    HEIGHT,
    Arrangement,
    Point,
    arranged,
    box_width,
    end_text,
    end_width,
    grids,
    labels,
)
from .edges import Level, levels
from .items import ForwardPass, Item
from .tree import module_tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PER_INCH = 90.0  # units of the layout in an inch of a new figure
_TITLE, _BELOW = 10.5, 8.5  # heights of letters in units of the layout
_PAPER, _MODULE, _ROW, _END = (
    "white",
    "#eaf2f8",
    "#fdf3dc",
    "#eeeeee",
)  # of operations, modules, repeats, ports


def picture(graph: ForwardPass, ax: "Axes | None" = None, module: str = "", depth: int = 1) -> "Axes":
    """Returns axes with the operations and modules in a module, and the tensors between them as lines.

    Args:
        graph: The graph.
        ax: Where to draw; by default a new figure of the size that the letters need.
        module: Name of the module, empty for the whole model.
        depth: How many levels are open: 1 draws the modules in it as closed boxes.

    Raises:
        ArgumentError: The depth is below 1.
        LayerError: No operations of such a module ran; the message names the nearest ones.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> picture(tracker.build_graph()).get_title()
        'Sequential'
    """
    if depth < 1:
        raise ArgumentError(f"depth is a whole number from 1 on, got {depth}")
    root = module_tree(graph)
    item = _item_of(root, module)
    found = levels(root, graph)
    frame = arranged(item, found, grids(found), set(_down_to(item, depth)))
    with drawing(ax, frame.width / _PER_INCH, frame.height / _PER_INCH + 0.3) as axes:
        points = 72 / _PER_INCH if ax is None else _points_per_unit(axes, frame.width, frame.height)
        axes.set(xlim=(0, frame.width), ylim=(frame.height + 2, -2), aspect="equal")
        axes.set_axis_off()
        axes.set_title(graph.modules.get("", "") + (f": {item.path}" if item.path else ""))
        _Drawing(axes, found, points).inside(item, frame, (0.0, 0.0), outermost=True)
    return axes


def _item_of(root: Item, module: str) -> Item:
    """The first item of a module that has items in it."""
    if not module:
        return root
    items = [item for item in root.everything() if item.children]
    for item in items:
        if item.path == module or (item.path.startswith(f"{module}.") and not item.repeats):
            return item
    names = list(dict.fromkeys(item.path for item in items if item.path))
    near = get_close_matches(module, names, n=6, cutoff=0.5) or names
    raise LayerError(
        f"no module {module!r} with several operations ran: there is {listed(near, 6) or 'none'}"
    )


def _down_to(item: Item, depth: int) -> Iterator[Item]:
    """The items that are open."""
    if depth > 1:
        for child in item.children:
            if child.children:
                yield child
                yield from _down_to(child, depth - 1)


def _points_per_unit(axes: "Axes", width: float, height: float) -> float:
    """Points of the user's axes in a unit of the layout."""
    extent = axes.get_window_extent()
    return min(extent.width / width, extent.height / height) * 72 / axes.figure.dpi


class _Drawing:
    """Draws boxes, lines and letters on axes."""

    def __init__(self, axes: "Axes", found: Mapping[Item, Level], points: float) -> None:
        self._axes, self._levels, self._points = axes, found, points

    def inside(self, item: Item, frame: Arrangement, at: Point, outermost: bool = False) -> None:
        """Draws what is in an open item."""
        level = self._levels[item]
        for edge in frame.edges:
            self._curve([(at[0] + x, at[1] + y) for x, y in edge.points])
        for number, (child, (x, y)) in enumerate(zip(item.children, frame.places, strict=True)):
            place = at[0] + x, at[1] + y
            inner = frame.inner.get(level.first + number)
            if inner is None:
                self._closed(child, place)
            else:
                self._box(place, inner.width, inner.height, _ROW if child.repeats else _PAPER, GRAY)
                self._text(place[0] + 8, place[1] + HEADER / 2, "  ".join(labels(child)), _BELOW, left=True)
                self.inside(child, inner, place)
        if outermost:
            self._ends(level, frame)

    def _ends(self, level: Level, frame: Arrangement) -> None:
        """Writes the names of what comes in and goes out."""
        nodes = [*range(level.first), *([] if level.out is None else [level.out])]
        for node, (x, y) in zip(nodes, frame.ends, strict=True):
            width = end_width(level, node)
            self._box((x, y), width, END_HEIGHT, _END, GRAY)
            self._text(x + width / 2, y + END_HEIGHT / 2, end_text(level, node), _BELOW)

    def _closed(self, item: Item, at: Point) -> None:
        title, below = labels(item)
        width = box_width(item)
        fill = _ROW if item.repeats else _MODULE if item.children else _PAPER
        for back in (2, 1) if item.repeats else ():
            self._box((at[0] + 4 * back, at[1] + 4 * back), width, HEIGHT, fill, ORANGE)
        operation = item.operation
        color = BLUE if item.children else BLACK
        if operation is not None and operation.kind != "function":
            color = RED
        dashed = operation is not None and operation.in_place
        self._box(at, width, HEIGHT, fill, ORANGE if item.repeats else color, "--" if dashed else "-")
        middle = at[0] + width / 2
        self._text(middle, at[1] + (HEIGHT * 0.34 if below else HEIGHT / 2), title, _TITLE)
        self._text(middle, at[1] + HEIGHT * 0.72, below, _BELOW, color="#555555")

    def _box(self, at: Point, width: float, height: float, fill: str, color: str, line: str = "-") -> None:
        from matplotlib.patches import FancyBboxPatch

        style = "round,pad=0,rounding_size=4"
        box = FancyBboxPatch(
            at, width, height, boxstyle=style, fc=fill, ec=color, ls=line, lw=0.9 * self._points, zorder=2
        )
        self._axes.add_patch(box)

    def _curve(self, points: list[Point]) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        corners, codes = [points[0]], [Path.MOVETO]
        for (x, y), (next_x, next_y) in pairwise(points):
            if x == next_x:
                corners.append((next_x, next_y))
                codes.append(Path.LINETO)
            else:
                middle = (y + next_y) / 2
                corners += [(x, middle), (next_x, middle), (next_x, next_y)]
                codes += [Path.CURVE4] * 3
        line = PathPatch(Path(corners, codes), fc="none", ec="#666666", lw=1.1 * self._points, zorder=3)
        self._axes.add_patch(line)

    def _text(
        self, x: float, y: float, text: str, size: float, *, color: str = BLACK, left: bool = False
    ) -> None:
        """Writes a line of text, as it is: dollar signs in names are no formulas."""
        from matplotlib.patheffects import withStroke

        self._axes.text(
            x,
            y,
            text,
            size=size * self._points,
            color=color,
            ha="left" if left else "center",
            va="center",
            zorder=4,
            clip_on=True,
            parse_math=False,
            path_effects=[withStroke(linewidth=3 * self._points, foreground=_PAPER)] if left else [],
        )
