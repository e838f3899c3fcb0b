"""Where a tensor of a graph comes from: the operation that made it, past those that only lay it out anew."""

from typing import Any

from ...core.function_kinds import CONVERSIONS, DROPOUTS, LAYOUT, TENSOR_PROPERTIES
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode

_PARTS = frozenset(
    ("select", "chunk", "split", "split_with_sizes", "unbind", "repeat", "tile", "roll", "flip", "rot90")
)
# What returns the numbers of its first argument, all of them, in their precision or another one.
TRANSPARENT = (LAYOUT - _PARTS) | CONVERSIONS | DROPOUTS | TENSOR_PROPERTIES - {"real", "imag"}


def source(graph: OperationGraph, node: TensorNode, functions: frozenset[str] = TRANSPARENT) -> TensorNode:
    """Returns the tensor that some functions made a tensor of, by default those that keep its numbers."""
    while (operation := producer(graph, node)) is not None:
        if operation.function not in functions or not operation.inputs:
            break
        node = operation.inputs[0]
    return node


def producer(graph: OperationGraph, node: TensorNode) -> Operation | None:
    """Returns the operation that made a tensor of this graph, None for one that none made."""
    return None if node.producer is None else graph.operations[node.producer]


def arguments(operation: Operation) -> list[Any]:
    """Returns the arguments of an operation in their order, tensors in lists one by one."""
    found: list[Any] = []
    for value in (*operation.args, *operation.kwargs.values()):
        if isinstance(value, list | tuple) and any(isinstance(one, TensorNode) for one in value):
            found += value
        else:
            found.append(value)
    return found
