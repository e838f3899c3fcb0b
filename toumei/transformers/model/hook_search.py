"""Finds the hook points of any transformer in the graph of a forward pass."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.function_kinds import LAYOUT
from ...instrument import (
    FeedForward,
    LinearMap,
    MultiHeadAttentionInstance,
    Normalization,
    OperationGraph,
    TensorNode,
    find_feed_forward,
    find_linear,
    find_multi_head_attention,
    find_normalizations,
)
from ...instrument.attention_weights import AttentionWeights, fused_scores
from ...instrument.search.patterns import TRANSPARENT, source
from .hook_points import Args, ComputedPoint, HookPoint, Kwargs, Point, column_map
from .stream import StreamSum, find_stream

_VECTORS = ("batch", "position", "width")
_HEADS = ("batch", "position", "head", "width")
_PATTERN = ("batch", "head", "query", "key")
_SPLITS = LAYOUT | {
    "getitem",
    "split_with_sizes",
    "chunk",
    "unbind",
    "select",
    "narrow",
    "index_select",
    "to",
}


@dataclass(frozen=True, eq=False)
class HookPoints:
    """The hook points of a model.

    Attributes:
        points: They by name.
        missing: Why others are not there, by name.
        attentions: The attention of each layer.
        networks: The feed-forward network of each layer that has one of its own, not of experts.
        outputs: The linear map of the heads' outputs to the stream, by layer.
        segments: The sums of the residual stream.
        layers: How many there are.
        final_norm: The norm before the head, if there is one.
    """

    points: dict[str, Point]
    missing: dict[str, str]
    attentions: dict[int, MultiHeadAttentionInstance]
    networks: dict[int, FeedForward]
    outputs: dict[int, LinearMap]
    segments: list[StreamSum]
    layers: int
    final_norm: Normalization | None
    graph: OperationGraph = field(repr=False)


def find_hook_points(graph: OperationGraph) -> HookPoints:
    """Returns the hook points in the graph of a pass over two texts of the same length.

    Args:
        graph: A graph, of a pass whose number of positions is no number of heads.

    Raises:
        ArchitectureError: There is no attention, or no residual stream.
    """
    attentions = [one for one in find_multi_head_attention(graph) if one.query_length == one.key_length]
    if not attentions:
        raise ArchitectureError(f"no attention ran in the {graph.modules['']}: it has no hook points")
    networks = [one for one in find_feed_forward(graph)]
    return _Search(graph, attentions, networks).found()


class _Search:
    def __init__(
        self,
        graph: OperationGraph,
        attentions: list[MultiHeadAttentionInstance],
        networks: list[FeedForward],
    ) -> None:
        self._graph = graph
        self._attentions = {one.layer: one for one in attentions}
        self._networks = {one.layer: one for one in networks if one.kind != "experts"}
        self._segments = find_stream(graph, attentions, networks)
        self._length = attentions[0].query_length
        self._linear = {one.output: one for one in find_linear(graph)}
        self._linear |= {one.operation.outputs[0]: one for one in self._linear.values()}
        self._runs = Counter(chain.from_iterable(graph.returned.values()))
        self._points: dict[str, Point] = {}
        self._missing: dict[str, str] = {}
        self._outputs: dict[int, LinearMap] = {}
        self._overwritten = {
            operation.inputs[0].name for operation in graph if operation.in_place and operation.inputs
        }

    def found(self) -> HookPoints:
        """All that is found."""
        self._embeddings()
        layers = sorted(self._attentions)
        for layer, attention in sorted(self._attentions.items()):
            self._attention(layer, attention)
        for layer, network in sorted(self._networks.items()):
            self._network(layer, network)
        self._stream(layers)
        final = self._final_norm()
        return HookPoints(
            points=self._points,
            missing=self._missing,
            attentions=self._attentions,
            networks=self._networks,
            outputs=self._outputs,
            segments=self._segments,
            layers=len(layers),
            final_norm=final,
            graph=self._graph,
        )

    def _add(
        self,
        name: str,
        node: TensorNode,
        order: tuple[str, ...],
        axes: tuple[tuple[str, ...], ...] | None = None,
        heads: int = 1,
        columns: Tensor | None = None,
    ) -> None:
        """Adds a point that a tensor of the model holds."""
        axes = axes or self._axes(node, heads if order == _HEADS else None)
        if axes is None:
            self._missing[name] = f"{node.name!r} of shape {node.shape} is laid out in an unknown way"
            return
        self._points[name] = HookPoint(
            name=name,
            layer=self._engine_name(node),
            axes=axes,
            order=order,
            heads=heads,
            columns=columns,
            overwritten=node.name in self._overwritten,
        )

    def _engine_name(self, node: TensorNode) -> str:
        """The name of the innermost module that returns a tensor, else that of the operation."""
        returned = self._graph.returned.get(node.name, [])
        return f"{returned[0]}#0" if returned and self._runs[returned[0]] == 1 else node.name

    def _axes(self, node: TensorNode, heads: int | None) -> tuple[tuple[str, ...], ...] | None:
        """What the axes of vectors, or of vectors of heads, are, by their sizes."""
        length, shape = self._length, node.shape
        batch = ("batch",)
        if heads is None:
            if len(shape) == 2 and shape[0] == 2 * length:
                return ("batch", "position"), ("width",)
            return (batch, ("position",), ("width",)) if shape[:2] == (2, length) else None
        if len(shape) == 4 and shape[0] == 2 and shape[1:3] in ((length, heads), (heads, length)):
            second = ("position",) if shape[1] == length else ("head",)
            third = ("head",) if shape[1] == length else ("position",)
            return batch, second, third, ("width",)
        if len(shape) == 3 and shape[:2] == (2 * heads, length):
            return ("batch", "head"), ("position",), ("width",)
        if len(shape) == 3 and shape[:2] == (2, length) and shape[2] % heads == 0:
            return batch, ("position",), ("head", "width")
        return None

    def _embeddings(self) -> None:
        """The embeddings of tokens and of positions, where the stream begins with them."""
        first = self._segments[0]
        names = ("hook_embed", "hook_pos_embed")
        if len(first.start) == 1:
            self._add("hook_embed", first.start[0], _VECTORS)
            inner = self._graph.producer(source(self._graph, first.start[0]))
            tensors = inner.inputs if inner is not None and inner.function == "add" else []
        else:
            tensors = list(first.start)
        by_kind = dict[str, TensorNode]()
        for node in tensors:
            made = self._graph.producer(source(self._graph, node))
            if made is None or made.function != "embedding":
                continue
            weight = next(one.name for one in made.inputs if one.kind == "parameter").lower()
            position = "pos" in weight or "wpe" in weight
            by_kind.setdefault(names[1] if position else names[0], node)
        if len(by_kind) == 2 and len(tensors) == 2:
            for name, node in by_kind.items():
                broadcast = node.shape[0] == 1 or len(node.shape) == 2
                if broadcast:  # positions are the same for all texts
                    axes = (("position",), ("width",)) if len(node.shape) == 2 else None
                    self._points[name] = HookPoint(
                        name=name,
                        layer=self._engine_name(node),
                        axes=axes or (("batch",), ("position",), ("width",)),
                        order=("position", "width") if axes else _VECTORS,
                    )
                else:
                    self._add(name, node, _VECTORS)

    def _attention(self, layer: int, attention: MultiHeadAttentionInstance) -> None:
        """Queries, keys, values, outputs and weights of a layer's heads."""
        prefix = f"blocks.{layer}.attn.hook_"
        inputs = {"q": attention.query, "k": attention.key, "v": attention.value}
        for letter, node in inputs.items():
            heads = attention.num_heads if letter == "q" else attention.num_key_value_heads
            found = self._projection(
                node, heads, node.shape[-1] if letter != "k" else attention.query.shape[-1]
            )
            if isinstance(found, str):
                self._missing[prefix + letter] = found
            else:
                linear, columns = found
                axes = self._axes(linear, None)
                self._add(prefix + letter, linear, _HEADS, axes, heads, columns)
        for letter in ("q", "k"):
            rotated = self._rotated(inputs[letter], attention)
            if rotated is not None:
                heads = attention.num_heads if letter == "q" else attention.num_key_value_heads
                self._add(f"{prefix}rot_{letter}", rotated, _HEADS, heads=heads)
        self._add(prefix + "z", attention.output, _HEADS, heads=attention.num_heads)
        self._weights(prefix, attention)
        output = self._output_map(attention)
        if output is None:
            self._missing[prefix + "result"] = "no linear map of the heads' outputs was found"
        else:
            self._outputs[layer] = output

    def _projection(self, node: TensorNode, heads: int, width: int) -> "tuple[TensorNode, Tensor] | str":
        """The linear map that a layer's queries, keys or values come from, and the columns of each head."""
        linear = self._linear_before(node)
        if linear is None:
            return f"{node.name!r} comes from no single linear map"
        total = linear.shape[-1]
        if self._axes(linear, None) is None:
            return f"{linear.name!r} of shape {linear.shape} is laid out in an unknown way"
        split = self._split(linear, node, width)
        if split is None:
            if total != heads * width:
                return f"the heads in {linear.name!r} of shape {linear.shape} cannot be told apart"
            return linear, torch.arange(total).reshape(heads, width)
        columns = torch.arange(total, dtype=linear.dtype).expand(linear.shape).contiguous()
        values = self._graph.replay({linear: columns}, record=[split])[split.name]
        axes = self._axes(split, split.shape[1] if split.shape[2] == self._length else split.shape[2])
        names = [axis for merged in axes or () for axis in merged]
        found = None if axes is None else column_map(values.double(), heads, tuple(names))
        return (linear, found) if found is not None else f"the heads in {linear.name!r} cannot be told apart"

    def _linear_before(self, node: TensorNode) -> TensorNode | None:
        """The output of the nearest linear map on all ways back from a tensor."""
        found, seen, waiting = set[TensorNode](), {node}, [node]
        while waiting:
            one = waiting.pop()
            if one in self._linear:
                found.add(self._linear[one].output)
                continue
            operation = self._graph.producer(one)
            if operation is not None:
                new = [other for other in operation.inputs if other not in seen and other.kind == "result"]
                seen.update(new)
                waiting += new
        return found.pop() if len(found) == 1 else None

    def _split(self, linear: TensorNode, node: TensorNode, width: int) -> TensorNode | None:
        """The last tensor with an axis of heads that holds numbers of a linear map as they are."""
        behind, waiting = {node}, [node]
        while waiting:
            operation = self._graph.producer(waiting.pop())
            if operation is not None:
                new = [one for one in operation.inputs if one not in behind]
                behind.update(new)
                waiting += new
        found, level = None, [linear]
        while level:
            here = level.pop(0)
            four = len(here.shape) == 4 and here.shape[0] == 2 and self._length in here.shape[1:3]
            if four and here.shape[-1] == width and here in behind:
                found = here
            for operation in self._graph.consumers(here):
                if operation.function in _SPLITS:
                    level += [one for one in operation.outputs if one in behind]
        return found

    def _rotated(self, node: TensorNode, attention: MultiHeadAttentionInstance) -> TensorNode | None:
        """The queries or keys after position embeddings, before a cache and before they are repeated."""
        passed = {"expand", "repeat_interleave", "getitem", *TRANSPARENT}
        while (operation := self._graph.producer(node)) is not None and operation.inputs:
            full = [one for one in operation.inputs if all(one.shape)]
            joined_with_nothing = operation.function == "cat" and len(full) < len(operation.inputs)
            if operation.function not in passed and not joined_with_nothing:
                break
            node = full[0]
        operation = self._graph.producer(node)
        rotated = operation is not None and operation.function in ("add", "cat", "sub", "mul")
        return node if rotated and len(node.shape) == 4 and self._length in node.shape[1:3] else None

    def _weights(self, prefix: str, attention: MultiHeadAttentionInstance) -> None:
        """The attention weights and the scores before their softmax."""
        node, operation = attention.softmax_value, attention.operation
        function: Any = operation.callable
        if isinstance(node, AttentionWeights):
            fused = operation.function == "scaled_dot_product_attention"
            self._points[prefix + "pattern"] = ComputedPoint(
                name=prefix + "pattern",
                layer=operation.name,
                compute=node.of_call,
                replace=_weighted_values if fused else None,
            )
            if fused:
                self._points[prefix + "attn_scores"] = ComputedPoint(
                    name=prefix + "attn_scores",
                    layer=operation.name,
                    compute=fused_scores,
                    replace=lambda scores, args, kwargs: _weighted_values(scores.softmax(-1), args, kwargs),
                )
            else:
                self._missing[prefix + "attn_scores"] = f"{operation.function} does not show its scores"
            return
        shape = (2, attention.num_heads, self._length, self._length)
        if node.shape == shape:
            axes: tuple[tuple[str, ...], ...] = (("batch",), ("head",), ("query",), ("key",))
        elif node.shape == (shape[0] * shape[1], *shape[2:]):
            axes = (("batch", "head"), ("query",), ("key",))
        else:
            self._missing[prefix + "pattern"] = f"{node.name!r} has the shape {node.shape}"
            return
        self._add(prefix + "pattern", node, _PATTERN, axes, attention.num_heads)
        heads = attention.num_heads

        def scores(args: Args, kwargs: Kwargs) -> Tensor:
            given: Tensor = args[0] if args else kwargs["input"]
            return given.reshape(-1, heads, *given.shape[-2:])

        def softmax(scores: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
            given = args[0] if args else kwargs["input"]
            others = {name: one for name, one in kwargs.items() if name != "input"}
            result: Tensor = function(scores.reshape(given.shape).to(given.dtype), *args[1:], **others)
            return result

        if operation.function == "softmax" and operation.outputs[0].shape == node.shape:
            name = prefix + "attn_scores"
            self._points[name] = ComputedPoint(
                name=name, layer=operation.name, compute=scores, replace=softmax
            )

    def _output_map(self, attention: MultiHeadAttentionInstance) -> LinearMap | None:
        """The linear map that takes the outputs of the heads."""
        for linear in self._linear.values():
            if source(self._graph, linear.input) is source(self._graph, attention.output):
                return linear
        return None

    def _network(self, layer: int, network: FeedForward) -> None:
        """What goes into the activation function of a layer, and the coefficients of its neurons."""
        prefix = f"blocks.{layer}.mlp.hook_"
        self._add(prefix + "pre", network.activation.input, _VECTORS)
        self._add(prefix + "post", network.coefficients, _VECTORS)
        if network.up is not None and network.up.operation is not network.first.operation:
            self._add(prefix + "pre_linear", network.up.output, _VECTORS)

    def _stream(self, layers: list[int]) -> None:
        """The residual stream before, inside and after each block, and what is added to it."""
        parts = {key: node for segment in self._segments for key, node in segment.parts.items()}
        for (kind, layer), node in parts.items():
            self._add(f"blocks.{layer}.hook_{kind}_out", node, _VECTORS)
        whole = len(self._segments) == 1
        for segment in self._segments:
            for place, layer in enumerate(layers):
                before = {one for one in segment.parts if one[1] in layers[:place]}
                here = {one for one in segment.parts if one[1] == layer}
                wanted = {
                    "pre": before if whole or ("attn", layer) in segment.parts else None,
                    "mid": before | {("attn", layer)} if ("attn", layer) in here else None,
                    "post": before | here if ("mlp", layer) in here or (whole and here) else None,
                }
                for name, components in wanted.items():
                    total = None if components is None else segment.sums.get(frozenset(components))
                    parallel = name == "mid" and len(here) < 2 and whole
                    if total is not None and not parallel:
                        self._add(f"blocks.{layer}.hook_resid_{name}", total, _VECTORS)
        for layer in layers:
            if f"blocks.{layer}.hook_resid_mid" not in self._points:
                self._missing[f"blocks.{layer}.hook_resid_mid"] = (
                    "attention and feed-forward layer of this block are added to the stream together"
                )

    def _final_norm(self) -> Normalization | None:
        """The norm that takes the end of the stream."""
        last = self._segments[-1]
        end = last.sums.get(frozenset(last.parts))
        for norm in find_normalizations(self._graph):
            if end is not None and source(self._graph, norm.input) is source(self._graph, end):
                return norm
        return None


def _weighted_values(weights: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    """The output of `scaled_dot_product_attention` for other weights."""
    value: Tensor = args[2] if len(args) > 2 else kwargs["value"]
    if value.shape[-3] != weights.shape[-3]:
        value = value.repeat_interleave(weights.shape[-3] // value.shape[-3], dim=-3)
    return weights.to(value.dtype) @ value
