"""The weight graph of a network: its units, joined by the size of the weights between them.

Networks are dense between few layers, so the graph is a list of weight blocks and is multiplied block by
block. The adjacency matrix, whose size is the number of units squared, is never needed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, Union

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import checked
from ...core.devices import as_device
from ...core.errors import ArgumentError, LayerError, NonFiniteError, ShapeError
from ...core.kinds import shown
from ...core.notebooks import Displayed
from ...core.summaries import counted, listed
from .matrices import draw_matrices
from .norms import Norm

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class Block:
    """The edges between two layers.

    Attributes:
        source: Index of the layer that the edges come from.
        target: Index of the layer that they go to.
        weight: (target units, source units) not negative; (S, target units, source units) for S graphs that
            differ only in their weights. Symmetric for edges within a layer.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> (block,) = chain("ab", [torch.ones(3, 2)]).blocks
        >>> block.source, block.target, block.weight.shape
        (0, 1, torch.Size([3, 2]))
    """

    source: int
    target: int
    weight: Tensor


@dataclass(frozen=True, eq=False)
class WeightGraph(Displayed):
    """An undirected graph whose nodes are the units of a network, layer by layer.

    Labels and all other vectors over the nodes have this order. A unit without edges is `isolated`: it
    belongs to no cluster and does not count in cuts and modularity.

    Args:
        layers: Names of the layers.
        sizes: How many units each of them has.
        blocks: The edges.

    Raises:
        ShapeError: A block that does not fit its layers.
        NonFiniteError: A weight that is NaN or infinite.
        ArgumentError: A negative weight, or a graph without edges.

    Example:
        >>> graph = WeightGraph(("in", "out"), (2, 1), (Block(0, 1, torch.tensor([[3.0, 1.0]])),))
        >>> graph.degrees()
        tensor([3., 1., 4.])
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        for block in self.blocks:
            name = f"the block from {self.layers[block.source]!r} to {self.layers[block.target]!r}"
            expected = (self.sizes[block.target], self.sizes[block.source])
            if block.weight.shape[-2:] != expected:
                raise ShapeError(f"{name} must be {expected}, got {tuple(block.weight.shape)}")
            if not block.weight.isfinite().all():
                raise NonFiniteError(f"{name} has weights that are NaN or infinite")
            if (block.weight < 0).any():
                raise ArgumentError(f"{name} has negative weights: a graph takes their absolute values")
            if block.source == block.target and not torch.equal(block.weight, block.weight.mT):
                raise ArgumentError(f"{name} is within a layer, and must be symmetric")
        if not any(block.weight.any() for block in self.blocks):
            raise ArgumentError(
                "a graph without edges has no modules: all weights are zero, or there are none"
            )

    @classmethod
    @checked
    def from_model(
        cls,
        model: nn.Module,
        example_input: object = None,
        norm: Norm = "l1",
        *,
        keep_graph: bool = False,
    ) -> "WeightGraph":
        """Returns the graph of a feed-forward network, in the order and with the branches of its layers.

        Nodes are the input's channels or features and the units of each linear layer and convolution. An edge
        is the norm of the weights between two units; batch normalization is multiplied into them. Operations
        between two layers pass channels on: a skip connection makes a block from each layer that it comes
        from, a concatenation splits the block, a flattened map sums the weights of all positions of a
        channel.

        Args:
            model: Linear layers, convolutions (also grouped), Conv1D of Hugging Face, and operations between
                them.
            example_input: An input, or a tuple of them, for a network that `torch.fx` cannot trace.
            norm: ``"l1"``, ``"frobenius"``, or ``"induced-l1"``: the largest column sum of a kernel, which
                Filan et al. (2021) used for convolutions.
            keep_graph: Let gradients flow from the edges to the model's parameters.

        Raises:
            ArgumentError: A model without weights, a layer that runs twice, a recurrent network, an operation
                that mixes channels without weights, or no example input for a model that `torch.fx` cannot
                trace.

        Example:
            >>> from toumei.models import SimpleMLP
            >>> WeightGraph.from_model(SimpleMLP(4, 8, 2))
            WeightGraph(14 units: input 4, fc0 8, fc1 2; 48 edges)
        """
        from .extraction import weight_blocks

        layers, sizes, blocks = weight_blocks(model, example_input, norm, keep_graph)
        return cls(layers, sizes, tuple(Block(*block) for block in blocks))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The index of the first node of each layer, and then the number of nodes."""
        return tuple(accumulate(self.sizes, initial=0))

    def __len__(self) -> int:
        return self.offsets[-1]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.blocks[0].weight.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Returns the adjacency matrix times vectors (..., nodes, k), block by block."""
        parts = list(vectors.split(self.sizes, dim=-2))
        sums: list[Tensor | None] = [None] * len(parts)
        for block in self.blocks:
            there_and_back = (
                (block.target, block.source, block.weight),
                (block.source, block.target, block.weight.mT),
            )
            for here, there, weight in there_and_back[: 1 if block.source == block.target else 2]:
                product = weight @ parts[there]
                before = sums[here]
                sums[here] = product if before is None else before + product
        shape = next(product for product in sums if product is not None).shape
        zeros = [vectors.new_zeros(*shape[:-2], size, shape[-1]) for size in self.sizes]
        return torch.cat([z if s is None else s for s, z in zip(sums, zeros, strict=True)], dim=-2)

    def degrees(self) -> Tensor:
        """Returns the sum of each node's edges, (nodes,), or (S, nodes) for S graphs."""
        weight = self.blocks[0].weight
        return (self @ weight.new_ones(len(self), 1)).squeeze(-1)

    def isolated(self) -> list[str]:
        """Returns the names of the units without edges, as ``layer:unit``."""
        names = self.nodes()
        return [names[index] for index in (self.degrees() == 0).nonzero().flatten().tolist()]

    def nodes(self) -> list[str]:
        """Returns the names of all nodes, ``layer:unit``."""
        return [
            f"{name}:{unit}"
            for name, size in zip(self.layers, self.sizes, strict=True)
            for unit in range(size)
        ]

    @checked
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        """Returns the graph on another device or in another precision."""
        if not isinstance(target, torch.dtype):
            target = as_device(target)
        return replace(
            self, blocks=tuple(replace(block, weight=block.weight.to(target)) for block in self.blocks)
        )

    @checked
    def without(self, *layers: str) -> Self:
        """Returns the graph without some layers, such as the input or the head.

        Raises:
            LayerError: A layer that the graph does not have.
            ArgumentError: No edges are left.
        """
        if unknown := [name for name in layers if name not in self.layers]:
            raise LayerError(f"no layer {unknown[0]!r} in the graph: it has {', '.join(self.layers)}")
        kept = [index for index, name in enumerate(self.layers) if name not in layers]
        position = {index: new for new, index in enumerate(kept)}
        blocks = tuple(
            Block(position[block.source], position[block.target], block.weight)
            for block in self.blocks
            if block.source in position and block.target in position
        )
        names, sizes = tuple(self.layers[i] for i in kept), tuple(self.sizes[i] for i in kept)
        return type(self)(names, sizes, blocks)

    def adjacency(self) -> Tensor:
        """Returns the whole adjacency matrix (nodes, nodes), for small graphs and for checks."""
        matrix: Tensor = self @ torch.eye(len(self), dtype=self.blocks[0].weight.dtype, device=self.device)
        return matrix

    @checked
    def by_layer(self, values: Tensor) -> dict[str, Tensor]:
        """Returns values over the nodes (..., nodes), such as labels, split by layer.

        Raises:
            ShapeError: Not a value for each node.
        """
        if not values.dim() or values.shape[-1] != len(self):
            raise ShapeError(f"expected values (..., {len(self)}) of nodes, got {tuple(values.shape)}")
        return dict(zip(self.layers, values.split(self.sizes, dim=-1), strict=True))

    def _drawn(self) -> Any:
        """The weights between all layers, for a notebook; of several graphs none."""
        if any(block.weight.dim() > 2 for block in self.blocks):
            return None
        names = [f"{self.layers[block.source]} to {self.layers[block.target]}" for block in self.blocks]
        return draw_matrices([block.weight for block in self.blocks], names)

    def __repr__(self) -> str:
        counts = [
            int(block.weight.count_nonzero()) // (2 if block.source == block.target else 1)
            for block in self.blocks
        ]
        named = [f"{name} {size}" for name, size in zip(self.layers, self.sizes, strict=True)]
        layers = listed(named, 8 if len(named) <= 8 else 3)
        return f"WeightGraph({counted(len(self), 'unit')}: {layers}; {counted(sum(counts), 'edge')})"


class Clustered(Protocol):
    """What has a label for each node: a `SpectralPartition`, or the `Communities` of a model."""

    @property
    def labels(self) -> Tensor:
        """The cluster of each node, -1 for none, (nodes,)."""


Labels = Tensor | Sequence[int] | Clustered
GraphLike = Union[WeightGraph, nn.Module, "nx.Graph[Any]"]


def as_graph(graph: GraphLike) -> WeightGraph:
    """Returns the graph of a network or of a networkx graph; a `WeightGraph` as it is.

    A networkx graph that is no graph of a network becomes one layer with edges inside.

    Raises:
        ArgumentError: Something else.

    Example:
        >>> from toumei.models import SimpleMLP
        >>> as_graph(SimpleMLP(4, 3))
        WeightGraph(7 units: input 4, fc0 3; 12 edges)
    """
    if isinstance(graph, WeightGraph):
        return graph
    if isinstance(graph, nn.Module):
        return WeightGraph.from_model(graph)
    if (weights := vars(graph).get("_weights") if hasattr(graph, "__dict__") else None) is not None:
        return as_graph(weights)
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        raise ArgumentError(
            f"a graph is a WeightGraph, a model or a networkx graph, got a {type(graph).__name__}"
        )
    matrix = torch.from_numpy(nx.to_numpy_array(graph))
    return WeightGraph(("nodes",), (len(graph),), (Block(0, 0, matrix),))


def check_labels(graph: WeightGraph, labels: Labels) -> Tensor:
    """Returns labels as a tensor (nodes,) on the graph's device; -1 is a node of no cluster.

    Raises:
        ShapeError: Not one label for each node.
        ArgumentError: Labels that are not whole numbers from -1 up, or a node with edges in no cluster.
    """
    try:
        labels = torch.as_tensor(getattr(labels, "labels", labels), device=graph.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"labels are whole numbers, one for each node, got {labels!r}") from error
    if labels.shape != (len(graph),):
        raise ShapeError(
            f"expected a label for each of {counted(len(graph), 'node')}, got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.min() < -1:
        raise ArgumentError(f"labels are whole numbers from 0 up, or -1 for an isolated unit, got {labels}")
    if len(outside := ((labels < 0) & (graph.degrees() > 0)).nonzero().flatten()):
        raise ArgumentError(f"unit {graph.nodes()[int(outside[0])]!r} has edges, but belongs to no cluster")
    return labels


@checked
def chain(layers: Iterable[str], weights: Iterable[Tensor]) -> WeightGraph:
    """Returns the graph of a chain of layers.

    Args:
        layers: Their names, the input first.
        weights: (next units, units) between neighbours; absolute values are taken.

    Example:
        >>> chain("abc", [torch.ones(3, 2), -torch.ones(1, 3)])
        WeightGraph(6 units: a 2, b 3, c 1; 9 edges)
    """
    weights, layers = list(weights), list(layers)
    if not weights or not all(isinstance(one, Tensor) and one.dim() == 2 for one in weights):
        raise ShapeError(f"weights are matrices (next units, units), got {shown(weights)}")
    if len(layers) != len(weights) + 1:
        raise ArgumentError(
            f"{counted(len(weights), 'matrix', 'matrices')} for {counted(len(layers), 'layer')}: expected "
            "one between neighbours"
        )
    weights = [weight.detach().abs() for weight in weights]
    sizes = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
    blocks = tuple(Block(index, index + 1, weight) for index, weight in enumerate(weights))
    return WeightGraph(tuple(layers), sizes, blocks)
