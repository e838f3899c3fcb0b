"""Patterns of single operands: any tensor, a weight, a constant."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ....core.checks import checked
from ...graph import OperationGraph
from ...nodes import TensorNode
from ..sources import TRANSPARENT, source
from .base import Match, Pattern


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


def _equal(value: Any, expected: Any) -> bool:
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers:
        return math.isclose(value, expected, rel_tol=1e-3)
    return type(value) is type(expected) and bool(value == expected)
