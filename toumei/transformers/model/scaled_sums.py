"""The operations of a language model as sums with factors: what is added to what, times which number."""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

import torch

from ...core.errors import ArchitectureError
from ...core.summaries import counted
from ...instrument import Operation, OperationGraph, TensorNode
from ...instrument.search.sources import TRANSPARENT
from .families import Anatomy

_SAME_NUMBERS = TRANSPARENT | {"detach", "getitem", "type_as"}


class ScaledSums:
    """A graph of the pass of two tokens through a language model.

    Args:
        parts: The parts of the model.
        graph: The graph.
    """

    def __init__(self, parts: Anatomy, graph: OperationGraph) -> None:
        self.parts, self.graph = parts, graph
        self._operations = list(graph)
        self._places = {operation.name: place for place, operation in enumerate(self._operations)}

    def producer(self, node: TensorNode) -> Operation | None:
        """Returns the operation that made a tensor."""
        return self.graph.producer(node)

    def place(self, node: TensorNode) -> int:
        """Returns the place of a tensor in the order of the pass; -1 for what it began with."""
        return -1 if node.producer is None else self._places[node.producer]

    def entry(self, module: str) -> TensorNode:
        """Returns the tensor that a module takes from the stream.

        Raises:
            ArchitectureError: It takes several, or none.
        """
        within = {one.name for one in self.graph if inside(one.module, module)}
        given = {
            node
            for name in within
            for node in self.graph.operations[name].inputs
            if node.producer not in within and self._is_stream(node)
        }
        if len(given) != 1:
            raise self.refusal(f"{module!r} takes {counted(len(given), 'tensor')}")
        return given.pop()

    def sums_below(self, final: TensorNode) -> dict[TensorNode, list[tuple[TensorNode, float]]]:
        """Returns the tensors on the way to the final norm, and what each is a sum of, with factors.

        They are in the order of the pass; a part is a sum of nothing.
        """
        found: dict[TensorNode, list[tuple[TensorNode, float]]] = {}
        waiting = [final]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = self._summands(node)
                waiting += [summand for summand, _ in found[node]]
        return {node: found[node] for node in sorted(found, key=self.place)}

    def _summands(self, node: TensorNode) -> list[tuple[TensorNode, float]]:
        operation = self.producer(node)
        if operation is None:
            return []
        if (before := passed(operation)) is not None:
            return [(before, 1.0)]
        nodes = [one for one in operation.args if isinstance(one, TensorNode)]
        if _is_addition(operation) and all(map(self._is_stream, nodes)):
            return [] if self._in_a_part(operation) else [(one, 1.0) for one in nodes]
        if scaled := self.scaled(operation):
            return [scaled]
        if operation.function in ("mul", "div") and any(map(self._is_sum, nodes)):
            raise self.refusal(f"{operation.name!r} multiplies the residual stream by a vector")
        return []

    def scaled(self, operation: Operation) -> tuple[TensorNode, float] | None:
        """Returns what an operation multiplies or divides by a number, and the factor; else None."""
        if operation.function not in ("mul", "div") or len(operation.args) != 2:
            return None
        first, second = operation.args
        if isinstance(second, TensorNode) and operation.function == "mul" and _is_number(first):
            first, second = second, first
        if not isinstance(first, TensorNode) or not _is_number(second):
            return None
        number = self._number(second)
        return first, number if operation.function == "mul" else 1 / number

    def ancestors(self, node: TensorNode) -> Iterator[Operation]:
        """Yields the operations that led to a tensor, the last ones first."""
        waiting: list[int] = []
        seen: set[int] = set()
        new = [node]
        while True:
            for place in {self.place(one) for one in new} - seen - {-1}:
                seen.add(place)
                heappush(waiting, -place)
            if not waiting:
                return
            operation = self._operations[-heappop(waiting)]
            yield operation
            new = operation.inputs

    def refusal(self, why: str) -> ArchitectureError:
        """Returns an error that says why a model cannot be taken apart."""
        model = type(self.parts.model).__name__
        return ArchitectureError(f"the residual stream of {model} ({self.parts.kind}) is not known: {why}")

    def _is_stream(self, node: TensorNode) -> bool:
        return _size(node) == 2 * self.parts.width and node.shape[-1] == self.parts.width

    def _in_a_part(self, operation: Operation) -> bool:
        """Whether attention or an MLP runs an operation, such as the sum of a layer and its adapter."""
        names = filter(None, (*self.parts.attentions, *self.parts.mlps))
        return any(inside(operation.module, name) for name in names)

    def _is_sum(self, node: TensorNode) -> bool:
        """Whether a block made a tensor as the sum of two of the stream's size."""
        while (operation := self.producer(node)) and (before := passed(operation)):
            node = before
        if operation is None or operation.module not in self.parts.blocks or not _is_addition(operation):
            return False
        return all(map(self._is_stream, operation.inputs))

    def _number(self, value: Any) -> float:
        return float(
            self.graph.replay(record=[value])[value.name] if isinstance(value, TensorNode) else value
        )


def passed(operation: Operation) -> TensorNode | None:
    """Returns the tensor whose numbers an operation hands on in their order; else None."""
    if operation.function not in _SAME_NUMBERS or len(operation.outputs) != 1 or not operation.inputs:
        return None
    before, after = operation.inputs[0], operation.outputs[0]
    return before if before.shape[-1:] == after.shape[-1:] and _size(before) == _size(after) else None


def inside(module: str, outer: str) -> bool:
    """Returns whether a module is another one or lies in it, by their names.

    Example:
        >>> inside("h.1.attn.c_proj", "h.1"), inside("h.11", "h.1")
        (True, False)
    """
    return module == outer or module.startswith(f"{outer}.")


def _is_addition(operation: Operation) -> bool:
    return operation.function == "add" and len(operation.inputs) == 2 and "alpha" not in operation.kwargs


def _is_number(value: Any) -> bool:
    return _size(value) == 1 if isinstance(value, TensorNode) else isinstance(value, int | float)


def _size(node: TensorNode) -> int:
    return torch.Size(node.shape).numel()
