"""Compares the graph of a pass with the graphs of `torch.fx` and `torch.export` of the same model."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..core.checks import checked
from ..core.errors import ArchitectureError
from ..core.function_kinds import CONVERSIONS, LAYOUT, PROPERTIES
from ..core.functions import canonical_name
from ..core.notebooks import Displayed
from ..core.summaries import counted, shortened
from .graph import OperationGraph

# What computes nothing, and what the other graphs show of tuples and of shapes.
_LEFT_OUT = (
    LAYOUT | CONVERSIONS | PROPERTIES | frozenset(("getitem", "getattr", "detach", "alias", "sym_size"))
)
_SHOWN = 20  # names that are printed
Counts = Counter[tuple[str, str]]


@dataclass(frozen=True)
class GraphDifferences(Displayed):
    """How the graph of a pass differs from another graph of the same model.

    Operations are counted by module and function. Those that only lay tensors out anew, convert them or read
    their shapes are left out, since the graphs show them in different ways.

    Attributes:
        other: ``"torch.fx"`` or ``"torch.export"``.
        both: How many operations both graphs have.
        only_here: Names ``module/function`` that the pass has more often, and how much more often.
        only_there: Names that the other graph has more often.

    Example:
        >>> GraphDifferences("torch.fx", both=5, only_here={"add": 1}, only_there={})
        GraphDifferences(torch.fx: 5 in both, 1 only here, 0 only there)
    """

    other: str
    both: int
    only_here: dict[str, int]
    only_there: dict[str, int]

    def __bool__(self) -> bool:
        return bool(self.only_here or self.only_there)

    def __repr__(self) -> str:
        numbers = f"{sum(self.only_here.values())} only here, {sum(self.only_there.values())} only there"
        return f"GraphDifferences({self.other}: {self.both} in both, {numbers})"

    def __str__(self) -> str:
        lines = [f"in the pass and in the graph of {self.other}: {counted(self.both, 'operation')}"]
        for where, names in (("the pass", self.only_here), (self.other, self.only_there)):
            if names:
                lines.append(f"only in {where}:")
                lines += [f"  {shortened(name, 160)} x {n}" for name, n in list(names.items())[:_SHOWN]]
                lines += [f"  and {len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
        return "\n".join(lines)


@checked
def compare_with_fx(graph: OperationGraph) -> GraphDifferences:
    """Compares the graph of a pass with that of `torch.fx.symbolic_trace`, traced through all modules.

    Args:
        graph: The graph of a pass.

    Raises:
        ArchitectureError: `torch.fx` cannot trace the model, as where it looks at values or shapes.

    Example:
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> compare_with_fx(tracker.build_graph())
        GraphDifferences(torch.fx: 2 in both, 0 only here, 0 only there)
    """
    try:
        traced = _Tracer().trace(graph.memory.model)
    except Exception as error:  # tracing runs the code of the model with what are no tensors
        raise ArchitectureError(f"torch.fx cannot trace the {graph.modules['']}: {error}") from error
    return _differences(graph, "torch.fx", _counted(traced.nodes))


@checked
def compare_with_export(
    graph: OperationGraph, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
) -> GraphDifferences:
    """Compares the graph of a pass with that of `torch.export.export`.

    Args:
        graph: The graph of a pass.
        args: Positional inputs of the model; those of the pass by default.
        kwargs: Its other inputs.

    Raises:
        ArchitectureError: The model cannot be exported.

    Example:
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> compare_with_export(tracker.build_graph())
        GraphDifferences(torch.export: 2 in both, 0 only here, 0 only there)
    """
    if args is None and kwargs is None:
        args, kwargs = _inputs(graph)
    try:
        exported = torch.export.export(graph.memory.model, args or (), kwargs or {}, strict=False)
    except Exception as error:  # tracing runs the code of the model with what are no tensors
        raise ArchitectureError(f"torch.export cannot export the {graph.modules['']}: {error}") from error
    return _differences(graph, "torch.export", _counted(exported.graph.nodes))


class _Tracer(fx.Tracer):
    """Traces through the modules of torch, too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Returns that no module is an operation."""
        return False


def _inputs(graph: OperationGraph) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The tensors that the model was given, by position and by name."""
    args: dict[int, Tensor] = {}
    kwargs: dict[str, Tensor] = {}
    for node in graph.inputs:
        key = node.name.removeprefix("inputs[").removesuffix("]")
        if "[" in key:
            raise ArchitectureError(f"{node.name!r} is a part of an input: give args= and kwargs=")
        value = graph.memory.first[node.name]
        if key.isdigit():
            args[int(key)] = value
        else:
            kwargs[key] = value
    return tuple(args[place] for place in sorted(args)), kwargs


def _counted(nodes: Iterable[fx.Node]) -> Counts:
    """The operations of another graph by module and function."""
    counts: Counts = Counter()
    for node in nodes:
        if node.op in ("call_function", "call_method"):
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            module = str(stack[-1][0]) if stack else ""
            counts[module, canonical_name(node.target)[0]] += 1
    return counts


def _differences(graph: OperationGraph, other: str, there: Counts) -> GraphDifferences:
    here: Counts = Counter((one.module, one.function) for one in graph if one.kind == "function")
    for counts in (here, there):
        for key in [key for key in counts if key[1] in _LEFT_OUT]:
            del counts[key]
    return GraphDifferences(
        other=other,
        both=(here & there).total(),
        only_here=_named(here - there),
        only_there=_named(there - here),
    )


def _named(counts: Counts) -> dict[str, int]:
    return {f"{module}/{function}": number for (module, function), number in counts.items()}
