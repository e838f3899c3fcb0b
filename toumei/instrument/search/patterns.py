"""A small language of patterns for chains and subgraphs of operations.

A pattern describes a tensor by how it was computed, from the last operation back to the first one: every
tensor has one producer, so that a search looks at each operation a bounded number of times. (The matcher of
`torch.fx` wants an example graph and knows no optional steps; isomorphism of subgraphs in networkx is
exponential.)

::

    Value("x")                          any tensor; the same name stands for the same tensor
    Weight("w")                         a parameter or buffer
    Constant(1.702)                     a number in the arguments; without one, any argument that is no tensor
    Step("mul", Value("x"), Constant(2))   what a function returns for these operands
    Skip("add|mul", of=...)             a tensor, and what any number of these functions made of it
    Either(..., ...)                    what fits one of several patterns
    chain("matmul", Skip("div|add"), "softmax")   steps one after the other

Operations that lay the numbers of a tensor out anew or cast them, and dropout, are passed over between steps.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from ...core.checks import answer_of, checked
from ...core.errors import ArgumentError
from ...core.function_kinds import CONVERSIONS, DROPOUTS, LAYOUT, TENSOR_PROPERTIES
from ...core.summaries import shortened
from ..graph import OperationGraph
from ..nodes import Operation, TensorNode

_PARTS = frozenset(
    ("select", "chunk", "split", "split_with_sizes", "unbind", "repeat", "tile", "roll", "flip", "rot90")
)
# What returns the numbers of its first argument, all of them, in their precision or another one.
TRANSPARENT = (LAYOUT - _PARTS) | CONVERSIONS | DROPOUTS | TENSOR_PROPERTIES - {"real", "imag"}
_COMMUTATIVE = frozenset(("add", "mul"))


@dataclass(frozen=True, eq=False)
class Match:
    """What fits a pattern: the named tensors and operations by their names.

    Attributes:
        groups: The tensors, operations and constants by their names in the pattern.
        operations: All operations of the match from the last to the first, without those passed over.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import Step, find, instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> (match,) = find(tracker.build_graph(), Step("relu", name="rectified"))
        >>> [operation.name for operation in match.operations]
        ['1/relu#0']
    """

    groups: Mapping[str, Any] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.groups[name]

    def __contains__(self, name: str) -> bool:
        return name in self.groups

    def __repr__(self) -> str:
        names = {name: str(getattr(one, "name", one)) for name, one in self.groups.items()}
        groups = [f"{name}={shortened(text, 40)!r}" for name, text in names.items()]
        more = f", and {len(groups) - 3} more" if len(groups) > 3 else ""
        return f"Match({', '.join(groups[:3])}{more})"

    @property
    def operation(self) -> Operation:
        """The last operation."""
        return self.operations[0]

    def through(self, operation: Operation) -> "Match":
        """Returns the match with another operation."""
        return Match(self.groups, (*self.operations, operation))

    def named(self, name: str | None, value: Any) -> "Match":
        """Returns the match with another group."""
        return self if name is None else Match({**self.groups, name: value}, self.operations)


class Pattern(ABC):
    """A description of a tensor, or of another argument, by how it was computed.

    Attributes:
        last: The functions that can have made the tensor, None where that is not known.

    Example:
        >>> from toumei.instrument import Step
        >>> isinstance(Step("relu"), Pattern)
        True
    """

    last: frozenset[str] | None = None

    @abstractmethod
    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the ways in which a value fits, given what was found before."""


@checked
@dataclass(frozen=True)
class Value(Pattern):
    """Any tensor; a name that stands several times in a pattern is the same tensor each time.

    Attributes:
        name: Its name in the match.
        of: A pattern that it fits as well.
        computed: Whether it must be no parameter or buffer.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import Step, find, instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> (match,) = find(tracker.build_graph(), Step("relu", Value("before")))
        >>> match.groups["before"].name
        '0/linear#0'
    """

    name: str | None = None
    of: Pattern | None = None
    computed: bool = False

    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the match if the value is such a tensor."""
        if not isinstance(value, TensorNode):
            return
        if self.computed and source(graph, value).kind in ("parameter", "buffer"):
            return
        if self.name not in found.groups:
            found = found.named(self.name, value)
            yield from [found] if self.of is None else self.of.matches(graph, value, found)
        elif source(graph, found[str(self.name)]) is source(graph, value):
            yield found


@checked
@dataclass(frozen=True)
class Weight(Pattern):
    """A parameter or buffer, or a part of one.

    Args:
        name: Under which a match keeps it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import Step, Value, find, instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> (match,) = find(tracker.build_graph(), Step("linear", Value(), Weight("weight")))
        >>> match.groups["weight"].name
        '0.weight'
    """

    name: str | None = None

    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the match if the value is a weight."""
        node = source(graph, value, TRANSPARENT | {"getitem"}) if isinstance(value, TensorNode) else None
        if node is not None and node.kind in ("parameter", "buffer"):
            yield found.named(self.name, node)


@checked
@dataclass(frozen=True)
class Constant(Pattern):
    """A number up to a thousandth, another argument that is equal, or any argument that is no tensor.

    Args:
        value: The number or argument; None for any.
        name: Under which a match keeps it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import Step, find, instrument
        >>> class Half(nn.Module):
        ...     def forward(self, x):
        ...         return (0.5 * x).relu()
        >>> with instrument(Half()) as probe, probe.track() as tracker:
        ...     _ = probe.model(torch.rand(1, 3))
        >>> len(list(find(tracker.build_graph(), Step("mul", Constant(0.5)))))
        1
    """

    value: Any = None
    name: str | None = None

    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the match if the argument is such a constant."""
        expected = found.groups.get(self.name, self.value) if self.name is not None else self.value
        if isinstance(value, TensorNode) or (expected is not None and not _equal(value, expected)):
            return
        yield found.named(self.name, value)


@checked
class Either(Pattern):
    """What fits one of several patterns; the first one that fits counts.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import Step, find, instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> len(list(find(tracker.build_graph(), Either(Step("gelu"), Step("relu")))))
        1
    """

    def __init__(self, *patterns: Pattern) -> None:
        self.patterns = patterns
        last = [one.last for one in patterns if one.last is not None]
        self.last = frozenset().union(*last) if len(last) == len(patterns) else None

    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the matches of each pattern."""
        for pattern in self.patterns:
            yield from pattern.matches(graph, value, found)


@checked
class Step(Pattern):
    """What a function returns.

    Args:
        functions: Canonical names of functions with ``|`` between them.
        *operands: Patterns of its first arguments. Sums and products take them in any order, and of several
            additions or multiplications in a row as well: ``Step("mul", x, y, z)``.
        name: Name of the operation in the match.
        of: A pattern of one of its tensors, whichever; `chain` sets it.
        where: Says of an operation whether it is meant.
        module: Types of the module that calls it, with ``|`` between them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import find, instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> len(list(find(tracker.build_graph(), Step("relu", Step("linear")))))
        1
    """

    def __init__(
        self,
        functions: str,
        *operands: Pattern,
        name: str | None = None,
        of: Pattern | None = None,
        where: Callable[[Operation], bool] | None = None,
        module: str | None = None,
    ) -> None:
        self.functions, self.operands, self.name = frozenset(functions.split("|")), operands, name
        self.of, self.where, self.last = of, where, self.functions
        self.modules = None if module is None else frozenset(module.split("|"))

    def __repr__(self) -> str:
        return f"Step({'|'.join(sorted(self.functions))!r})"

    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the ways in which the operation that made the value fits."""
        operation = self._operation(graph, value)
        if operation is None or not self._is_meant(graph, operation, found):
            return
        found = found.through(operation).named(self.name, operation)
        for values in _orders(graph, operation, len(self.operands)):
            for match in _all_match(graph, self.operands, values, found):
                if self.of is None:
                    yield match
                    continue
                for node in operation.inputs:
                    yield from self.of.matches(graph, node, match)

    def _operation(self, graph: OperationGraph, value: Any) -> Operation | None:
        """The operation that made a value, past those that only lay it out anew or cast it."""
        while isinstance(value, TensorNode):
            operation = _producer(graph, value)
            if operation is None or operation.function in self.functions:
                return operation
            if operation.function not in TRANSPARENT or not operation.inputs:
                return None
            value = operation.inputs[0]
        return None

    def _is_meant(self, graph: OperationGraph, operation: Operation, found: Match) -> bool:
        if self.name is not None and found.groups.get(self.name, operation) is not operation:
            return False
        if self.modules is not None and graph.modules[operation.module] not in self.modules:
            return False
        return self.where is None or answer_of("where", self.where(operation))


@checked
class Skip(Pattern):
    """A tensor that fits another pattern, or what some functions made of it.

    Args:
        functions: Canonical names of functions with ``|`` between them.
        of: The pattern of the tensor; `chain` sets it.
        most: How many operations there may be at most; by default any number. ``most=1`` is an optional step.
        where: Says of an operation whether it is meant.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.instrument import Step, find, instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(), nn.ReLU()).eval()
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> len(list(find(tracker.build_graph(), Step("relu", Skip("dropout", Step("linear"))))))
        1
    """

    def __init__(
        self,
        functions: str,
        of: Pattern | None = None,
        most: float = math.inf,
        where: Callable[[Operation], bool] | None = None,
    ) -> None:
        self.functions, self.most, self.where = frozenset(functions.split("|")), most, where
        self.of = Value() if of is None else of

    def __repr__(self) -> str:
        return f"Skip({'|'.join(sorted(self.functions))!r})"

    def matches(self, graph: OperationGraph, value: Any, found: Match) -> Iterator[Match]:
        """Yields the matches of the tensors that the functions lead back to, the nearest first."""
        seen: set[TensorNode] = set()
        waiting = [(value, found, 0)]
        while waiting:
            value, found, depth = waiting.pop()
            if not isinstance(value, TensorNode) or value in seen:
                continue
            seen.add(value)
            yield from self.of.matches(graph, value, found)
            operation = _producer(graph, value)
            if operation is None:
                continue
            meant = operation.function in self.functions and (
                self.where is None or answer_of("where", self.where(operation))
            )
            if meant and depth < self.most:
                further = found.through(operation)
                waiting += [(node, further, depth + 1) for node in reversed(operation.inputs)]
            elif operation.function in TRANSPARENT:
                waiting += [(node, found, depth) for node in operation.inputs[:1]]


@checked
def chain(*steps: str | Pattern) -> Pattern:
    """Returns the pattern of steps one after the other, the last of which made the tensor.

    Args:
        *steps: Functions with ``|`` between them, `Step` or `Skip`; the first may be any pattern.

    Raises:
        ArgumentError: Something else, or nothing.

    Example:
        >>> chain("matmul", Skip("div|add"), Step("softmax", name="weights"), "matmul")
        Step('matmul')
    """
    patterns = [Step(step) if isinstance(step, str) else step for step in steps]
    if not patterns or not isinstance(patterns[0], Pattern):
        raise ArgumentError(f"expected functions or patterns as steps, got {steps!r}")
    made = patterns[0]
    for pattern in patterns[1:]:
        if not isinstance(pattern, Step | Skip):
            raise ArgumentError(f"expected functions, Step or Skip after the first step, got {pattern!r}")
        pattern = copy(pattern)
        pattern.of, made = made, pattern
    return made


def source(graph: OperationGraph, node: TensorNode, functions: frozenset[str] = TRANSPARENT) -> TensorNode:
    """Returns the tensor that some functions made a tensor of, by default those that keep its numbers."""
    while (operation := _producer(graph, node)) is not None:
        if operation.function not in functions or not operation.inputs:
            break
        node = operation.inputs[0]
    return node


def _producer(graph: OperationGraph, node: TensorNode) -> Operation | None:
    """The operation that made a tensor of this graph, without a search for its name."""
    return None if node.producer is None else graph.operations[node.producer]


def arguments(operation: Operation) -> list[Any]:
    """Returns the arguments of an operation in their order, tensors in lists one by one."""
    found: list[Any] = []
    for value in (*operation.args, *operation.kwargs.values()):
        if isinstance(value, list | tuple) and any(isinstance(one, TensorNode) for one in value):
            found += value
        else:
            found.append(value)
    return found


def _orders(graph: OperationGraph, operation: Operation, count: int) -> Iterator[tuple[Any, ...]]:
    """The arguments of an operation as so many operands; those of sums and products in all orders."""
    values = arguments(operation)
    if operation.function not in _COMMUTATIVE:
        if len(values) >= count:
            yield tuple(values[:count])
        return
    for flat in _flattened(graph, operation.function, values[:2], count):
        yield from permutations(flat, count)


def _flattened(graph: OperationGraph, function: str, values: list[Any], count: int) -> Iterator[list[Any]]:
    """The operands of several additions or multiplications in a row."""
    if len(values) >= count:
        yield values
        return
    for place, value in enumerate(values):
        node = source(graph, value) if isinstance(value, TensorNode) else None
        inner = None if node is None else _producer(graph, node)
        if inner is not None and inner.function == function:
            more = [*values[:place], *arguments(inner)[:2], *values[place + 1 :]]
            yield from _flattened(graph, function, more, count)


def _all_match(
    graph: OperationGraph, patterns: tuple[Pattern, ...], values: tuple[Any, ...], found: Match
) -> Iterator[Match]:
    if not patterns:
        yield found
        return
    for match in patterns[0].matches(graph, values[0], found):
        yield from _all_match(graph, patterns[1:], values[1:], match)


def _equal(value: Any, expected: Any) -> bool:
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers:
        return math.isclose(value, expected, rel_tol=1e-3)
    return type(value) is type(expected) and bool(value == expected)
