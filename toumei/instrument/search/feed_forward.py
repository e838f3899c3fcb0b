"""Finds feed-forward networks in a graph of operations: plain, gated, and those of experts."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...core.checks import checked
from ...core.summaries import shortened
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .activations import SQUASHING, Activation, activated, find_activations
from .finding import find, layer_numbers, layer_prefix
from .linear_maps import LinearMap, find_linear
from .normalizations import normalized
from .patterns import Constant, Either, Match, Pattern, Skip, Step, Value, Weight
from .sources import source

_PARTS = "chunk|split|split_with_sizes|unbind|select|getitem|clamp"


@dataclass(frozen=True, eq=False)
class FeedForward:
    """A feed-forward network that ran in a forward pass.

    Attributes:
        kind: ``"plain"``, down(act(first(x))); ``"gated"``, down(act(first(x)) * up(x)); ``"experts"`` for
            either of them where tokens go to experts. Each expert may be a network here, or all of them one.
        module: Name of the innermost module that has all of it.
        layer: Number in the name of the module, if that tells all networks of the pass apart; else the place
            in the order in which they ran.
        first: The linear map before the activation function: the gate of a gated one.
        up: The other linear map of a gated one, the first where one map computes both; None if plain.
        activation: The activation function.
        coefficients: The tensor of the activations of the neurons, which the last linear map takes, before
            dropout and before it is laid out anew; normalized where the network does so there, as BitNet's.
        before_norm: What is normalized to the coefficients; the same tensor where nothing is.
        down: The last linear map.
        down_module: Name of the module that is the last linear map; None where no module is that alone.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import find_feed_forward, instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> found = next(find_feed_forward(graph))
        >>> found.kind, found.module
        ('plain', '')
    """

    kind: str
    module: str
    layer: int
    first: LinearMap
    up: LinearMap | None
    activation: Activation
    coefficients: TensorNode
    before_norm: TensorNode
    down: LinearMap
    down_module: str | None

    def __repr__(self) -> str:
        sizes = f"{self.first.in_features} -> {self.hidden_size} -> {self.down.out_features}"
        module = shortened(self.module, 70)
        return f"FeedForward({module!r}, layer {self.layer}, {self.kind}, {self.activation.name}, {sizes})"

    @property
    def hidden_size(self) -> int:
        """Number of neurons."""
        return self.coefficients.shape[-1]

    @property
    def linear_top(self) -> Operation:
        """The operation of the first linear map."""
        return self.first.operation

    @property
    def act(self) -> Operation:
        """The last operation of the activation function."""
        return self.activation.operations[0]

    @property
    def linear_bottom(self) -> Operation:
        """The operation of the last linear map."""
        return self.down.operation


@checked
def find_feed_forward(graph: OperationGraph) -> Iterator[FeedForward]:
    """Yields the feed-forward networks of a forward pass in the order in which they ran.

    A plain one is two linear maps with an activation function between them, such as GELU or ReLU, a gated one
    has the product of the activation and another linear map. What the last map takes may be normalized.

    Args:
        graph: The graph of a forward pass.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> model = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3, 8))
        >>> network, = find_feed_forward(tracker.build_graph())
        >>> network
        FeedForward('', layer 0, plain, relu, 8 -> 16 -> 8)
        >>> network.down_module, network.coefficients.name
        ('linear2', '/relu#0')
    """
    maps = {one.operation: one for one in find_linear(graph) if "conv" not in one.operation.function}
    activations = {one.operations[0]: one for one in find_activations(graph)}
    found = []
    for match in find(graph, _feed_forward(maps)):
        activation = next(activations[one] for one in match.operations if one in activations)
        squashes = activation.name in (*SQUASHING, "soft_cap")
        of_data = source(graph, maps[match["first"]].input).kind in ("result", "input")
        # heads of masked language models have a normalization as well, and return to no width
        sizes = maps[match["first"]].in_features, maps[match["down"]].out_features
        returns = "normed" not in match or sizes[0] == sizes[1]
        if of_data and returns and ("up" in match or not squashes):
            found.append(_of_match(graph, match, maps, activation))
    yield from _numbered(found)


class FindTransformerFFN:
    """Finds feed-forward networks, under the name that fMRAi gave it; see `find_feed_forward`.

    Args:
        graph: The graph of a forward pass.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> [found.kind for found in FindTransformerFFN(graph).search()]
        ['plain']
    """

    def __init__(self, graph: OperationGraph) -> None:
        self.graph = graph

    def search(self) -> Iterator[FeedForward]:
        """Yields the networks; they have `linear_top`, `act` and `linear_bottom`."""
        return find_feed_forward(self.graph)


def _feed_forward(maps: dict[Operation, LinearMap]) -> Pattern:
    """The result of the last linear map of a plain or a gated network."""
    functions = "|".join({one.function for one in maps} or {"linear"})

    def linear(name: str) -> Pattern:
        return Step(functions, name=name, where=maps.__contains__)

    def hidden(name: str) -> Pattern:
        """What a linear map returned, with its bias, or a part of it."""
        product = linear(name)
        return Skip(_PARTS, Either(product, Step("add", product, Either(Weight(), Constant()))))

    scaled = Step("mul", hidden("first"), Constant())
    plain = activated(Value("input", of=Either(hidden("first"), scaled)))
    up = Either(hidden("up"), Step("add", hidden("up"), Constant()))
    neurons = Either(plain, Step("mul", plain, up, name="product"))
    normed = normalized(Value("normed", of=neurons))
    return Step(functions, name="down", of=Either(neurons, normed), where=maps.__contains__)


def _numbered(found: list[FeedForward]) -> Iterator[FeedForward]:
    """The networks with their layers; experts, and what is in a layer with experts, are of one layer."""
    with_experts = {layer_prefix(one.module) for one in found if one.kind == "experts"} - {""}
    units = [
        prefix if (prefix := layer_prefix(one.module)) in with_experts else f"{place}:{one.module}"
        for place, one in enumerate(found)
    ]
    apart = list(dict.fromkeys(units))
    numbers = dict(zip(apart, layer_numbers([unit.partition(":")[2] or unit for unit in apart]), strict=True))
    for one, unit in zip(found, units, strict=True):
        yield replace(one, layer=numbers[unit])


def _of_match(
    graph: OperationGraph, match: Match, maps: dict[Operation, LinearMap], activation: Activation
) -> FeedForward:
    first, down = maps[match["first"]], maps[match["down"]]
    neurons = match["product"].outputs[0] if "product" in match else activation.output
    alone = down.weight.name == f"{down.module}.weight"
    return FeedForward(
        kind="experts" if _is_of_experts(graph, first) else "gated" if "up" in match else "plain",
        module=_innermost([first.module, activation.module, down.module]),
        layer=0,
        first=first,
        up=maps[match["up"]] if "up" in match else None,
        activation=activation,
        coefficients=match.operations[1].outputs[0] if "normed" in match else neurons,
        before_norm=neurons,
        down=down,
        down_module=down.module if alone else None,
    )


def _is_of_experts(graph: OperationGraph, first: LinearMap) -> bool:
    """Whether a weight is that of several experts, or only some of the tokens go through it."""
    if len(first.weight.shape) > 2:
        return True
    chosen = graph.producer(source(graph, first.input))
    return chosen is not None and chosen.function in ("getitem", "index_select") and len(chosen.inputs) > 1


def _innermost(modules: list[str]) -> str:
    """The name of the innermost module that has all of some modules."""
    return posixpath.commonpath([f"/{name.replace('.', '/')}" for name in modules])[1:].replace("/", ".")
