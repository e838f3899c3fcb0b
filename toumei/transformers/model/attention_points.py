"""The hook points of an attention layer: queries, keys, values, weights, scores, outputs of the heads."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from ...core.function_kinds import LAYOUT
from ...core.outputs import main_tensor, tensor_parts
from ...instrument import LinearMap, MultiHeadAttentionInstance, TensorNode
from ...instrument.attention_weights import AttentionWeights, fused_scores
from ...instrument.nodes import with_values
from ...instrument.search.sources import TRANSPARENT, source
from .hook_points import Args, Columns, ComputedPoint, HookPoint, Kwargs, Point, column_map
from .tensor_layouts import HEADS, PATTERN, Axes, TensorLayouts

_SPLITS = LAYOUT | {
    *("getitem", "split_with_sizes", "chunk", "unbind", "select", "narrow", "index_select", "to"),
}


class AttentionPoints:
    """Finds the hook points of attention layers.

    Args:
        layouts: The layouts of the pass.
        linear: The linear maps of the pass, by what they return, before and after their biases.
    """

    def __init__(self, layouts: TensorLayouts, linear: dict[TensorNode, LinearMap]) -> None:
        self._layouts, self._graph, self._linear = layouts, layouts.graph, linear
        self._length = layouts.length
        self._found: dict[str, Point | str] = {}

    def of(self, layer: int, attention: MultiHeadAttentionInstance) -> dict[str, Point | str]:
        """Returns the points of a layer by name, or why they are not there."""
        self._found, prefix = {}, f"blocks.{layer}.attn.hook_"
        inputs = {"q": attention.query, "k": attention.key, "v": attention.value}
        for letter, node in inputs.items():
            heads = attention.num_heads if letter == "q" else attention.num_key_value_heads
            width = attention.query.shape[-1] if letter == "k" else node.shape[-1]
            self._found[prefix + letter] = self._projection(prefix + letter, node, heads, width)
        for letter in ("q", "k"):
            heads = attention.num_heads if letter == "q" else attention.num_key_value_heads
            self._rotated(f"{prefix}rot_{letter}", inputs[letter], heads)
        self._found[prefix + "z"] = self._layouts.point(
            prefix + "z", attention.output, HEADS, heads=attention.num_heads
        )
        self._weights(prefix, attention)
        return self._found

    def output_map(self, attention: MultiHeadAttentionInstance) -> LinearMap | None:
        """Returns the linear map that takes the outputs of the heads."""
        for linear in self._linear.values():
            if len(linear.weight.shape) != 2:  # such as a weight with an axis of heads, or a convolution
                continue
            if source(self._graph, linear.input) is source(self._graph, attention.output):
                return linear
        return None

    def _projection(self, name: str, node: TensorNode, heads: int, width: int) -> HookPoint | str:
        """The linear map that a layer's queries, keys or values come from, with the columns of each head."""
        linear = self._linear_before(node)
        if linear is None:
            return f"{node.name!r} comes from no single linear map"
        axes = self._layouts.axes(linear)
        if axes is None:
            return f"{linear.name!r} of shape {linear.shape} is laid out in an unknown way"
        places = self._columns(linear, node, heads, width)
        if places is None:
            return f"the heads in {linear.name!r} of shape {linear.shape} cannot be told apart"
        return self._layouts.point(name, linear, HEADS, axes=axes, heads=heads, columns=Columns(places))

    def _columns(self, linear: TensorNode, node: TensorNode, heads: int, width: int) -> Tensor | None:
        """The columns of each head in the output of a linear map."""
        columns, split = torch.arange(linear.shape[-1]), self._split(linear, node, width)
        if split is None:
            return columns.reshape(heads, width) if len(columns) == heads * width else None
        values = self._laid_out(linear, split, columns.expand(linear.shape).contiguous())
        axes = self._layouts.axes(split, split.shape[1 if split.shape[2] == self._length else 2])
        if values is None or axes is None:
            return None
        return column_map(values, heads, tuple(axis for merged in axes for axis in merged))

    def _laid_out(self, linear: TensorNode, split: TensorNode, values: Tensor) -> Tensor | None:
        """Other numbers in place of those of a linear map, laid out as the model lays them out."""
        steps, node = [], split
        while node is not linear:
            operation = self._graph.producer(node)
            if operation is None or len(operation.inputs) != 1 or operation.callable is None:
                return None
            steps.append((operation, node))
            node = operation.inputs[0]
        for operation, node in reversed(steps):
            if operation.function == "to":
                continue
            args, kwargs = with_values((operation.args, operation.kwargs), {operation.inputs[0]: values})
            made = operation.callable(*args, **kwargs)  # type: ignore[misc]
            values = main_tensor(made, tensor_parts(made)[operation.outputs.index(node)])
        return values

    def _linear_before(self, node: TensorNode) -> TensorNode | None:
        """The output of the nearest linear map on all ways back from a tensor."""
        found, seen, waiting = set[LinearMap](), {node}, [node]
        while waiting:
            one = waiting.pop()
            if one in self._linear:
                found.add(self._linear[one])
                continue
            operation = self._graph.producer(one)
            if operation is not None:
                new = [other for other in operation.inputs if other not in seen and other.kind == "result"]
                seen.update(new)
                waiting += new
        # of several not those by a buffer: older rotary embeddings multiply positions by their frequencies
        learned = {one.output for one in found if one.weight.kind == "parameter"}
        outputs = learned or {one.output for one in found}
        return outputs.pop() if len(outputs) == 1 else None

    def _split(self, linear: TensorNode, node: TensorNode, width: int) -> TensorNode | None:
        """The last tensor with an axis of heads that holds numbers of a linear map as they are."""
        before, waiting = {node}, [node]
        while waiting:
            one = waiting.pop()
            operation = None if one in self._linear else self._graph.producer(one)
            if operation is not None:
                new = [one for one in operation.inputs if one not in before]
                before.update(new)
                waiting += new
        found, level = None, [linear]
        while level:
            here = level.pop(0)
            four = len(here.shape) == 4 and here.shape[0] == 2 and self._length in here.shape[1:3]
            if four and here.shape[-1] == width and here in before:
                found = here
            for operation in self._graph.consumers(here):
                if operation.function in _SPLITS and operation.inputs[0] is here:
                    level += [one for one in operation.outputs if one in before]
        return found

    def _rotated(self, name: str, node: TensorNode, heads: int) -> None:
        """The queries or keys after position embeddings, before a cache and before they are repeated."""
        passed = {"expand", "repeat_interleave", "getitem", *TRANSPARENT}
        while (operation := self._graph.producer(node)) is not None and operation.inputs:
            full = [one for one in operation.inputs if all(one.shape)]
            joined_with_nothing = operation.function == "cat" and len(full) < len(operation.inputs)
            if operation.function not in passed and not joined_with_nothing:
                break
            node = full[0]
        turned = operation is not None and operation.function in ("add", "cat", "sub", "mul")
        if turned and len(node.shape) == 4 and self._length in node.shape[1:3] and node not in self._linear:
            self._found[name] = self._layouts.point(name, node, HEADS, heads=heads)
        else:
            self._found[name] = "this architecture rotates no queries and keys"

    def _weights(self, prefix: str, attention: MultiHeadAttentionInstance) -> None:
        """The attention weights and the scores before their softmax."""
        node, operation = attention.softmax_value, attention.operation
        name, scores = prefix + "pattern", prefix + "attn_scores"
        if isinstance(node, AttentionWeights):
            fused = operation.function == "scaled_dot_product_attention"
            self._found[name] = ComputedPoint(
                name=name,
                layer=operation.name,
                compute=node.of_call,
                replace=_weighted_values if fused else None,
                gradient=_gradient_of_weights if fused else None,
            )
            self._found[scores] = f"{operation.function} does not show its scores"
            if fused:
                self._found[scores] = ComputedPoint(
                    name=scores,
                    layer=operation.name,
                    compute=fused_scores,
                    replace=lambda scores, args, kwargs: _weighted_values(scores.softmax(-1), args, kwargs),
                    gradient=lambda gradient, weights, args, kwargs: _through_softmax(
                        _gradient_of_weights(gradient, weights, args, kwargs), weights
                    ),
                )
            return
        axes = self._pattern_axes(node, attention.num_heads)
        if axes is None:
            self._found[name] = self._found[scores] = f"{node.name!r} has the shape {node.shape}"
            return
        self._found[name] = self._layouts.point(name, node, PATTERN, axes=axes, heads=attention.num_heads)
        self._found[scores] = "its softmax is also taken over something else than keys, or is written out"
        if operation.function == "softmax" and operation.outputs[0].shape == node.shape:
            self._found[scores] = _scores_before(operation.callable, scores, operation.name, attention)

    def _pattern_axes(self, node: TensorNode, heads: int) -> Axes | None:
        shape = (2, heads, self._length, self._length)
        if node.shape == shape:
            return ("batch",), ("head",), ("query",), ("key",)
        if node.shape == (shape[0] * shape[1], *shape[2:]):
            return ("batch", "head"), ("query",), ("key",)
        return None


def _scores_before(
    function: Any, name: str, layer: str, attention: MultiHeadAttentionInstance
) -> ComputedPoint:
    """What a softmax is given."""
    heads = attention.num_heads

    def given(args: Args, kwargs: Kwargs) -> Tensor:
        scores: Tensor = args[0] if args else kwargs["input"]
        return scores

    def softmax(scores: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
        before = given(args, kwargs)
        others = {key: one for key, one in kwargs.items() if key != "input"}
        result: Tensor = function(scores.reshape(before.shape).to(before.dtype), *args[1:], **others)
        return result

    def compute(args: Args, kwargs: Kwargs) -> Tensor:
        scores = given(args, kwargs)
        return scores.reshape(-1, heads, *scores.shape[-2:])

    return ComputedPoint(
        name=name,
        layer=layer,
        compute=compute,
        replace=softmax,
        gradient=lambda gradient, weights, *_: _through_softmax(gradient.reshape(weights.shape), weights),
    )


def _weighted_values(weights: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    """The output of `scaled_dot_product_attention` for other weights."""
    value = _values(weights, args, kwargs)
    share = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
    return dropout(weights.to(value.dtype), share) @ value


def _values(weights: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    """The values of a call of `scaled_dot_product_attention`, those of grouped queries repeated."""
    value: Tensor = args[2] if len(args) > 2 else kwargs["value"]
    if value.shape[-3] != weights.shape[-3]:
        value = value.repeat_interleave(weights.shape[-3] // value.shape[-3], dim=-3)
    return value


def _gradient_of_weights(gradient: Tensor, weights: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    """The gradient of weights, by that of their product with the values."""
    return gradient @ _values(weights, args, kwargs).mT


def _through_softmax(gradient: Tensor, weights: Tensor) -> Tensor:
    """The gradient of what a softmax is given, by that of its result."""
    product = gradient * weights
    return product - weights * product.sum(-1, keepdim=True)
