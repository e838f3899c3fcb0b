"""Finds multi-head attention in a graph of operations, written out or computed by one call."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArchitectureError, ArgumentError, LayerError
from ..core.summaries import listed
from .attention_weights import WEIGHTS, AttentionWeights
from .graph import OperationGraph
from .nodes import Operation, TensorNode, nodes_in, with_values
from .search import (
    TRANSPARENT,
    Constant,
    Either,
    Match,
    Pattern,
    Skip,
    Step,
    Value,
    chain,
    find,
    layer_numbers,
)

# What comes between the scores and the softmax: scales, masks, biases, soft caps, sinks; and after it.
_BEFORE = "mul|div|add|sub|tanh|clamp|maximum|masked_fill|where|nan_to_num|cat"
_AFTER = "getitem|mul|div|masked_fill|where|nan_to_num"
_PRODUCTS = "matmul|bmm|mm"
_KERNELS = re.compile("attention|attn|flash", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class MultiHeadAttentionInstance:
    """A multi-head attention that ran in a forward pass.

    Attributes:
        kind: ``"softmax"`` where it is written out, else the function that computes all of it.
        module: Name of the module that calls it.
        layer: Number in the name of the module, if that tells all attentions of the pass apart; else the
            place in the order in which they ran.
        num_heads: Number of heads.
        num_key_value_heads: Number of heads of keys and values, fewer in grouped-query attention.
        query_length: Number of positions that attend.
        key_length: Number of positions that they attend to.
        softmax_value: The tensor of the weights, for `Probe.track`, `TensorMap` and `OperationGraph.replay`;
            where an operation computes attention without them, the node of what is computed from its
            arguments, which is not in the graph.
        query: The tensor of the queries as the first product takes it, or as the operation does.
        key: The tensor of the keys.
        value: The tensor of the values.
        output: The tensor of the heads' outputs.
        operation: The softmax, or the operation that computes all of it.
    """

    kind: str
    module: str
    layer: int
    num_heads: int
    num_key_value_heads: int
    query_length: int
    key_length: int
    softmax_value: TensorNode
    query: TensorNode
    key: TensorNode
    value: TensorNode
    output: TensorNode
    operation: Operation
    _graph: OperationGraph = field(repr=False)
    _axes: tuple[int, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        groups = self.num_key_value_heads
        grouped = "" if groups == self.num_heads else f", {groups} of keys"
        heads = f"{self.num_heads} heads{grouped}, {self.query_length} x {self.key_length}"
        return f"MultiHeadAttentionInstance({self.module!r}, layer {self.layer}, {heads}, {self.kind})"

    @property
    def head_names(self) -> list[str]:
        """Layer and number of each head, such as ``"3-11"``, as in Clark et al. (2019)."""
        return [f"{self.layer}-{head}" for head in range(self.num_heads)]

    @property
    def needed(self) -> list[TensorNode]:
        """The tensors that `weights` is computed from, without parameters, buffers and constants."""
        if self.kind == "softmax":
            return [self.softmax_value]
        nodes = dict.fromkeys(nodes_in(_without_values(self.operation)))
        return [node for node in nodes if node.kind in ("result", "input")]

    def weights(self, values: Mapping[Any, Any] | None = None) -> Tensor:
        """Returns the attention weights, of shape (batch, heads, query, key).

        Swin has the windows of all pictures in place of the batch.

        Args:
            values: Tensors of one pass by name, of `Tracker.build_map` or `OperationGraph.replay`: that of
                `softmax_value`, or those of `needed`. By default the pass of the graph is computed again.

        Raises:
            LayerError: A tensor that is needed is not among them.
            ArgumentError: The tensors of several passes.
            ReplayError: The pass cannot be computed again.
        """
        if values is None:
            with torch.no_grad():
                values = self._graph.replay(record=self.needed)
        name = self.softmax_value.name
        wanted = [name] if name in values else [node.name for node in self.needed]
        missing = [one for one in wanted if one not in values]
        if missing:
            raise LayerError(
                f"the weights of {self.operation.name!r} need {', '.join(map(repr, missing))}, and there is "
                f"{listed(values, 6) or 'nothing'}: track them, track(only=[attention.softmax_value]), or "
                f"compute them, graph.replay(record=attention.needed)"
            )
        found = {one: values[one] for one in wanted}
        several = [one for one, value in found.items() if isinstance(value, list)]
        if several:
            raise ArgumentError(
                f"expected the tensors of one pass, got {len(found[several[0]])} of {several[0]!r}: give "
                f"them one by one, weights({{name: tensor}})"
            )
        return self._in_order(found[name]) if name in found else self._computed(found)

    def _in_order(self, weights: Tensor) -> Tensor:
        """The value of `softmax_value` with the axes batch, heads, query, key."""
        if isinstance(self.softmax_value, AttentionWeights):
            return weights
        weights = weights.permute(self._axes)
        return weights.reshape(-1, self.num_heads, *weights.shape[-2:])

    def _computed(self, found: Mapping[str, Tensor]) -> Tensor:
        """The weights of an operation that returns none, from what it was given."""
        assert isinstance(self.softmax_value, AttentionWeights)
        given, memory = _without_values(self.operation), self._graph.memory
        values: dict[TensorNode, Tensor] = {}
        for node in nodes_in(given):
            if node.kind == "parameter":
                values[node] = memory.model.get_parameter(node.name)
            elif node.kind == "buffer":
                values[node] = memory.model.get_buffer(node.name)
            else:
                values[node] = memory.constants[node.name] if node.kind == "constant" else found[node.name]
        args, kwargs = with_values(given, values)
        return self.softmax_value.of_call(args, kwargs)


@checked
def find_multi_head_attention(graph: OperationGraph) -> Iterator[MultiHeadAttentionInstance]:
    """Yields each multi-head attention of a forward pass in the order in which they ran.

    Attention is a softmax between two products of tensors that are no weights, with scales, masks, biases,
    soft caps, attention sinks, dropout and casts between them; or a call of
    `torch.nn.functional.scaled_dot_product_attention`, of flex attention, or of
    `torch.nn.functional.multi_head_attention_forward`, which `nn.MultiheadAttention` and
    `nn.TransformerEncoder` make. The softmax of a classifier or of a router of experts is none.

    Args:
        graph: The graph of a forward pass.

    Raises:
        ArchitectureError: Attention by a kernel that cannot be looked into.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> model = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3, 8))
        >>> attention, = find_multi_head_attention(tracker.build_graph())
        >>> attention
        MultiHeadAttentionInstance('self_attn', layer 0, 2 heads, 3 x 3, multi_head_attention_forward)
        >>> attention.weights().shape
        torch.Size([1, 2, 3, 3])
    """
    order = {name: place for place, name in enumerate(graph.operations)}
    found = [_fused(graph, one) for one in graph if one.function in WEIGHTS]
    found += _written_out(graph)
    for operation in graph:
        if operation.function not in WEIGHTS and _KERNELS.search(operation.function):
            raise ArchitectureError(
                f"{operation.name!r} computes attention in a kernel that cannot be looked into: load the "
                f'model with attn_implementation="eager" or "sdpa"'
            )
    found.sort(key=lambda one: order[one.operation.name])
    numbers = layer_numbers([one.module for one in found])
    for one, number in zip(found, numbers, strict=True):
        yield replace(one, layer=number)


def _weighted_sum() -> Pattern:
    """The product of the weights and the values."""
    query, key, value = Value("query", computed=True), Value("key", computed=True), Value("value")
    scores = Either(
        Step(_PRODUCTS, query, key, name="scores"),
        Step("baddbmm", Value(), query, key, name="scores"),
        Step("einsum", Constant(), query, key, name="scores"),
    )
    exponential = chain(scores, Skip(_BEFORE), Step("exp", name="exp"))
    softmax = Either(
        chain(scores, Skip(_BEFORE), Step("softmax", name="softmax")),
        Step("div", exponential, Step("sum", Step("exp", name="exp")), name="softmax"),
    )
    weights = Skip(_AFTER, softmax)
    return Either(
        Step(_PRODUCTS, weights, value),
        Step(_PRODUCTS, value, weights),
        Step("einsum", Constant(), weights, value),
        Step("einsum", Constant(), value, weights),
    )


def _written_out(graph: OperationGraph) -> list[MultiHeadAttentionInstance]:
    """The attentions with a softmax of their weights."""
    found: dict[str, MultiHeadAttentionInstance] = {}
    for match in find(graph, _weighted_sum()):
        softmax: Operation = match["softmax"]
        axes = _axes(match)
        if softmax.name in found or axes is None:
            continue
        weights = _after_sinks(match)
        shape = [weights.shape[axis] for axis in axes]
        heads = _heads(graph, match["query"], shape)
        found[softmax.name] = MultiHeadAttentionInstance(
            kind="softmax",
            module=softmax.module,
            layer=0,
            num_heads=heads,
            num_key_value_heads=_distinct_heads(graph, match["key"], heads),
            query_length=shape[-2],
            key_length=shape[-1],
            softmax_value=weights,
            query=match["query"],
            key=match["key"],
            value=match["value"],
            output=match.operation.outputs[0],
            operation=softmax,
            _graph=graph,
            _axes=axes,
        )
    return list(found.values())


def _fused(graph: OperationGraph, operation: Operation) -> MultiHeadAttentionInstance:
    """The attention of an operation that computes all of it."""
    query, key, value = (
        operation.args[place] if place < len(operation.args) else operation.kwargs[name]
        for place, name in enumerate(("query", "key", "value"))
    )
    if operation.function == "multi_head_attention_forward":  # (query, batch, width), or (query, width)
        heads = groups = operation.args[4]
        lengths, batch = (query.shape[0], key.shape[0]), math.prod(query.shape[1:-1])
    else:
        lengths = query.shape[-2], key.shape[-2]
        heads = _heads(graph, query, [*query.shape[:-2], *lengths])
        groups = _distinct_heads(graph, key, key.shape[-3] if len(key.shape) > 3 else heads)
        batch = math.prod(query.shape[:-2]) // heads
    weights = AttentionWeights(
        name=f"{operation.name}[weights]",
        kind="derived",
        shape=(batch, heads, *lengths),
        dtype=query.dtype,
        device=query.device,
        nbytes=0,
        producer=operation.name,
        function=operation.callable,
        compute=WEIGHTS[operation.function],
    )
    return MultiHeadAttentionInstance(
        kind=operation.function,
        module=operation.module,
        layer=0,
        num_heads=heads,
        num_key_value_heads=groups,
        query_length=lengths[0],
        key_length=lengths[1],
        softmax_value=weights,
        query=query,
        key=key,
        value=value,
        output=operation.outputs[0],
        operation=operation,
        _graph=graph,
    )


def _without_values(operation: Operation) -> tuple[Any, Any]:
    """The arguments of an operation on which its weights depend, with None for the values."""
    args, kwargs = operation.args, operation.kwargs
    if operation.function != "multi_head_attention_forward":  # which does not run without them
        args = tuple(None if place == 2 else one for place, one in enumerate(args))
        kwargs = {name: one for name, one in kwargs.items() if name != "value"}
    return args, kwargs


def _after_sinks(match: Match) -> TensorNode:
    """The weights after what the softmax gave to sinks was cut off, if that was done."""
    after = match.operations[1 : match.operations.index(match["softmax"])]
    cut = [one.outputs[0] for one in after if one.function == "getitem"]
    softmax: TensorNode = match["softmax"].outputs[0]
    return cut[0] if cut else softmax


def _axes(match: Match) -> tuple[int, ...] | None:
    """The axes of the softmax in the order batch, heads, query, key; None if it is not over the keys."""
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


def _heads(graph: OperationGraph, query: TensorNode, shape: list[int]) -> int:
    """The number of heads of weights of a shape (..., query, key), by how the queries were split into heads.

    With four axes the second one has the heads. Three may be heads without a batch, heads and batch as one,
    or a single head; five a group of heads for each head of the keys, or windows of pictures.
    """
    if len(shape) == 4:
        return shape[1]
    split, width, node = 1, query.shape[-1], query
    for _ in range(20):
        operation = graph.producer(node)
        if operation is None or operation.function not in TRANSPARENT | {"mul", "div", "unbind", "getitem"}:
            break
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        if after[-1:] == (width,) and len(after) > 1 and before[-1] % width == 0 and before[-1] > width:
            added = after[len(before) - 1 : -1] if len(after) > len(before) else (before[-1] // width,)
            split = added[-1]
            break
        node = operation.inputs[0]
    sizes = [math.prod(shape[start:-2]) for start in range(len(shape) - 2)]
    if len(shape) == 3:
        return split if shape[0] % split == 0 else 1
    return split if split in sizes else math.prod(shape[1:-2])


def _distinct_heads(graph: OperationGraph, key: TensorNode, heads: int) -> int:
    """The number of heads of the keys before they were repeated for the groups of heads of the queries."""
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
