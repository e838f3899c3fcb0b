"""Finds multi-head attention in a graph of operations, written out or computed by one call."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from ...core.checks import checked
from ...core.errors import ArchitectureError
from ..attention_weights import WEIGHTS, AttentionWeights
from ..graph import OperationGraph
from ..nodes import Operation
from .attention_axes import distinct_heads, key_heads, split_heads, weights_after_sinks, weights_axes
from .attention_instance import MultiHeadAttentionInstance
from .finding import find, layer_numbers
from .patterns import Constant, Either, Pattern, Skip, Step, Value

# What comes between the scores and the softmax: scales, masks, biases, soft caps, sinks; and after it.
_BEFORE = (
    "mul|div|add|sub|tanh|clamp|maximum|minimum|max|min|masked_fill|where|nan_to_num|cat|setitem|index_put|"
    "index_fill|linear"
)
_AFTER = "getitem|mul|div|masked_fill|where|nan_to_num|linear"
_PRODUCTS = "matmul|bmm|mm"
_KERNELS = re.compile("attention|attn|flash", re.IGNORECASE)


@checked
def find_multi_head_attention(graph: OperationGraph) -> Iterator[MultiHeadAttentionInstance]:
    """Yields each multi-head attention of a forward pass in the order in which they ran.

    Attention is a softmax between two products of tensors that are no weights, with scales, masks, biases,
    soft caps, attention sinks, maps that mix the heads, dropout and casts between them, whichever comes
    first, queries or keys; the weights are those before heads are mixed a second time. Or it is a call of
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
    changed = Skip(_BEFORE, scores, where=_is_elementwise)
    exponential, total = Step("exp", changed, name="exp"), Step("sum", Step("exp", name="exp"))
    softmax = Either(
        Step("softmax", changed, name="softmax"),
        Step("exp", Step("log_softmax", changed), name="softmax"),
        Step("exp", Step("sub", changed, Step("logsumexp")), name="softmax"),
        Step("div", exponential, Either(total, Step("add", total, Constant())), name="softmax"),
    )
    weights = Skip(_AFTER, softmax)
    return Either(
        Step(_PRODUCTS, weights, value),
        Step(_PRODUCTS, value, weights),
        Step("einsum", Constant(), weights, value),
        Step("einsum", Constant(), value, weights),
    )


def _is_elementwise(operation: Operation) -> bool:
    """Whether a maximum or a minimum is that of two tensors, not of all numbers along an axis."""
    return operation.function not in ("max", "min") or len(operation.inputs) > 1


def _written_out(graph: OperationGraph) -> list[MultiHeadAttentionInstance]:
    """The attentions with a softmax of their weights."""
    found: dict[str, MultiHeadAttentionInstance] = {}
    for match in find(graph, _weighted_sum()):
        softmax: Operation = match["softmax"]
        found_axes = weights_axes(graph, match)
        if softmax.name in found or found_axes is None:
            continue
        axes, queries_first = found_axes
        if not queries_first:
            match = match.named("query", match["key"]).named("key", match["query"])
        weights = weights_after_sinks(match)
        shape = [weights.shape[axis] for axis in axes]
        heads = split_heads(graph, match["query"], shape)
        found[softmax.name] = MultiHeadAttentionInstance(
            kind="softmax",
            module=softmax.module,
            layer=0,
            num_heads=heads,
            num_key_value_heads=key_heads(graph, match, heads),
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
        heads = split_heads(graph, query, [*query.shape[:-2], *lengths])
        groups = distinct_heads(graph, key, key.shape[-3] if len(key.shape) > 3 else heads)
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
