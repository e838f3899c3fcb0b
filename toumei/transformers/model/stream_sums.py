"""Which sums of attention and feed-forward layers the residual stream has, and which one each layer reads.

It is found in the graph of a forward pass of any transformer, encoders and vision transformers too, from the
attention layers and feed-forward layers in it: hook points and circuits stand on it. What the parts of the
last sum are times which number, and what the logits are of it, `final_stream` says. Other layers, such as
those of state space models, are parts under the names of their modules.

The stream at the end is a sum of sums. Taken apart it gives one tensor for the embedding and one for each
attention and feed-forward layer, whatever the order in which a model adds them: one after the other, in
parallel, after norms of their own, scaled. Where norms stand in the stream itself, as in BERT, there is one
sum between two norms.
"""

import math
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ...core.errors import ArchitectureError
from ...instrument import FeedForward, MultiHeadAttentionInstance, OperationGraph, TensorNode
from ...instrument.search.finding import layer_prefix
from ...instrument.search.sources import TRANSPARENT
from .discovery import MLP_NAMES

# "attn", "mlp" or the name of another module of the block, such as "mamba", and the layer.
Component = tuple[str, int]
_NO_PARTS = re.compile("norm|dropout|scale|identity", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class StreamSum:
    """A part of the residual stream without a norm in it.

    Attributes:
        start: The tensors that it begins with: the embeddings, or what the norm before it returned.
        parts: What each component adds, in the order in which they ran.
        sums: The partial sums of the start and components, by the components.
        reads: The sums that each component is computed from.
        others: What else is added after the start by no known block.
    """

    start: tuple[TensorNode, ...]
    parts: Mapping[Component, TensorNode]
    sums: Mapping[frozenset[Component], TensorNode]
    reads: Mapping[Component, Collection[TensorNode]]
    others: tuple[TensorNode, ...]


def find_stream_sums(
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
    inside: dict[str, Component] = {one.operation.name: ("attn", one.layer) for one in attentions}
    inside |= {one.down.operation.name: ("mlp", one.layer) for one in networks}
    segments: list[StreamSum] = []
    end: TensorNode | None = _last_sum(graph, next((one.query_length for one in attentions), 1))
    while end is not None:
        segment, end = _segment(graph, end, inside)
        segments.append(segment)
    return segments[::-1]


def has_positions(node: TensorNode, length: int) -> bool:
    """Returns whether a tensor can have vectors of so many positions, as that of a pooled text has not."""
    return math.prod(node.shape[:-1]) % length == 0


def _last_sum(graph: OperationGraph, length: int) -> TensorNode:
    for operation in reversed(list(graph)):
        found = operation.outputs[0] if operation.function == "add" else None
        if found is not None and _is_sum(graph, found) and has_positions(found, length):
            return found
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
    groups: dict[Component, list[TensorNode]] = {}
    start, others, before = list[TensorNode](), list[TensorNode](), None
    for leaf, (components, read) in found.items():
        earlier = _sum_before(graph, leaf) if components and not read else None
        if not components and read:
            other = _other_part(graph, leaf, spine, inside)
            (others if other is None else groups.setdefault(other, [])).append(leaf)
        elif not components or earlier is not None:
            start.append(leaf)
            before = earlier or before
        elif len(components) == 1:
            groups.setdefault(next(iter(components)), []).append(leaf)
        else:
            raise _several(graph, leaf, components)
    parts = {component: _added(graph, end, component, group) for component, group in groups.items()}
    order = {component: _place(graph, node) for component, node in parts.items()}
    order |= {inside[one.name]: place for place, one in enumerate(graph) if one.name in inside}
    parts = dict(sorted(parts.items(), key=lambda item: order[item[0]]))
    sums: dict[frozenset[Component], TensorNode] = {}
    for node in _sums(graph, end):  # the last ones first: of equal sums the first one stays
        inner = set(_leaves(graph, node))
        whole = {component for component, group in groups.items() if inner.issuperset(group)}
        if inner == set(start).union(*(groups[component] for component in whole)):
            sums[frozenset(whole)] = node
    if len(start) == 1:
        sums[frozenset()] = start[0]
    reads = {component: found[group[0]][1] for component, group in groups.items()}
    return StreamSum(tuple(start), parts, sums, reads, tuple(others)), before


def _place(graph: OperationGraph, node: TensorNode) -> int:
    """The place in the pass of the operation that made a tensor."""
    return list(graph.operations).index(str(node.producer))


def _other_part(
    graph: OperationGraph, leaf: TensorNode, spine: Collection[TensorNode], inside: Mapping[str, Component]
) -> Component | None:
    """The module of a block that computed a leaf, by its name, where modules have the numbers of layers."""
    if any(_block(graph.operations[name].module)[2] != layer for name, (_, layer) in inside.items()):
        return None
    seen, waiting = {leaf}, deque([leaf])
    while waiting:
        operation = graph.producer(waiting.popleft())
        if operation is None:
            continue
        block, part, layer = _block(operation.module)
        if part and not _NO_PARTS.search(part + graph.modules[f"{block}.{part}"]):
            return ("mlp" if any(word in part.lower() for word in MLP_NAMES) else part), layer
        new = [one for one in operation.inputs if one not in seen and one not in spine]
        seen.update(new)
        waiting += new
    return None


def _block(module: str) -> tuple[str, str, int]:
    """The block that a module is in, the part of it, and the its number; outside of all "", "", -1."""
    block = layer_prefix(module)
    if not block:
        return "", "", -1
    part = module[len(block) + 1 :].partition(".")[0]
    return block, part, int(block[len(block.rstrip("0123456789")) :])


def _added(
    graph: OperationGraph, end: TensorNode, component: Component, group: list[TensorNode]
) -> TensorNode:
    """What a component adds: one tensor, or the sum of several, as of experts and a shared one."""
    if len(group) == 1:
        return group[0]
    for node in _sums(graph, end):
        if set(_leaves(graph, node)) == set(group):
            return node
    raise _several(graph, group[-1], {component})


def _several(graph: OperationGraph, leaf: TensorNode, components: Collection[Component]) -> ArchitectureError:
    names = ", ".join(sorted(f"{kind} {layer}" for kind, layer in components))
    return ArchitectureError(
        f"{leaf.name!r} is added to the residual stream of {graph.modules['']} and is not all that comes "
        f"from one part ({names})"
    )


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
) -> tuple[set[Component], set[TensorNode]]:
    """The components that a leaf was computed by since the stream was read, and where it was read."""
    found, seen, waiting, reads = set[Component](), {leaf}, [leaf], set[TensorNode]()
    while waiting:
        node = waiting.pop()
        operation = graph.producer(node)
        if node is not leaf and node in spine:
            reads.add(node)
            continue
        if operation is None:
            continue
        if operation.name in inside:
            found.add(inside[operation.name])
        new = [one for one in operation.inputs if one not in seen]
        seen.update(new)
        waiting += new
    return found, reads


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
