"""Tells which axes of attention weights have the batch, the heads, the queries and the keys."""

import math
from collections.abc import Iterator, Sequence

from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .patterns import Match
from .sources import TRANSPARENT, passed_over

_SOFTMAXES = ("softmax", "log_softmax", "logsumexp")
_TURNS = ("transpose", "swapaxes", "swapdims", "permute", "mT", "T", "t", "adjoint", "mH")
_PRODUCTS = ("matmul", "bmm", "mm", "baddbmm", "einsum")
_LAYING_OUT = TRANSPARENT | {"mul", "div", "unbind", "getitem", "split", "chunk"}


def weights_after_sinks(match: Match) -> TensorNode:
    """Returns the weights of a match, after what went to attention sinks was cut off, if that was done."""
    after = match.operations[1 : match.operations.index(match["softmax"])]
    cut = [one.outputs[0] for one in after if one.function == "getitem"]
    softmax: TensorNode = match["softmax"].outputs[0]
    return cut[0] if cut else softmax


def weights_axes(graph: OperationGraph, match: Match) -> tuple[tuple[int, ...], bool] | None:
    """Returns the axes of the softmax in the order batch, heads, query, key, and which operand has queries.

    It is the first of the product, unless this is False: the axis of the softmax is that of the keys. None
    where the softmax is over something else, or its scores are mixed by something else than heads.
    """
    softmax, scores = match["softmax"], match["scores"]
    rank = len(softmax.outputs[0].shape)
    axes = tuple(range(rank))
    if scores.function == "einsum":
        axes = _einsum_axes(scores) or axes
        if len(axes) != rank:  # laid out anew in between
            axes = tuple(range(rank))
    mixing = [one for one in match.operations if one.function == "linear"]
    if any(rank != 4 or one.inputs[1].shape != (softmax.outputs[0].shape[1],) * 2 for one in mixing):
        return None
    turned = scores.function != "einsum" and bool(_turned(graph, softmax.inputs, scores))
    inner = next((one for one in match.operations if one.function in _SOFTMAXES), None)
    if inner is None:
        return axes, not turned
    axis = inner.args[1] if len(inner.args) > 1 else inner.kwargs.get("dim")
    axis = axis[0] if isinstance(axis, tuple | list) else axis
    if axis is not None and axis % rank == axes[-1]:
        return axes, not turned
    if axis is not None and axis % rank == axes[-2] and _sums_over_rows(graph, match):
        return (*axes[:-2], axes[-1], axes[-2]), turned
    return None


def _sums_over_rows(graph: OperationGraph, match: Match) -> bool:
    """Whether the last product sums over the last axis but one of the softmax: the weights are turned."""
    product, softmax = match.operation, match["softmax"]
    if product.function == "einsum" or match["scores"].function == "einsum":
        return False
    first, second = (_turned(graph, [one], softmax) for one in product.inputs[:2])
    return bool(first) if first is not None else second is False


def _turned(graph: OperationGraph, nodes: Sequence[TensorNode], start: Operation) -> bool | None:
    """Whether the last two axes change places on the way from an operation to tensors; None without one."""
    seen: set[TensorNode] = set()
    waiting = [(node, False) for node in nodes]
    while waiting:
        node, turned = waiting.pop()
        operation = graph.producer(node)
        if operation is start:
            return turned
        if operation is not None and node not in seen and operation.function not in _PRODUCTS:
            seen.add(node)
            turned ^= operation.function in _TURNS and _turns(operation)
            waiting += [(one, turned) for one in operation.inputs]
    return None


def _turns(operation: Operation) -> bool:
    """Whether an operation that moves axes makes the last two change places."""
    rank = len(operation.outputs[0].shape)
    axes = [
        one for part in operation.args[1:] for one in (part if isinstance(part, tuple | list) else [part])
    ]
    axes = [axis % rank for axis in [*axes, *operation.kwargs.values()] if isinstance(axis, int)]
    if operation.function == "permute":
        return axes[-2:] == [rank - 1, rank - 2]
    return not axes or sorted(axes) == [rank - 2, rank - 1]


def _einsum_axes(scores: Operation) -> tuple[int, ...] | None:
    """The axes of the result of an einsum of queries and keys, by its letters."""
    letters = _einsum_letters(scores)
    if letters is None:
        return None
    result = str(scores.args[0]).replace(" ", "").split("->")[1]
    return tuple(result.index(letter) for group in letters for letter in group)


def _einsum_letters(scores: Operation) -> tuple[list[str], list[str], list[str]] | None:
    """The letters of the result of an einsum: those of queries and keys, of queries alone, of keys alone."""
    equation = str(scores.args[0]).replace(" ", "")
    if "->" not in equation or "." in equation:
        return None
    operands, result = equation.split("->")
    query, key = operands.split(",")
    shared = [letter for letter in query if letter in key and letter in result]
    queries = [letter for letter in result if letter in query and letter not in key]
    keys = [letter for letter in result if letter in key and letter not in query]
    return shared, queries, keys


def split_heads(graph: OperationGraph, query: TensorNode, shape: list[int]) -> int:
    """Returns the number of heads of weights of a shape (..., query, key), by how the queries were split.

    With four axes the second one has the heads. Three may be heads without a batch, heads and batch as one,
    or a single head; five a group of heads for each head of the keys, or windows of pictures.
    """
    if len(shape) == 4:
        return shape[1]
    axes = _split_axes(graph, query)
    if len(shape) == 3:
        heads = axes[-1] if axes != (1,) else _beside_batch(graph, query)
        return heads if shape[0] % heads == 0 else 1
    products = [math.prod(axes[start:]) for start in range(len(axes))]
    sizes = [math.prod(shape[start:-2]) for start in range(1, len(shape) - 2)]
    return next((heads for heads in products if heads in sizes), sizes[0] if sizes else 1)


def _split_axes(graph: OperationGraph, query: TensorNode) -> tuple[int, ...]:
    """The sizes of the axes, but for the last, that queries were split into: heads, or groups and heads."""
    width = query.shape[-1]
    dropped: list[int] = []  # axes that lost all places but one, the last one first
    for operation, before, after in _changes(graph, query):
        axis = _dropped(operation, len(before), len(after))
        dropped += [] if axis is None else [axis]
        whole = math.prod(before) == math.prod(after)  # else queries are cut out beside keys and values
        if whole and before[-1] > width and after[-1] == width and len(after) > 1:
            axes = after[len(before) - 1 : -1] if len(after) > len(before) else (before[-1] // width,)
            # a place each of all axes but the heads, and one more that is no text of the batch: a head
            return (1,) if len(dropped) >= len(axes) and dropped[0] > 0 else axes
    return (1,)


def _beside_batch(graph: OperationGraph, query: TensorNode) -> int:
    """The number of heads that the axis of the batch got, where channels come before positions."""
    for _, before, after in _changes(graph, query):
        if after[0] > before[0] > 0 and len(before) == len(after) == 3 and before[-1] == after[-1]:
            return after[0] // before[0]
    return 1


def _changes(
    graph: OperationGraph, query: TensorNode
) -> Iterator[tuple[Operation, tuple[int, ...], tuple[int, ...]]]:
    """Yields the operations that lay queries out, the last one first, with the shapes before and after."""
    node = query
    while (operation := graph.producer(node)) is not None:
        inner = passed_over(operation, node, _LAYING_OUT)
        if inner is None:
            return
        before, after = inner.shape, node.shape
        if sorted(before) != sorted(after):  # else axes only change places
            yield operation, before, after
        node = inner


def _dropped(operation: Operation, before: int, after: int) -> int | None:
    """The axis along which an operation takes one place and does nothing else, None if there is none."""
    if before != after + 1 or operation.function not in ("unbind", "getitem"):
        return None
    if operation.function == "unbind":
        axis: int = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("dim", 0)
        return axis % before
    index = operation.args[1] if isinstance(operation.args[1], tuple) else (operation.args[1],)
    if not all(one is ... or isinstance(one, int | slice) for one in index):
        return None
    place = next((number for number, one in enumerate(index) if isinstance(one, int)), None)
    return place if place is None or ... not in index[:place] else before - len(index) + place


def key_heads(graph: OperationGraph, match: Match, heads: int) -> int:
    """Returns the number of heads of the keys, one for several heads of the queries where those share it."""
    scores, query, key = match["scores"], match["query"], match["key"]
    if scores.function == "einsum":
        letters = _einsum_letters(scores)
        alone = [] if letters is None else letters[1][:-1]
        sizes = dict(zip(str(scores.args[0]).replace(" ", ""), query.shape, strict=False))
        shared = math.prod(sizes[letter] for letter in alone)
    else:
        pairs = zip(query.shape[-3::-1], key.shape[-3::-1], strict=False)
        shared = math.prod(size for size, other in pairs if other == 1)
    return distinct_heads(graph, key, heads // shared if heads % shared == 0 else heads)


def distinct_heads(graph: OperationGraph, key: TensorNode, heads: int) -> int:
    """Returns the number of heads of the keys before they were repeated for the heads of the queries."""
    node, repeats = key, 1
    repeating = ("expand", "repeat", "repeat_interleave", "expand_as", "broadcast_to", "tile")
    while (operation := graph.producer(node)) is not None:
        inner = passed_over(operation, node, TRANSPARENT | {"getitem", *repeating})
        if inner is None:
            break
        before, after = inner.shape, node.shape
        if operation.function in repeating and len(before) > 3:
            repeats *= math.prod(after[1:]) // math.prod(before[1:])
        node = inner
    return heads // repeats if heads % repeats == 0 else heads
