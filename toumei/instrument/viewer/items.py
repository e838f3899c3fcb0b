"""What a picture of a graph consists of: operations, modules with items in them, and repeated modules."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..nodes import Operation, TensorNode


class ForwardPass(Protocol):
    """The operations and tensors of a forward pass, whole or cut out; see `OperationGraph`."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """The operations by name, in the order in which they ran."""

    @property
    def tensors(self) -> Mapping[str, TensorNode]:
        """The tensors by name."""

    @property
    def modules(self) -> Mapping[str, str]:
        """Types of modules by name."""

    @property
    def outputs(self) -> tuple[TensorNode, ...]:
        """The tensors in the output of the model."""

    @property
    def error(self) -> str | None:
        """What ended the pass early, None if nothing did."""


@dataclass(eq=False, slots=True)
class Item:
    """A box of the picture: an operation, or a part of the pass with items in it.

    Attributes:
        title: Name within the item around it.
        path: Name of the module, empty for the model. Several items have the path of a module that ran
            several times with other operations in between.
        type: Class of the module; for a row of repeated modules also how many there are. Empty for an
            operation that is called beside others in its module.
        operation: The operation, None for an item with other items in it.
        children: The items in it, in the order in which they ran.
        repeats: How many equal modules the children are, 0 where they are no repeats of one another.
    """

    title: str
    path: str
    type: str
    operation: Operation | None = None
    children: list["Item"] = field(default_factory=list)
    repeats: int = 0

    def __repr__(self) -> str:
        if self.operation is not None:
            return f"Item({self.operation.name!r})"
        return f"Item({self.path!r}, {self.type}, {len(self.children)} children)"

    def operations(self) -> Iterator[Operation]:
        """Yields the operations in it, in their order."""
        for item in self.everything():
            if item.operation is not None:
                yield item.operation

    def everything(self) -> Iterator["Item"]:
        """Yields the item and all items in it, each before those in it."""
        waiting = [self]
        while waiting:
            item = waiting.pop()
            yield item
            waiting += reversed(item.children)


def shape_text(node: TensorNode) -> str:
    """Returns the shape of a tensor as text.

    Example:
        >>> import torch
        >>> shape_text(TensorNode("x", "input", (8,), torch.float32, torch.device("cpu"), 32))
        '8'
    """
    return "\u00d7".join(map(str, node.shape)) or "scalar"


def activations(nodes: Iterable[TensorNode]) -> list[TensorNode]:
    """Returns the tensors that are drawn as edges: results and inputs, not parameters, buffers, constants."""
    return [node for node in nodes if node.kind in ("result", "input")]
