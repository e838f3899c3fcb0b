"""Finds activation functions in a graph of operations, also those that are written out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...core.checks import checked
from ...core.function_kinds import RECTIFIERS, rectifier_ceiling
from ...core.summaries import shortened
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode
from .finding import find, largest
from .patterns import Constant, Either, Match, Pattern, Step, Value

SQUASHING = frozenset(("tanh", "sigmoid", "hardsigmoid", "hardtanh", "log_sigmoid", "softsign", "glu"))
_CLAMPS = frozenset(("clamp", "clamp_min"))


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation function that ran in a forward pass.

    Attributes:
        name: That of torch's function, such as ``relu``, ``gelu`` or ``silu``; ``gelu_tanh``, ``quick_gelu``
            x sigmoid(1.702 x), ``relu_squared``, ``xielu``, or ``soft_cap`` c tanh(x / c).
        module: Name of the module that calls it.
        operations: Its operations, the last one first.
        input: The tensor that it is given.
        output: What it returns.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import find_activations, instrument
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with instrument(layer.eval()) as probe, probe.track() as tracker:
        ...     _ = layer(torch.rand(1, 5, 8))
        >>> graph = tracker.build_graph()
        >>> next(find_activations(graph))
        Activation('relu', '/relu#0')
    """

    name: str
    module: str
    operations: tuple[Operation, ...]
    input: TensorNode
    output: TensorNode

    def __repr__(self) -> str:
        return f"Activation({self.name!r}, {shortened(self.output.name, 90)!r})"


@checked
def find_activations(graph: OperationGraph) -> Iterator[Activation]:
    """Yields the activation functions of a forward pass in the order in which they ended.

    Args:
        graph: The graph of a forward pass.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> class Swish(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x * torch.sigmoid(x)
        >>> with instrument(Swish()) as probe, probe.track() as tracker:
        ...     output = probe.model(torch.ones(1, 3))
        >>> list(find_activations(tracker.build_graph()))
        [Activation('silu', '/mul#0')]
    """
    found: dict[Match, str] = {}
    for name, pattern in _patterns(Value("input")).items():
        found |= {match: name or _name(match.operation) for match in find(graph, pattern)}
    for match in largest(graph, found):
        if found[match]:
            yield Activation(
                name=found[match],
                module=match.operation.module,
                operations=match.operations,
                input=match["input"],
                output=match.operation.outputs[0],
            )


def activated(x: Pattern) -> Pattern:
    """Returns the pattern of any activation function of a tensor that has a name in the pattern `x`."""
    return Either(*_patterns(x).values())


def _name(operation: Operation) -> str:
    """The name of an activation function that is one function of torch; empty if it is none."""
    given = operation.args[1:] + tuple(operation.kwargs.values())
    if operation.function == "gelu" and "tanh" in given:
        return "gelu_tanh"
    if operation.function not in _CLAMPS:
        return operation.function
    if any(isinstance(one, TensorNode) for one in given):  # bounds that are tensors
        return ""
    ceiling = rectifier_ceiling(operation.function, operation.args, operation.kwargs)
    return "" if ceiling is None else "relu6" if ceiling == 6 else "relu" if ceiling == math.inf else "clamp"


def _patterns(x: Pattern) -> Mapping[str, Pattern]:
    """The patterns of activation functions by name, that of single functions of torch without one."""
    cube = Either(Step("pow", x, Constant(3)), Step("mul", x, x, x))
    slope, curve = Constant(math.sqrt(2 / math.pi)), Constant(0.044715)
    inner = Either(
        Step("mul", Step("add", x, Either(Step("mul", cube, curve), Step("mul", x, x, x, curve))), slope),
        Step("mul", x, slope, Step("add", Step("mul", x, x, curve), Constant(1))),
    )
    scaled = Either(Step("div", x, Constant(math.sqrt(2))), Step("mul", x, Constant(math.sqrt(0.5))))
    half, one = Constant(0.5), Constant(1)
    relu, cap = Step("relu", x), Constant(name="cap")
    above, negative = Step("gt", x, Constant(0)), Step("sub", Step("expm1", Step("min|minimum", x)), x)
    xielu = Step("add", Step("mul", negative, Value()), Step("mul", x))
    return {
        "gelu_tanh": Step("mul", x, half, Step("add", Step("tanh", inner), one)),
        "gelu": Step("mul", x, half, Step("add", Step("erf", scaled), one)),
        "quick_gelu": Step("mul", x, Step("sigmoid", Step("mul", x, Constant(1.702)))),
        "silu": Step("mul", x, Step("sigmoid", x)),
        "mish": Step("mul", x, Step("tanh", Step("softplus", x))),
        "relu_squared": Either(Step("square", relu), Step("pow", relu, Constant(2)), Step("mul", relu, relu)),
        "xielu": Step("where", above, Value(), xielu),
        "soft_cap": Step("mul", Step("tanh", Step("div", x, cap)), cap),
        "": Step("|".join(RECTIFIERS | SQUASHING | _CLAMPS), x),
    }
