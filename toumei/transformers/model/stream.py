"""What is added to the residual stream of a transformer, read from the graph of a forward pass.

The stream at the end is a sum of sums. Taken apart it gives one tensor for the embedding and one for each
attention and feed-forward layer, whatever the order in which a model adds them: one after the other, in
parallel, after norms of their own, scaled. Where norms stand in the stream itself, as in BERT, there is one
sum between two norms.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ...core.errors import ArchitectureError
from ...instrument import FeedForward, MultiHeadAttentionInstance, OperationGraph, TensorNode
from ...instrument.search.patterns import TRANSPARENT

Component = tuple[str, int]  # "attn" or "mlp", and the layer


@dataclass(frozen=True, eq=False)
class StreamSum:
    """A part of the residual stream without a norm in it.

    Attributes:
        start: The tensors that it begins with: the embeddings, or what the norm before it returned.
        parts: What each component adds, in the order in which they ran.
        sums: The partial sums, by the components that are in them.
    """

    start: tuple[TensorNode, ...]
    parts: Mapping[Component, TensorNode]
    sums: Mapping[frozenset[Component], TensorNode]


def find_stream(
    graph: OperationGraph,
    attentions: Collection[MultiHeadAttentionInstance],
    networks: Collection[FeedForward],
) -> list[StreamSum]:
    """Returns the sums that make up the residual stream, the first one first.

    Args:
        graph: The graph of a forward pass.
        attentions: The attention layers in it.
        networks: The feed-forward layers in it.

    Raises:
        ArchitectureError: There is no residual stream, or something else is added to it.
    """
    inside = {one.operation.name: ("attn", one.layer) for one in attentions}
    inside |= {one.down.operation.name: ("mlp", one.layer) for one in networks}
    segments: list[StreamSum] = []
    end: TensorNode | None = _last_sum(graph)
    while end is not None:
        segment, end = _segment(graph, end, inside)
        segments.append(segment)
    return segments[::-1]


def _last_sum(graph: OperationGraph) -> TensorNode:
    for operation in reversed(list(graph)):
        if operation.function == "add" and _is_sum(graph, operation.outputs[0]):
            return operation.outputs[0]
    raise ArchitectureError(f"no residual stream found in the pass of {graph.modules['']}")


def _is_sum(graph: OperationGraph, node: TensorNode) -> bool:
    """Whether a tensor is the sum of two computed tensors of its shape."""
    operation = graph.producer(node)
    if operation is None or operation.function != "add" or len(node.shape) < 2:
        return False
    if operation.kwargs.get("alpha", 1) != 1:
        return False
    tensors = operation.inputs
    return len(tensors) == 2 and all(one.shape == node.shape and one.kind == "result" for one in tensors)


def _segment(
    graph: OperationGraph, end: TensorNode, inside: Mapping[str, Component]
) -> tuple[StreamSum, TensorNode | None]:
    """The sum that ends with a tensor, and the last tensor of the sum before it."""
    leaves = list(_leaves(graph, end))
    spine = set(leaves) | set(_sums(graph, end))
    found = {leaf: _components(graph, leaf, spine, inside) for leaf in leaves}
    parts: dict[Component, TensorNode] = {}
    start, before = [], None
    for leaf, components in found.items():
        earlier = _sum_before(graph, leaf) if components else None
        if not components or earlier is not None:
            start.append(leaf)
            before = earlier or before
        elif len(components) == 1 and (component := next(iter(components))) not in parts:
            parts[component] = leaf
        else:
            names = ", ".join(sorted(f"{kind} {layer}" for kind, layer in components))
            raise ArchitectureError(
                f"{leaf.name!r} is added to the residual stream of {graph.modules['']} and comes from "
                f"several parts ({names})"
            )
    order = {component: place for place, component in enumerate(inside.values())}
    parts = dict(sorted(parts.items(), key=lambda item: order[item[0]]))
    by_leaf = {leaf: component for component, leaf in parts.items()}
    sums: dict[frozenset[Component], TensorNode] = {}
    for node in _sums(graph, end):  # the last ones first: of equal sums the first one stays
        inner = list(_leaves(graph, node))
        if set(start) <= set(inner):
            sums[frozenset(by_leaf[leaf] for leaf in inner if leaf in by_leaf)] = node
    if len(start) == 1:
        sums[frozenset()] = start[0]
    return StreamSum(tuple(start), parts, sums), before


def _through(graph: OperationGraph, node: TensorNode) -> TensorNode:
    """The sum that a tensor is, before it was laid out anew, cast or dropped out; else the tensor itself."""
    first = node
    while not _is_sum(graph, node):
        operation = graph.producer(node)
        if operation is None or operation.function not in TRANSPARENT or not operation.inputs:
            return first
        node = operation.inputs[0]
    return node


def _leaves(graph: OperationGraph, node: TensorNode) -> Iterator[TensorNode]:
    """The tensors that a sum is made of, those that are no sums themselves."""
    waiting = [node]
    while waiting:
        node = _through(graph, waiting.pop())
        operation = graph.producer(node)
        if operation is not None and _is_sum(graph, node):
            waiting += operation.inputs
        else:
            yield node


def _sums(graph: OperationGraph, node: TensorNode) -> Iterator[TensorNode]:
    """All sums inside a sum, itself first."""
    waiting = [node]
    while waiting:
        node = _through(graph, waiting.pop())
        operation = graph.producer(node)
        if operation is not None and _is_sum(graph, node):
            yield node
            waiting += operation.inputs


def _components(
    graph: OperationGraph, leaf: TensorNode, spine: Collection[TensorNode], inside: Mapping[str, Component]
) -> set[Component]:
    """The components that a leaf was computed by since the stream was read."""
    found, seen, waiting = set[Component](), {leaf}, [leaf]
    while waiting:
        node = waiting.pop()
        operation = graph.producer(node)
        if operation is None or (node is not leaf and node in spine):
            continue
        if operation.name in inside:
            found.add(inside[operation.name])
        new = [one for one in operation.inputs if one not in seen]
        seen.update(new)
        waiting += new
    return found


def _sum_before(graph: OperationGraph, leaf: TensorNode) -> TensorNode | None:
    """The sum that a norm in the stream is given; None if a matrix comes first on the way back to it."""
    node = leaf
    while not _is_sum(graph, node):
        operation = graph.producer(node)
        if operation is None or any(
            len(one.shape) > 1 for one in operation.inputs if one.kind == "parameter"
        ):
            return None
        computed = [one for one in operation.inputs if one.kind == "result" and one.shape == leaf.shape]
        if not computed:
            return None
        node = computed[0]
    return node
