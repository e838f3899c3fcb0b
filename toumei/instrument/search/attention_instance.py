"""A multi-head attention that ran in a forward pass, and its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError, LayerError
from ...core.kinds import shown
from ...core.summaries import counted, listed, shortened
from ..attention_weights import AttentionWeights
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode, nodes_in, with_values


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

    Example:
        >>> from torch import nn
        >>> from toumei.instrument import find_multi_head_attention, instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> found = next(find_multi_head_attention(graph))
        >>> found.num_heads, found.key_length
        (2, 5)
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
        heads = f"{counted(self.num_heads, 'head')}{grouped}, {self.query_length} x {self.key_length}"
        module = shortened(self.module, 70)
        return f"MultiHeadAttentionInstance({module!r}, layer {self.layer}, {heads}, {self.kind})"

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
        if not isinstance(values, Mapping):
            raise ArgumentError(f"expected the tensors of a pass by name, got {shown(values)}")
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
            if node.kind in ("parameter", "buffer"):
                values[node] = memory.weight(node)
            else:
                values[node] = found[node.name] if node.name in found else memory.first[node.name]
        args, kwargs = with_values(given, values)
        return self.softmax_value.of_call(args, kwargs)


def _without_values(operation: Operation) -> tuple[Any, Any]:
    """The arguments of an operation on which its weights depend, with None for the values."""
    args, kwargs = operation.args, operation.kwargs
    if operation.function != "multi_head_attention_forward":  # which does not run without them
        args = tuple(None if place == 2 else one for place, one in enumerate(args))
        kwargs = {name: one for name, one in kwargs.items() if name != "value"}
    return args, kwargs
