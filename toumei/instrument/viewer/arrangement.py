"""Where everything stands in a picture in which some items are open: boxes in boxes, edges as curves.

The script of the page does the same, from the same cells and sizes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .edges import Level
from .grid import Grid, grid_layout
from .items import Item, shape_text

LETTER, SMALL_LETTER = 6.6, 5.6  # mean widths of letters of a title, and of the line below it
MOST_LETTERS = 30
HEIGHT, END_HEIGHT, HEADER, PADDING, MARGIN, LANE = 38.0, 22.0, 24.0, 12.0, 9.0, 6.0
GAP, BEND_GAP, MOST_GAP = (
    20.0,
    3.0,
    60.0,
)  # between rows: for straight edges, more for each other one, at most
PORT_STEP = 14.0

Point = tuple[float, float]


def labels(item: Item) -> tuple[str, str]:
    """Returns the two lines of text of a closed box."""
    operation = item.operation
    if operation is None:
        return shortened(item.title), shortened(item.type)
    made = operation.outputs
    shape = shape_text(made[0]) if len(made) == 1 else f"{len(made)} outputs" if made else ""
    name = operation.function if item.title != operation.function else ""
    return shortened(item.title), shortened("  ".join(part for part in (name, shape) if part))


def shortened(text: str) -> str:
    """Returns a text that fits in a box."""
    half = MOST_LETTERS // 2
    return text if len(text) <= MOST_LETTERS else f"{text[: half - 1]}…{text[-half:]}"


def box_width(item: Item) -> float:
    """Returns the width of a closed box, from the numbers of letters in it."""
    title, below = labels(item)
    sign = 24.0 if item.children else 0.0  # room on both sides for the sign that opens it
    return round(max(LETTER * len(title) + sign, SMALL_LETTER * len(below), 36.0) + 20.0)


def header_width(item: Item) -> float:
    """Returns the width of the two texts beside each other, above an open box."""
    title, below = labels(item)
    return round(1.15 * LETTER * len(title) + 1.05 * SMALL_LETTER * len(below) + 32.0)


def end_text(level: Level, node: int) -> str:
    """Returns the name of a tensor that comes in or goes out, or how many there are."""
    nodes = level.ports[node] if node < level.first else level.left
    text = f"{nodes[0].name}  {shape_text(nodes[0])}" if len(nodes) == 1 else f"{len(nodes)} tensors"
    return shortened(text)


def end_width(level: Level, node: int) -> float:
    """Returns the width of the box with the name of a port."""
    return round(SMALL_LETTER * len(end_text(level, node)) + 16.0)


@dataclass(frozen=True)
class Edge:
    """An edge as it is drawn.

    Attributes:
        nodes: Its nodes in the level.
        points: The ends of its upright lines from above, and its own end; curves join the lines.
    """

    nodes: tuple[int, int]
    points: list[Point]


@dataclass
class Arrangement:
    """The inside of an open item; places are relative to its left upper corner.

    Attributes:
        width: Its width.
        height: Its height.
        anchor: Where its main path leaves it, from the left.
        ports: Where tensors come in, from the left, by the node of the level around that they come from.
        ends: The left upper corner of each port in and of the port out.
        places: The left upper corner of each child.
        inner: What is in the children that are open.
        edges: The edges of its level.
    """

    width: float = 0.0
    height: float = 0.0
    anchor: float = 0.0
    ports: dict[int, float] = field(default_factory=dict)
    ends: list[Point] = field(default_factory=list)
    places: list[Point] = field(default_factory=list)
    inner: dict[int, "Arrangement"] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)


def grids(levels: Mapping[Item, Level]) -> dict[Item, Grid]:
    """Returns the cells of the nodes of each level; sorts the ports of a level by where they come from.

    Args:
        levels: The levels, each before those in it.
    """
    found: dict[Item, Grid] = {}
    parents = {child: item for item in levels for child in item.children}
    for item, level in levels.items():
        around = parents.get(item)
        if around is not None:
            _sort_ports(level, levels[around], found[around])
        found[item] = grid_layout(level.size, list(level.edges), level.first, level.leaves)
    return found


def _sort_ports(level: Level, around: Level, grid: Grid) -> None:
    node = around.first + around.item.children.index(level.item)

    def place(port: int) -> tuple[int, int]:
        source = level.sources[port]
        cells = [(grid.rows[source], grid.columns[source]), *grid.cells(source, node)]
        return cells[-1][1], source

    order = sorted(range(level.first), key=place)
    number = {port: new for new, port in enumerate(order)}
    level.ports = [level.ports[port] for port in order]
    level.sources = [level.sources[port] for port in order]
    renamed = {(number.get(start, start), end): nodes for (start, end), nodes in level.edges.items()}
    level.edges = dict(sorted(renamed.items()))


def arranged(
    item: Item,
    levels: Mapping[Item, Level],
    cells: Mapping[Item, Grid],
    opened: Collection[Item],
    outermost: bool = True,
) -> Arrangement:
    """Returns where everything in an item stands.

    Args:
        item: An item with children.
        levels: The edges of each level.
        cells: The cells of each level.
        opened: The items in it that are open.
        outermost: Whether nothing is around it, so that its ports are boxes with names.
    """
    level, grid = levels[item], cells[item]
    frame = Arrangement()
    for number, child in enumerate(item.children):
        if child in opened:
            frame.inner[level.first + number] = arranged(child, levels, cells, opened, outermost=False)
    return _Placing(level, grid, frame, outermost).done()


class _Placing:
    """Computes an arrangement from the cells of a level and the sizes of its children."""

    def __init__(self, level: Level, grid: Grid, frame: Arrangement, outermost: bool) -> None:
        self._level, self._grid, self._frame, self._outermost = level, grid, frame, outermost
        self._sizes = [self._size(node) for node in range(level.size)]

    def done(self) -> Arrangement:
        """Sets everything."""
        level, grid, frame = self._level, self._grid, self._frame
        self._x, frame.width = self._centres()
        self._top, self._bottom = self._heights()
        frame.height = (self._bottom[-1] if self._bottom else HEADER) + (0.0 if level.leaves else PADDING)
        x = [self._x[column] for column in grid.columns]
        frame.ports = dict(zip(level.sources or range(level.first), x, strict=False))
        frame.anchor = x[-1] if level.leaves else x[0] if x else frame.width / 2
        corners = [(x[node] - self._sizes[node][2], self._top[grid.rows[node]]) for node in range(level.size)]
        last = level.first + len(level.item.children)
        frame.ends, frame.places = corners[: level.first] + corners[last:], corners[level.first : last]
        entries = self._entries()
        frame.edges = [Edge((start, end), self._points(start, end, entries)) for start, end in level.edges]
        return frame

    def _size(self, node: int) -> tuple[float, float, float]:
        """Width, height and anchor of a node."""
        number = node - self._level.first
        if not 0 <= number < len(self._level.item.children):
            width = end_width(self._level, node) if self._outermost else 0.0
            return width, END_HEIGHT if self._outermost else 0.0, width / 2
        inner = self._frame.inner.get(node)
        if inner is not None:
            return inner.width, inner.height, inner.anchor
        width = box_width(self._level.item.children[number])
        return width, HEIGHT, width / 2

    def _centres(self) -> tuple[list[float], float]:
        """The middle of each column, and the width of all."""
        grid = self._grid
        bends = [column for of_node in grid.bends for column in of_node.values()]
        count = max([*grid.columns, *bends], default=-1) + 1
        left, right = [LANE] * count, [LANE] * count
        for column, (width, _, anchor) in zip(grid.columns, self._sizes, strict=True):
            if width:
                left[column] = max(left[column], anchor + MARGIN)
                right[column] = max(right[column], width - anchor + MARGIN)
        width = max(sum(left) + sum(right), header_width(self._level.item) - PADDING)
        centres, edge = [], PADDING + (width - sum(left) - sum(right)) / 2
        for before, after in zip(left, right, strict=True):
            centres.append(edge + before)
            edge += before + after
        return centres, width + 2 * PADDING

    def _heights(self) -> tuple[list[float], list[float]]:
        """Upper and lower end of each row."""
        grid = self._grid
        count = max(grid.rows, default=-1) + 1
        heights, bent = [0.0] * count, [0] * (count + 1)
        for row, (_, height, _) in zip(grid.rows, self._sizes, strict=True):
            heights[row] = max(heights[row], height)
        for start, end in self._level.edges:
            cells = [*grid.cells(start, end), (grid.rows[end], grid.columns[end])]
            before = grid.columns[start]
            for row, column in cells:
                bent[row] += column != before
                before = column
        if self._level.first and not self._outermost:
            heights[0] = HEADER  # edges come in through the header
        top, bottom = [], []
        y = 0.0 if self._level.first else HEADER
        for row, height in enumerate(heights):
            y += min(GAP + BEND_GAP * bent[row], MOST_GAP) if row else 0.0
            top.append(y)
            y += height
            bottom.append(y)
        return top, bottom

    def _entries(self) -> dict[tuple[int, int], float]:
        """How far from its middle an edge enters a node: straight in the middle, others on their side."""
        level, grid = self._level, self._grid
        entering: dict[int, list[tuple[int, int]]] = {}
        for start, end in level.edges:
            cells = [(grid.rows[start], grid.columns[start]), *grid.cells(start, end)]
            entering.setdefault(end, []).append((cells[-1][1], start))
        found = {}
        for end, edges in entering.items():
            inner = self._frame.inner.get(end)
            if inner is not None:
                found.update({(start, end): inner.ports[start] - inner.anchor for _, start in edges})
                continue
            width = self._sizes[end][0]
            step = min(PORT_STEP, max(width / 2 - 8.0, 0.0) / len(edges))
            left = [one for one in sorted(edges) if one[0] < grid.columns[end]]
            right = [one for one in sorted(edges) if one[0] > grid.columns[end]]
            found.update({(start, end): step * (n - len(left)) for n, (_, start) in enumerate(left)})
            found.update({(start, end): step * (n + 1) for n, (_, start) in enumerate(right)})
        return found

    def _points(self, start: int, end: int, entries: Mapping[tuple[int, int], float]) -> list[Point]:
        grid = self._grid
        x, row = self._x[grid.columns[start]], grid.rows[start]
        points = [(x, self._top[row] + self._sizes[start][1]), (x, self._bottom[row])]
        for row, column in grid.cells(start, end):
            x = self._x[column]
            points += [(x, self._top[row]), (x, self._bottom[row])]
        x = self._x[grid.columns[end]] + entries.get((start, end), 0.0)
        y = self._top[grid.rows[end]]
        return [*points, (x, y)]
