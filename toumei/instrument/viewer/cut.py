"""What lies near an operation or a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from ..nodes import Operation, TensorNode
from .items import ForwardPass


@dataclass(frozen=True)
class Neighbourhood:
    """A part of a forward pass.

    Attributes:
        operations: The operations in it by name, in the order in which they ran.
        tensors: The tensors in it by name.
        modules: Types of the model's modules by name.
        outputs: The tensors in it that are in the output of the model.
        error: What ended the pass early, None if nothing did.
    """

    operations: Mapping[str, Operation]
    tensors: Mapping[str, TensorNode]
    modules: Mapping[str, str]
    outputs: tuple[TensorNode, ...]
    error: str | None


def neighbourhood(
    graph: ForwardPass,
    bipartite: "nx.DiGraph[Operation | TensorNode]",
    focus: Operation | TensorNode,
    hops: int,
) -> Neighbourhood:
    """Returns the operations and tensors that are at most so many hops away, with or against the arrows.

    From an operation to one that takes its result are two hops.

    Args:
        graph: The forward pass.
        bipartite: Its operations and tensors as networkx has them.
        focus: From where hops count.
        hops: How many.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> graph = tracker.build_graph()
        >>> list(neighbourhood(graph, graph.networkx(), graph.operation("1/relu"), 2).operations)
        ['0/linear#0', '1/relu#0']
    """
    near = nx.ego_graph(bipartite, focus, radius=hops, undirected=True)
    return Neighbourhood(
        operations={name: one for name, one in graph.operations.items() if one in near},
        tensors={name: node for name, node in graph.tensors.items() if node in near},
        modules=graph.modules,
        outputs=tuple(node for node in graph.outputs if node in near),
        error=graph.error,
    )
