"""The edges of each level of the tree: what tensors lead from one item to another, or in and out."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from ..nodes import TensorNode
from .items import ForwardPass, Item, activations


@dataclass(eq=False, slots=True)
class Level:
    """The children of an item and the edges between them.

    Nodes are numbered: first the ports, through which tensors come in, then the children in their order, then
    the port through which tensors leave, where some do. Edges lead from smaller to larger numbers.

    Attributes:
        item: The item.
        ports: Of each port in, the tensors that come through it. There is a port for each node of the level
            around that they come from; at the root, for each tensor.
        sources: Of each port in, the number of that node in the level around; empty at the root.
        edges: The tensors of each edge, by the numbers of its two nodes.
        leaves: Whether tensors leave.
    """

    item: Item
    ports: list[list[TensorNode]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    edges: dict[tuple[int, int], list[TensorNode]] = field(default_factory=dict)
    leaves: bool = False

    @property
    def first(self) -> int:
        """The number of the first child."""
        return len(self.ports)

    @property
    def out(self) -> int | None:
        """The number of the port through which tensors leave."""
        return self.first + len(self.item.children) if self.leaves else None

    @property
    def left(self) -> list[TensorNode]:
        """The tensors that leave."""
        leaving = (nodes for edge, nodes in self.edges.items() if edge[1] == self.out)
        return list(dict.fromkeys(chain.from_iterable(leaving)))

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return self.first + len(self.item.children) + self.leaves


class _Use(NamedTuple):
    """A tensor with the operation that makes it, or the port that it comes through, and one that takes it."""

    tensor: TensorNode
    start: Item | int
    end: Item | None  # None outside of the item


def levels(root: Item, graph: ForwardPass) -> dict[Item, Level]:
    """Returns the level of each item that has children, the root first.

    An edge of operations that are deep in two items is an edge between these, and inside of them one to the
    port where tensors leave and one from the port where they come in.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> from toumei.instrument.viewer.tree import module_tree
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> graph = tracker.build_graph()
        >>> root = module_tree(graph)
        >>> levels(root, graph)[root].edges.keys()
        dict_keys([(0, 1), (1, 2), (2, 3)])
    """
    first = Level(root)
    waiting = deque([(first, list(_uses(root, graph, first)))])
    found = {}
    while waiting:
        level, uses = waiting.popleft()
        found[level.item] = level
        waiting += _inner(level, uses)
    return found


def _uses(root: Item, graph: ForwardPass, level: Level) -> Iterator[_Use]:
    """Every tensor with each operation that takes it, and those of the output; adds the ports of the root."""
    leaves = [(item, item.operation) for item in root.everything() if item.operation is not None]
    starts: dict[TensorNode, Item | int] = {
        node: item for item, operation in leaves for node in operation.written
    }
    taken = [(node, item) for item, operation in leaves for node in operation.inputs]
    ends: list[tuple[TensorNode, Item | None]] = [*taken, *((node, None) for node in graph.outputs)]
    drawn = set(activations(graph.tensors.values()))
    for node, end in ends:
        if node in drawn:
            if node not in starts:
                starts[node] = len(level.ports)
                level.ports.append([node])
            yield _Use(node, starts[node], end)


def _inner(level: Level, uses: list[_Use]) -> list[tuple[Level, list[_Use]]]:
    """Adds the edges of a level, and returns the levels in it with what is used inside of them."""
    children = level.item.children
    place = {
        inner: level.first + number for number, child in enumerate(children) for inner in child.everything()
    }
    level.leaves = any(use.end is None for use in uses)
    inside = {level.first + number: Level(child) for number, child in enumerate(children) if child.children}
    below: dict[int, dict[_Use, None]] = {number: {} for number in inside}
    edges: dict[tuple[int, int], dict[TensorNode, None]] = {}
    for use in uses:
        start = use.start if isinstance(use.start, int) else place[use.start]
        end = level.first + len(children) if use.end is None else place[use.end]
        if start == end:
            below[start][use] = None
            continue
        edges.setdefault((start, end), {})[use.tensor] = None
        if start in inside:
            below[start][_Use(use.tensor, use.start, None)] = None
        if end in inside:
            port = _port(inside[end], start, use.tensor)
            below[end][_Use(use.tensor, port, use.end)] = None
    level.edges = {edge: list(tensors) for edge, tensors in sorted(edges.items())}
    return [(inside[number], list(below[number])) for number in inside]


def _port(level: Level, source: int, tensor: TensorNode) -> int:
    """The port of a level for tensors from a node of the level around; adds what is missing."""
    if source not in level.sources:
        level.sources.append(source)
        level.ports.append([])
    port = level.sources.index(source)
    if tensor not in level.ports[port]:
        level.ports[port].append(tensor)
    return port
