"""Finds residual sums in a graph of operations: of a tensor and of what was computed from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...core.checks import checked
from ...core.summaries import shortened
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .sources import source


@dataclass(frozen=True, eq=False)
class ResidualSum:
    """A sum of two tensors in a forward pass: a part of the network computed one of them from the other.

    Attributes:
        operation: The addition.
        module: Name of the module that calls it.
        stream: The tensor that goes past the part.
        branch: What the part returned.
        output: The sum.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import find_residual_sums, instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> len(list(find_residual_sums(graph)))
        2
    """

    operation: Operation
    module: str
    stream: TensorNode
    branch: TensorNode
    output: TensorNode

    def __repr__(self) -> str:
        return f"ResidualSum({shortened(self.stream.name, 80)!r} + {shortened(self.branch.name, 80)!r})"


@checked
def find_residual_sums(graph: OperationGraph) -> Iterator[ResidualSum]:
    """Yields the residual sums of a forward pass in the order in which they ran.

    The part of the network in between has weights, and the sum has the shape of both tensors. Shortcuts with
    a layer of their own, as where ResNets halve the size, are none.

    Args:
        graph: The graph of a forward pass.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> model = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3, 8))
        >>> [(one.stream.name, one.branch.name) for one in find_residual_sums(tracker.build_graph())]
        [('inputs[0]', 'dropout1/dropout#0'), ('norm1/layer_norm#0', 'dropout2/dropout#0')]
    """
    places = {operation.name: place for place, operation in enumerate(graph)}
    for operation in graph:
        nodes = operation.inputs
        if operation.function != "add" or len(nodes) != 2:
            continue
        output = operation.outputs[0]
        if any(node.shape != output.shape for node in nodes):
            continue
        for stream, branch in (nodes, nodes[::-1]):
            if _computed_from(graph, branch, stream, places):
                yield ResidualSum(operation, operation.module, stream, branch, output)
                break


def _computed_from(
    graph: OperationGraph, branch: TensorNode, stream: TensorNode, places: Mapping[str, int]
) -> bool:
    """Whether a tensor was computed with weights from another one, or from what that was cast from."""
    stream = source(graph, stream)
    if stream.kind in ("parameter", "buffer", "constant"):
        return False
    first = -1 if stream.producer is None else places[stream.producer]
    waiting, seen, weighted, met = [branch], {branch}, False, False
    while waiting:
        node = waiting.pop()
        operation = None if node.producer is None else graph.operations[node.producer]
        if node is stream or operation is None or places[operation.name] <= first:
            met |= node is stream
            continue
        weighted |= any(one.kind == "parameter" for one in operation.inputs)
        new = [one for one in operation.inputs if one not in seen]
        seen.update(new)
        waiting += new
    return met and weighted
