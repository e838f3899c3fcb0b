"""Rows and order of the nodes of a graph without circles, so that edges lead down and cross little."""

from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Edges = Sequence[tuple[int, int]]
_SWEEPS = 4
_BENDS = 20  # bends per node that long edges may have in all


@dataclass(frozen=True)
class Layering:
    """Nodes in rows. An edge over several rows has a bend in each row in between.

    Attributes:
        rows: The row of each node and, after these, of each bend.
        order: The nodes and bends of each row from left to right.
        segments: Pairs of nodes and bends in rows that follow each other, without the numbers of edges.
        bends: The bends of each node's edges by row. All edges of a node share them.
    """

    rows: list[int]
    order: list[list[int]]
    segments: list[tuple[int, int]]
    bends: list[dict[int, int]]


def layered(size: int, edges: Edges, ports: int = 0, out: bool = False) -> Layering:
    """Returns rows by longest path from above, and an order by barycentres.

    Args:
        size: Number of nodes.
        edges: Pairs of nodes; they lead from smaller to larger numbers.
        ports: How many nodes, the first ones, are in the top row, in the order of their numbers.
        out: Whether the last node is below all others.

    Example:
        >>> layered(4, [(0, 1), (1, 2), (0, 3), (2, 3)]).rows
        [0, 1, 2, 3, 1, 2]
    """
    rows = _rows(size, edges, ports, out)
    bends: list[dict[int, int]] = [{} for _ in range(size)]
    segments: dict[tuple[int, int], None] = {}
    for start, lowest in _routed(rows, edges):
        for row in range(rows[start] + 1, lowest):
            bends[start][row] = len(rows)
            rows.append(row)
            segments[bends[start].get(row - 1, start), bends[start][row]] = None
    for start, end in edges:
        above = bends[start].get(rows[end] - 1, start)
        if rows[above] == rows[end] - 1:
            segments[above, end] = None
    order: list[list[int]] = [[] for _ in range(max(rows, default=-1) + 1)]
    for node, row in enumerate(rows):
        order[row].append(node)
    return Layering(rows, _ordered(order, list(segments), fixed=ports > 0), list(segments), bends)


def _rows(size: int, edges: Edges, ports: int, out: bool) -> list[int]:
    """The row of each node: one below the lowest node that leads to it."""
    above: list[list[int]] = [[] for _ in range(size)]
    below: list[list[int]] = [[] for _ in range(size)]
    for start, end in edges:
        above[end].append(start)
        below[start].append(end)
    rows = [0] * size
    entered = [node < ports for node in range(size)]
    for node in range(ports, size):
        rows[node] = max((rows[one] for one in above[node]), default=min(ports, 1) - 1) + 1
        entered[node] = any(entered[one] for one in above[node])
    for node in reversed(range(size)):  # what needs no input goes down to what takes it
        if below[node] and not entered[node]:
            rows[node] = min(rows[one] for one in below[node]) - 1
    if out:
        rows[-1] = max(rows[:-1], default=-1) + 1
    return rows


def _routed(rows: list[int], edges: Edges) -> list[tuple[int, int]]:
    """The nodes with edges over several rows, and where the longest ends; without the longest of too many."""
    lowest: dict[int, int] = {}
    for start, end in edges:
        if rows[end] > rows[start] + 1:
            lowest[start] = max(lowest.get(start, 0), rows[end])
    left = _BENDS * (len(rows) + 50)
    routed = []
    for start, row in sorted(lowest.items(), key=lambda one: one[1] - rows[one[0]]):
        left -= row - rows[start] - 1
        if left >= 0:
            routed.append((start, row))
    return sorted(routed)


def _ordered(order: list[list[int]], segments: list[tuple[int, int]], fixed: bool) -> list[list[int]]:
    """The order with the fewest crossings among those of some sweeps down and up."""
    size = sum(map(len, order))
    above: list[list[int]] = [[] for _ in range(size)]
    below: list[list[int]] = [[] for _ in range(size)]
    for start, end in segments:
        above[end].append(start)
        below[start].append(end)
    best, fewest = order, _crossings(order, below)
    for _ in range(_SWEEPS):
        if not fewest:
            break
        for down in (True, False):
            order = _swept(order, above if down else below, down, fixed)
            crossings = _crossings(order, below)
            if crossings < fewest:
                best, fewest = order, crossings
    return best


def _swept(order: list[list[int]], neighbours: list[list[int]], down: bool, fixed: bool) -> list[list[int]]:
    """Rows sorted by the mean places of neighbours in the row before; without any, nodes keep theirs."""
    swept = list(order)
    place: dict[int, float] = {}
    for row in range(len(order)) if down else reversed(range(len(order))):
        nodes = order[row]
        if not (fixed and row == 0):
            centre = {}
            for number, node in enumerate(nodes):
                near = [place[one] for one in neighbours[node]]
                centre[node] = sum(near) / len(near) if near else number
            nodes = sorted(nodes, key=centre.__getitem__)
        swept[row] = nodes
        place.update({node: number for number, node in enumerate(nodes)})
    return swept


def _crossings(order: list[list[int]], below: list[list[int]]) -> int:
    """How many pairs of segments cross."""
    crossings = 0
    for row, next_row in pairwise(order):
        place = {node: number for number, node in enumerate(next_row)}
        seen: list[int] = []
        for node in row:
            ends = sorted(place[one] for one in below[node])
            crossings += sum(len(seen) - bisect(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return crossings
