"""How tensors of a transformer are laid out, told by their sizes in a pass over two short texts."""

from collections import Counter
from itertools import chain

from ...instrument import OperationGraph, TensorNode
from .hook_points import Columns, HookPoint

Axes = tuple[tuple[str, ...], ...]

VECTORS = ("batch", "position", "width")
HEADS = ("batch", "position", "head", "width")
PATTERN = ("batch", "head", "query", "key")


class TensorLayouts:
    """The layouts and the engine's names of the tensors of a pass.

    Args:
        graph: The graph of a pass over two texts.
        length: How many positions they have, which is no number of heads.
    """

    def __init__(self, graph: OperationGraph, length: int) -> None:
        self.graph, self.length = graph, length
        self._runs = Counter(chain.from_iterable(graph.returned.values()))
        self._overwritten = {
            operation.inputs[0].name for operation in graph if operation.in_place and operation.inputs
        }

    def point(
        self,
        name: str,
        node: TensorNode,
        order: tuple[str, ...],
        *,
        axes: Axes | None = None,
        heads: int = 1,
        columns: Columns | None = None,
    ) -> HookPoint | str:
        """Returns the hook point that a tensor of the model holds, or why it is none."""
        axes = axes or self.axes(node, heads if order == HEADS else None)
        if axes is None:
            return f"{node.name!r} of shape {node.shape} is laid out in an unknown way"
        return HookPoint(
            name=name,
            layer=self.engine_name(node),
            axes=axes,
            order=order,
            heads=heads,
            columns=columns,
            overwritten=node.name in self._overwritten,
        )

    def engine_name(self, node: TensorNode) -> str:
        """Returns the name of the innermost module that returns a tensor, else that of the operation.

        A module in which the tensor is read before it returns it comes too late.
        """
        returned = self.graph.returned.get(node.name, [])
        if not returned or self._runs[returned[0]] != 1:
            return node.name
        inside = f"{returned[0]}." if returned[0] else ""
        read = (f"{one.module}.".startswith(inside) for one in self.graph.consumers(node))
        return node.name if any(read) else f"{returned[0]}#0"

    def axes(self, node: TensorNode, heads: int | None = None) -> Axes | None:
        """Returns what the axes of vectors, or of vectors of heads, are, by their sizes."""
        length, shape = self.length, node.shape
        batch = ("batch",)
        if heads is None:
            if len(shape) == 2 and shape[0] == 2 * length:
                return ("batch", "position"), ("width",)
            if shape[:2] == (length, 2):  # as in XLNet
                return ("position",), batch, ("width",)
            return (batch, ("position",), ("width",)) if shape[:2] == (2, length) else None
        if len(shape) == 4 and shape[:3] == (length, 2, heads):
            return ("position",), batch, ("head",), ("width",)
        if len(shape) == 4 and shape[0] == 2 and shape[1:3] in ((length, heads), (heads, length)):
            second = ("position",) if shape[1] == length else ("head",)
            third = ("head",) if shape[1] == length else ("position",)
            return batch, second, third, ("width",)
        if len(shape) == 3 and shape[:2] == (2 * heads, length):
            return ("batch", "head"), ("position",), ("width",)
        if len(shape) == 3 and shape[:2] == (2, length) and shape[2] % heads == 0:
            return batch, ("position",), ("head", "width")
        return None
