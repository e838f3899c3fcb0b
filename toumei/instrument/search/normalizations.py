"""Finds normalizations in a graph of operations, also those that are written out."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...core.checks import checked
from ...core.summaries import shortened
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .finding import find, largest
from .patterns import Constant, Either, Pattern, Step, Value, Weight
from .sources import source

# Functions of torch, with the places of their weight and bias among the arguments.
_PLACES = {
    "layer_norm": (2, 3),
    "rms_norm": (2, None),
    "group_norm": (2, 3),
    "batch_norm": (3, 4),
    "instance_norm": (3, 4),
    "local_response_norm": (None, None),
}


@dataclass(frozen=True, eq=False)
class Normalization:
    """A normalization that ran in a forward pass.

    Attributes:
        kind: ``"layer_norm"``, ``"rms_norm"``, ``"batch_norm"``, ``"group_norm"``, ``"instance_norm"`` or
            ``"local_response_norm"``.
        module: Name of the module that calls it.
        operations: Its operations, the last one first.
        input: The tensor that it is given.
        output: What it returns.
        weight: The parameter that its result is scaled by, in some models less one; None without.
        bias: The bias, None without.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import find_normalizations, instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> [(found.kind, found.module) for found in find_normalizations(graph)]
        [('layer_norm', 'norm1'), ('layer_norm', 'norm2')]
    """

    kind: str
    module: str
    operations: tuple[Operation, ...]
    input: TensorNode
    output: TensorNode
    weight: TensorNode | None
    bias: TensorNode | None

    def __repr__(self) -> str:
        return f"Normalization({self.kind!r}, {shortened(self.output.name, 90)!r})"


@checked
def find_normalizations(graph: OperationGraph) -> Iterator[Normalization]:
    """Yields the normalizations of a forward pass in the order in which they ended.

    Args:
        graph: The graph of a forward pass.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> class RootMeanSquare(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        >>> with instrument(RootMeanSquare()) as probe, probe.track() as tracker:
        ...     output = probe.model(torch.ones(1, 3))
        >>> list(find_normalizations(tracker.build_graph()))
        [Normalization('rms_norm', '/mul#0')]
    """
    # what a layer norm centres is the input of an RMS norm, so that the later pattern counts
    found = {
        match.operation: (match, kind or match.operation.function)
        for kind, pattern in _patterns(Value("input")).items()
        for match in find(graph, pattern)
    }
    for match in largest(graph, (one for one, _ in found.values())):
        operation, kind = match.operation, found[match.operation][1]
        weight, bias = match.groups.get("weight"), match.groups.get("bias")
        if operation.function in _PLACES:
            places = zip(_PLACES[operation.function], ("weight", "bias"), strict=True)
            weight, bias = (_argument(graph, operation, place, name) for place, name in places)
        yield Normalization(
            kind=kind,
            module=operation.module,
            operations=match.operations,
            input=match["input"],
            output=operation.outputs[0],
            weight=weight,
            bias=bias,
        )


def normalized(x: Pattern) -> Pattern:
    """Returns the pattern of any normalization of a tensor that has a name in the pattern `x`."""
    return Either(*_patterns(x).values())


def _patterns(x: Pattern) -> dict[str, Pattern]:
    """The patterns by kind; that of single functions of torch without one."""
    eps = Constant()
    centred = Step("sub", x, Step("mean", x))  # some models compute it twice
    variance = Either(Step("mean", _square(centred)), Step("var", x))
    deviation = Step("sqrt", Either(Step("add", variance, eps), variance))
    layer = Either(
        Step("mul", centred, _inverse(variance)),
        Step("div", centred, Either(deviation, Step("add", Either(deviation, Step("std", x)), eps))),
    )
    root = Step("sqrt", Step("add", Step("mean", _square(x)), eps))
    rms = Either(Step("mul", x, _inverse(Step("mean", _square(x)))), Step("div", x, root))
    weight, bias = Weight("weight"), Weight("bias")
    return {
        "rms_norm": _scaled(rms),
        "layer_norm": Either(Step("add", Step("mul", layer, weight), bias), _scaled(layer)),
        "": Step("|".join(_PLACES), x),
    }


def _square(x: Pattern) -> Pattern:
    return Either(Step("pow", x, Constant(2)), Step("square", x), Step("mul", x, x))


def _inverse(variance: Pattern) -> Pattern:
    """One over the root of a variance."""
    padded = Step("add", variance, Constant())
    return Either(Step("rsqrt", padded), Step("pow", padded, Constant(-0.5)))


def _scaled(normalized: Pattern) -> Pattern:
    """What was normalized, maybe times a weight, or times one and a weight."""
    weight = Weight("weight")
    plus_one = Step("add", weight, Constant(1))
    return Either(Step("mul", normalized, weight), Step("mul", normalized, plus_one), normalized)


def _argument(graph: OperationGraph, operation: Operation, place: int | None, name: str) -> TensorNode | None:
    """The weight or bias among the arguments of a function of torch."""
    if place is None:
        return None
    given = operation.args[place] if len(operation.args) > place else operation.kwargs.get(name)
    return source(graph, given) if isinstance(given, TensorNode) else None
