"""The weights of attention heads, one matrix for each head, whatever the architecture stores them as."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_no_nan, checked
from ...core.errors import ArchitectureError, LayerError
from ...core.summaries import counted
from ...core.tensors import whole
from ...instrument import LinearMap, OperationGraph, TensorNode
from ..model.hook_points import HookPoint
from ..model.hook_search import HookPoints
from ..model.hooked_model import HookedModel
from .norm_factors import NormFactor, measured_factor
from .query_key_maps import query_key_gains

_TRANSPOSES = ("T", "t", "mT", "transpose", "permute")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HeadWeights:
    """The weights of the heads of a layer for vectors as rows, ``x @ W_Q + b_Q``, on the device of the model.

    Attributes:
        layer: The number of the layer.
        W_Q: (heads, width, d_head), from the input of the attention layer to queries.
        W_K: (heads, width, d_head), to keys. Heads that share keys and values have the same numbers.
        W_V: (heads, width, d_head), to values.
        W_O: (heads, d_head, width), from the outputs of the heads to the residual stream.
        b_Q: (heads, d_head), zeros where the model has no bias; so are the others.
        b_K: (heads, d_head).
        b_V: (heads, d_head).
        b_O: (width,), of all heads together.
        key_value_heads: How many different heads of keys and values there are.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> from toumei.transformers.heads import head_weights
        >>> weights = head_weights(HookedModel(*facts_gpt()[:2]), 0)
        >>> weights.W_Q.shape, weights.key_value_heads
        (torch.Size([4, 128, 32]), 4)
    """

    layer: int
    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor
    key_value_heads: int

    def grouped(self) -> "HeadWeights":
        """Returns the weights with those of keys and values once for each group of heads that share them."""
        repeats = self.heads // self.key_value_heads
        names = ("W_K", "W_V", "b_K", "b_V")
        return replace(self, **{name: getattr(self, name)[::repeats] for name in names})

    @property
    def heads(self) -> int:
        """How many heads of queries there are."""
        return len(self.W_Q)

    def __repr__(self) -> str:
        heads, width, d_head = self.W_Q.shape
        groups = "" if self.key_value_heads == heads else f", {self.key_value_heads} of keys and values"
        return f"HeadWeights(layer {self.layer}, {counted(heads, 'head')}{groups}, {width} -> {d_head})"


@checked
def head_weights(
    model: HookedModel, layer: int, *, fold_norms: bool = False, dtype: torch.dtype = torch.float32
) -> HeadWeights:
    """Returns the weights of the heads of a layer; the model's stay as they are.

    Args:
        model: The model.
        layer: The number of the layer.
        fold_norms: Whether the gains of norms are part of the weights, so that they read from and write to
            the residual stream itself: gain and bias of the norm before the layer, and that it takes off the
            mean; the gain of norms of queries and keys; that of a norm, or a scale, between the heads and
            the stream. The divisors of norms, one number for each vector, are not part of them.
        dtype: The precision of the numbers, `torch.float32` or `torch.float64`.

    Raises:
        LayerError: There is no such layer.
        ArchitectureError: The projections of the heads cannot be told, or a norm cannot be folded.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> weights = head_weights(hooked, 0)
        >>> weights
        HeadWeights(layer 0, 4 heads, 128 -> 32)
        >>> text = world.facts[0].text
        >>> logits, cache = hooked.run_with_cache(text, [("q", 0), "transformer.h.0.ln_1"])
        >>> queries = torch.einsum("bpw,hwd->bphd", cache["transformer.h.0.ln_1"], weights.W_Q) + weights.b_Q
        >>> torch.allclose(queries, cache["q", 0], atol=1e-5)
        True
    """
    points = model.points
    check_layer(points, layer)
    linear = points.linear_maps
    projections = {letter: _projection(points, linear, layer, letter, dtype) for letter in "qkv"}
    heads, groups = points.attentions[layer].num_heads, points.attentions[layer].num_key_value_heads
    if layer not in points.outputs:
        raise ArchitectureError(f"layer {layer}: no linear map of the heads' outputs was found")
    output = points.outputs[layer]
    repeated = {
        letter: [one.repeat_interleave(heads // len(one), 0) for one in pair]
        for letter, pair in projections.items()
    }
    weights = HeadWeights(
        layer=layer,
        **{f"W_{letter.upper()}": pair[0] for letter, pair in repeated.items()},
        **{f"b_{letter.upper()}": pair[1] for letter, pair in repeated.items()},
        W_O=matrix_of(points.graph, output).to(dtype).unflatten(0, (heads, -1)),
        b_O=_bias(points.graph, output, dtype),
        key_value_heads=groups,
    )
    check_no_nan(
        f"the weights of the heads of layer {layer}", [weights.W_Q, weights.W_K, weights.W_V, weights.W_O]
    )
    return _folded(points, weights, linear) if fold_norms else weights


def check_layer(points: HookPoints, layer: int) -> None:
    """Makes sure that a layer has attention.

    Raises:
        LayerError: It has none.
    """
    if layer not in points.attentions:
        known = ", ".join(map(str, sorted(points.attentions)))
        raise LayerError(f"layer {layer} has no attention, layers that have are {known}")


def input_factor(points: HookPoints, layer: int) -> NormFactor:
    """Returns what happens between the residual stream and the projections of a layer's heads.

    Raises:
        ArchitectureError: More than a norm.
    """
    given = projection_input(points, layer, "q")
    return measured_factor(points.graph, stream_before(points, given), given)


def projection_map(points: HookPoints, layer: int, letter: str) -> LinearMap:
    """Returns the linear map that a layer's queries, keys or values, ``"q"``, come from.

    Raises:
        ArchitectureError: It cannot be told.
    """
    return _linear_map(points, points.linear_maps, layer, letter)


def projection_output(points: HookPoints, layer: int, letter: str) -> TensorNode:
    """Returns the output of the linear map that a layer's queries, keys or values, ``"q"``, come from."""
    return projection_map(points, layer, letter).output


def projection_input(points: HookPoints, layer: int, letter: str) -> TensorNode:
    """Returns what the linear map is given that a layer's queries, keys or values, ``"q"``, come from."""
    return projection_map(points, layer, letter).input


def output_factor(points: HookPoints, layer: int) -> NormFactor:
    """Returns what happens to the outputs of a layer's heads, summed, before they join the residual stream.

    Raises:
        ArchitectureError: More than a norm or a scale, or it is not known where they join it.
    """
    for segment in points.segments:
        if (part := segment.parts.get(("attn", layer))) is not None:
            return measured_factor(points.graph, points.outputs[layer].output, part)
    raise ArchitectureError(
        f"it is not known how the heads of layer {layer} are added to the residual stream"
    )


def stream_before(points: HookPoints, node: TensorNode) -> TensorNode:
    """Returns the tensor of the residual stream that a tensor is computed from.

    Raises:
        ArchitectureError: There is none, or there are several.
    """
    stream = {one for segment in points.segments for one in (*segment.start, *segment.sums.values())}
    found, seen, waiting = set[TensorNode](), {node}, [node]
    while waiting:
        one = waiting.pop()
        operation = points.graph.producer(one)
        summands = operation.inputs if operation is not None and operation.function == "add" else []
        if one in stream or [(two.kind, two.shape) for two in summands] == 2 * [("result", one.shape)]:
            found.add(one)
            continue
        new = [] if operation is None else [other for other in operation.inputs if other not in seen]
        seen.update(new)
        waiting += new
    if len(found) != 1:
        raise ArchitectureError(
            f"{node.name!r} reads {counted(len(found), 'tensor')} of the residual stream, not one"
        )
    return found.pop()


def matrix_of(graph: OperationGraph, linear: LinearMap) -> Tensor:
    """Returns the matrix (in, out) of a linear map, as the model has it now; a view where that is possible.

    Raises:
        ArchitectureError: It is not known which way round the matrix is used.
    """
    weight, operation = tensor_of(graph, linear.weight), linear.operation
    used = operation.args[-1] if operation.function == "matmul" else None
    made = graph.producer(used) if isinstance(used, TensorNode) else None
    if operation.function == "linear" or (made is not None and made.function in _TRANSPOSES):
        weight = weight.T
    if weight.shape != (linear.in_features, linear.out_features):
        raise ArchitectureError(
            f"the weight of {operation.name!r} of shape {tuple(weight.shape)} is no matrix"
        )
    return weight


def tensor_of(graph: OperationGraph, node: TensorNode) -> Tensor:
    """Returns a parameter as one plain tensor, or the value of a tensor that a pass computes from them."""
    if node.kind == "parameter":
        return whole(graph.memory.weight(node))
    with torch.no_grad():
        value: Tensor = graph.replay(record=[node])[node.name]
    return value


def _linear_map(points: HookPoints, linear: dict[str, LinearMap], layer: int, letter: str) -> LinearMap:
    name = f"blocks.{layer}.attn.hook_{letter}"
    point = points.points.get(name)
    if not isinstance(point, HookPoint) or point.layer not in linear:
        raise ArchitectureError(
            f"the weights of the heads of layer {layer} cannot be told: {points.missing.get(name, name)}"
        )
    return linear[point.layer]


def _projection(
    points: HookPoints, linear: dict[str, LinearMap], layer: int, letter: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The weight (heads, width, d_head) and bias (heads, d_head) of queries, keys or values."""
    found = _linear_map(points, linear, layer, letter)
    point = points.points[f"blocks.{layer}.attn.hook_{letter}"]
    assert isinstance(point, HookPoint)
    weight = matrix_of(points.graph, found)
    rows = torch.cat([weight, _bias(points.graph, found, weight.dtype)[None]])  # as if they were positions
    by_head = point.read(rows if len(point.axes) == 2 else rows[None], 1)[0].to(dtype)
    return by_head[:-1].transpose(0, 1), by_head[-1]


def _bias(graph: OperationGraph, linear: LinearMap, dtype: torch.dtype) -> Tensor:
    if linear.bias is None:
        return torch.zeros(linear.out_features, dtype=dtype, device=linear.output.device)
    return tensor_of(graph, linear.bias).to(dtype)


def _folded(points: HookPoints, weights: HeadWeights, linear: dict[str, LinearMap]) -> HeadWeights:
    """The weights with the gains of the norms around them."""
    before, after = input_factor(points, weights.layer), output_factor(points, weights.layer)
    changed: dict[str, Any] = {}
    for letter in "QKV":
        weight, bias = getattr(weights, f"W_{letter}"), getattr(weights, f"b_{letter}")
        changed[f"b_{letter}"] = bias + before.bias.to(weight) @ weight
        changed[f"W_{letter}"] = before.before(weight)
    for letter in "QK":
        start = _linear_map(points, linear, weights.layer, letter.lower()).output
        gains = query_key_gains(points, weights.layer, letter.lower(), start)
        if gains is not None:
            gains = gains.repeat_interleave(weights.heads // len(gains), 0).to(weights.W_Q)
            changed[f"W_{letter}"] = changed[f"W_{letter}"] * gains[:, None]
            changed[f"b_{letter}"] = changed[f"b_{letter}"] * gains
    return replace(weights, **changed, W_O=after.after(weights.W_O), b_O=after.after(weights.b_O))
