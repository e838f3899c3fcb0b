"""Finds the linear maps in a graph of operations: products of a tensor and a weight."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...core.checks import checked
from ...core.summaries import shortened
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .finding import find
from .patterns import Constant, Either, Match, Pattern, Step, Value, Weight
from .sources import source

_PRODUCTS = "matmul|mm|bmm"
_CONVOLUTIONS = "conv1d|conv2d|conv3d"


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map that ran in a forward pass.

    Attributes:
        operation: The product, such as `linear` or `addmm`.
        module: Name of the module that calls it.
        input: The tensor that it is given.
        output: What it returns, with the bias where that is added in a step of its own.
        weight: The parameter, of all experts where it is one of several; or the tensor that takes its place.
        bias: The bias, None without.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import find_linear, instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> [found.module for found in find_linear(graph)]
        ['linear1', 'linear2']
    """

    operation: Operation
    module: str
    input: TensorNode
    output: TensorNode
    weight: TensorNode
    bias: TensorNode | None

    def __repr__(self) -> str:
        return f"LinearMap({shortened(self.operation.name, 90)!r}, {self.in_features} -> {self.out_features})"

    @property
    def in_features(self) -> int:
        """Numbers of each vector that goes in."""
        return self.input.shape[self._axis]

    @property
    def out_features(self) -> int:
        """Numbers of each vector that comes out."""
        return self.output.shape[self._axis]

    @property
    def _axis(self) -> int:
        """The axis of the vectors: the last one, but for convolutions and for a weight that stands first."""
        operation = self.operation
        if operation.function in _CONVOLUTIONS.split("|"):
            return -1 - int(operation.function[len("conv")])
        first = operation.function in _PRODUCTS.split("|") and operation.args[:1] != (self.input,)
        return -2 if first and len(self.output.shape) > 1 else -1


@checked
def find_linear(graph: OperationGraph) -> Iterator[LinearMap]:
    """Yields the linear maps of a forward pass in the order in which they ran.

    These are `linear`, products with a parameter by other functions, those of all experts at once, and
    convolutions whose kernels have one place.

    Args:
        graph: The graph of a forward pass.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> list(find_linear(tracker.build_graph()))
        [LinearMap('0/linear#0', 3 -> 4), LinearMap('2/linear#0', 4 -> 2)]
    """
    for match in find(graph, _linear()):
        operation = match.operation
        output, bias = operation.outputs[0], _bias(graph, operation)
        if bias is None and operation.function != "linear":
            output, bias = _added_later(graph, operation)
        yield LinearMap(
            operation=operation,
            module=operation.module,
            input=match["input"],
            output=output,
            weight=match["weight"],
            bias=bias,
        )


def _linear() -> Pattern:
    value, weight = Value("input"), Weight("weight")
    computed = Value("input", computed=True)
    return Either(
        Step("linear", value, weight),
        Step("linear", value, Value("weight")),
        Step("addmm|baddbmm", Value(), value, weight),
        Step(f"{_PRODUCTS}|grouped_mm", value, weight),
        Step(_PRODUCTS, weight, computed),
        Step("einsum", Constant(), value, weight),
        Step("einsum", Constant(), weight, computed),
        Step(_CONVOLUTIONS, value, weight, where=_has_one_place),
    )


def _has_one_place(operation: Operation) -> bool:
    """Whether a convolution is a linear map of the channels at each place."""
    given = operation.args[1] if len(operation.args) > 1 else operation.kwargs["weight"]
    groups = operation.args[6] if len(operation.args) > 6 else operation.kwargs.get("groups", 1)
    return groups == 1 and all(size == 1 for size in given.shape[2:])


def _bias(graph: OperationGraph, operation: Operation) -> TensorNode | None:
    """The bias among the arguments."""
    place = 0 if operation.function in ("addmm", "baddbmm") else 2
    named = operation.function in ("addmm", "baddbmm", "linear", *_CONVOLUTIONS.split("|"))
    given = operation.args[place] if named and len(operation.args) > place else operation.kwargs.get("bias")
    return source(graph, given) if isinstance(given, TensorNode) else None


def _added_later(graph: OperationGraph, operation: Operation) -> tuple[TensorNode, TensorNode | None]:
    """The result with its bias, where the next operation adds one."""
    output = operation.outputs[0]
    consumers = graph.consumers(output)
    if len(consumers) == 1:
        added = Step("add", Value("product"), Weight("bias"))
        match = next(added.matches(graph, consumers[0].outputs[0], Match()), None)
        if (
            match is not None
            and match.operation is consumers[0]
            and match["bias"].shape[-1:] == output.shape[-1:]
        ):
            return consumers[0].outputs[0], match["bias"]
    return output, None
