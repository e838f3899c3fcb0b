"""Patterns that are made of others: an alternative, what a function returns, and steps in a row."""

import math
from collections.abc import Callable, Iterator
from copy import copy
from itertools import permutations
from typing import Any

from ....core.checks import answer_of, checked
from ....core.errors import ArgumentError
from ...graph import OperationGraph
from ...nodes import Operation, TensorNode
from ..sources import arguments, passed_over, producer, source
from .base import Match, Pattern
from .operands import Value

_COMMUTATIVE = frozenset(("add", "mul"))


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
            operation = producer(graph, value)
            if operation is None or operation.function in self.functions:
                return operation
            value = passed_over(operation, value)
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
            operation = producer(graph, value)
            if operation is None:
                continue
            meant = operation.function in self.functions and (
                self.where is None or answer_of("where", self.where(operation))
            )
            if meant and depth < self.most:
                further = found.through(operation)
                waiting += [(node, further, depth + 1) for node in reversed(operation.inputs)]
            else:
                waiting.append((passed_over(operation, value), found, depth))


@checked
def chain(*steps: str | Pattern) -> Pattern:
    """Returns the pattern of steps one after the other; the last one made the tensor.

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
        inner = None if node is None else producer(graph, node)
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
