"""Columns for the nodes of a layered graph: every node and every bend of an edge has a cell of its own.

The cells do not depend on the sizes of nodes. Where some nodes have grown, column widths and row
heights are added up again, and the picture is right.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

from .layering import Edges, Layering, layered


@dataclass(frozen=True)
class Grid:
    """Cells of the nodes of a graph.

    Attributes:
        rows: The row of each node, from 0 at the top.
        columns: The column of each node, from 0 on the left.
        bends: Of each node, the columns in which its edges cross the rows below it, by row.
    """

    rows: list[int]
    columns: list[int]
    bends: list[dict[int, int]]

    def cells(self, start: int, end: int) -> list[tuple[int, int]]:
        """Returns the cells (row, column) that an edge passes between its nodes."""
        bends = self.bends[start]
        return [(row, bends[row]) for row in range(self.rows[start] + 1, self.rows[end]) if row in bends]


def grid_layout(size: int, edges: Edges, ports: int = 0, out: bool = False) -> Grid:
    """Returns cells for nodes, in about linear time: edges lead down, and long paths are straight.

    Rows and order are those of `layered`. Then segments are aligned without crossings, first those between
    nodes, from the longest paths on, then those of long edges (Brandes and Köpf, 2001, "Fast and simple
    horizontal coordinate assignment", with whole columns). Then all moves to the left as far as it goes.

    Args:
        size: Number of nodes.
        edges: Pairs of nodes; they lead from smaller to larger numbers.
        ports: How many nodes, the first ones, are in the top row, in the order of their numbers.
        out: Whether the last node is below all others.

    Example:
        >>> grid = grid_layout(4, [(0, 1), (1, 2), (0, 3), (2, 3)])
        >>> grid.rows, grid.columns, grid.cells(0, 3)
        ([0, 1, 2, 3], [0, 0, 0, 0], [(1, 1), (2, 1)])
    """
    layers = layered(size, edges, ports, out)
    blocks = _blocks(layers, _aligned(layers, size))
    columns = _columns(layers, blocks)
    bends = [{row: columns[bend] for row, bend in of_node.items()} for of_node in layers.bends]
    return Grid(layers.rows[:size], columns[:size], bends)


def _aligned(layers: Layering, size: int) -> list[tuple[int, int]]:
    """Segments that do not cross each other, at most one above and one below each node."""
    place = {node: number for row in layers.order for number, node in enumerate(row)}
    length = _path_lengths(layers)

    def urgency(segment: tuple[int, int]) -> tuple[int, int, int]:
        start, end = segment
        kind = (start < size) + (end < size)  # of nodes 2, of bends 0
        return (1, 2, 0)[kind], -length[segment], abs(place[start] - place[end])

    chosen: dict[int, list[tuple[int, int]]] = {}
    aligned = []
    for start, end in sorted(layers.segments, key=urgency):
        others = chosen.setdefault(layers.rows[start], [])
        pair = place[start], place[end]
        at = bisect_left(others, pair)
        left = others[at - 1] if at else (-1, -1)
        right = others[at] if at < len(others) else (len(place), len(place))
        if left[0] < pair[0] < right[0] and left[1] < pair[1] < right[1]:
            insort(others, pair)
            aligned.append((start, end))
    return aligned


def _path_lengths(layers: Layering) -> dict[tuple[int, int], int]:
    """Of each segment, the rows of the longest path through it."""
    highest, lowest = list(layers.rows), list(layers.rows)
    downward = sorted(layers.segments, key=lambda one: layers.rows[one[0]])
    for start, end in downward:
        highest[end] = min(highest[end], highest[start])
    for start, end in reversed(downward):
        lowest[start] = max(lowest[start], lowest[end])
    return {(start, end): lowest[end] - highest[start] for start, end in downward}


def _blocks(layers: Layering, aligned: list[tuple[int, int]]) -> list[int]:
    """The block of each node: what is aligned is one block, named by its topmost node."""
    blocks = list(range(len(layers.rows)))
    for start, end in sorted(aligned, key=lambda one: layers.rows[one[0]]):
        blocks[end] = blocks[start]
    return blocks


def _columns(layers: Layering, blocks: list[int]) -> list[int]:
    """The column of each node: blocks as far left as they go, then nearer to what they lead to."""
    right: dict[int, set[int]] = {block: set() for block in blocks}
    for row in layers.order:
        for one, other in pairwise(row):
            right[blocks[one]].add(blocks[other])
    sequence = _from_left(right)
    column = dict.fromkeys(sequence, 0)
    for block in sequence:
        for other in right[block]:
            column[other] = max(column[other], column[block] + 1)
    near: dict[int, list[int]] = {block: [] for block in sequence}
    for start, end in layers.segments:
        if blocks[start] != blocks[end]:
            near[blocks[start]].append(blocks[end])
            near[blocks[end]].append(blocks[start])
    for block in reversed(sequence):
        if near[block]:
            wanted = median_low(column[other] for other in near[block])
            most = min((column[other] for other in right[block]), default=wanted + 1) - 1
            column[block] = max(column[block], min(wanted, most))
    return [column[block] for block in blocks]


def _from_left(right: dict[int, set[int]]) -> list[int]:
    """Blocks in an order in which each comes before those on its right."""
    waits = dict.fromkeys(right, 0)
    for others in right.values():
        for other in others:
            waits[other] += 1
    sequence = [block for block, count in waits.items() if not count]
    for block in sequence:
        for other in sorted(right[block]):
            waits[other] -= 1
            if not waits[other]:
                sequence.append(other)
    return sequence
