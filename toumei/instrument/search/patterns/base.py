"""What all patterns are, and what is found by one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....core.summaries import shortened
from ...graph import OperationGraph
from ...nodes import Operation


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
