"""Tells which axes of attention weights have the batch, the heads, the queries and the keys."""

import math

from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .patterns import TRANSPARENT, Match


def weights_after_sinks(match: Match) -> TensorNode:
    """Returns the weights of a match, after what went to attention sinks was cut off, if that was done."""
    after = match.operations[1 : match.operations.index(match["softmax"])]
    cut = [one.outputs[0] for one in after if one.function == "getitem"]
    softmax: TensorNode = match["softmax"].outputs[0]
    return cut[0] if cut else softmax


def weights_axes(match: Match) -> tuple[int, ...] | None:
    """Returns the axes of the softmax in the order batch, heads, query, key; None if it is over others."""
    softmax, scores = match["softmax"], match["scores"]
    rank = len(softmax.outputs[0].shape)
    axes = tuple(range(rank))
    if scores.function == "einsum":
        axes = _einsum_axes(scores) or axes
        if len(axes) != rank:  # laid out anew in between
            axes = tuple(range(rank))
    if softmax.function != "softmax":
        return axes
    axis = softmax.args[1] if len(softmax.args) > 1 else softmax.kwargs.get("dim")
    return axes if axis is not None and axis % rank == axes[-1] else None


def _einsum_axes(scores: Operation) -> tuple[int, ...] | None:
    """The axes of the result of an einsum of queries and keys, by its letters."""
    equation = str(scores.args[0]).replace(" ", "")
    if "->" not in equation or "." in equation:
        return None
    operands, result = equation.split("->")
    query, key = operands.split(",")
    shared = [letter for letter in query if letter in key and letter in result]
    queries = [letter for letter in result if letter in query and letter not in key]
    keys = [letter for letter in result if letter in key and letter not in query]
    return tuple(result.index(letter) for letter in (*shared, *queries, *keys))


def split_heads(graph: OperationGraph, query: TensorNode, shape: list[int]) -> int:
    """Returns the number of heads of weights of a shape (..., query, key), by how the queries were split.

    With four axes the second one has the heads. Three may be heads without a batch, heads and batch as one,
    or a single head; five a group of heads for each head of the keys, or windows of pictures.
    """
    if len(shape) == 4:
        return shape[1]
    axes = _split_axes(graph, query)
    if len(shape) == 3:
        return axes[-1] if shape[0] % axes[-1] == 0 else 1
    products = [math.prod(axes[start:]) for start in range(len(axes))]
    sizes = [math.prod(shape[start:-2]) for start in range(1, len(shape) - 2)]
    return next((heads for heads in products if heads in sizes), sizes[0] if sizes else 1)


def _split_axes(graph: OperationGraph, query: TensorNode) -> tuple[int, ...]:
    """The sizes of the axes, but for the last, that queries were split into: heads, or groups and heads."""
    width, node = query.shape[-1], query
    while (operation := graph.producer(node)) is not None:
        if operation.function not in TRANSPARENT | {"mul", "div", "unbind", "getitem"}:
            break
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        if before[-1] > width and before[-1] % width == 0 and after[-1] == width and len(after) > 1:
            return after[len(before) - 1 : -1] if len(after) > len(before) else (before[-1] // width,)
        node = operation.inputs[0]
    return (1,)


def distinct_heads(graph: OperationGraph, key: TensorNode, heads: int) -> int:
    """Returns the number of heads of the keys before they were repeated for the heads of the queries."""
    node, repeats = key, 1
    repeating = ("expand", "repeat", "repeat_interleave", "expand_as", "broadcast_to", "tile")
    while (operation := graph.producer(node)) is not None:
        if operation.function not in TRANSPARENT | {"getitem", *repeating}:
            break
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        if operation.function in repeating and len(before) > 3:
            repeats *= math.prod(after[1:]) // math.prod(before[1:])
        node = operation.inputs[0]
    return heads // repeats if heads % repeats == 0 else heads
