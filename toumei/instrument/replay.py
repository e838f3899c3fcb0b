"""Computes a forward pass again from its graph, operation by operation."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ReplayError
from ..core.generators import rewinding_global
from ..core.modules import device_and_dtype
from ..core.outputs import main_tensor, tensor_parts
from ..core.summaries import listed
from .nodes import Memory, Operation, TensorNode, with_values


def replayed(
    operations: list[Operation],
    begin: list[TensorNode],
    ends: list[TensorNode],
    given: Mapping[TensorNode, Tensor],
    memory: Memory,
) -> dict[TensorNode, Tensor]:
    """Returns the values of tensors after the operations of a pass that they depend on have run again.

    Args:
        operations: All operations of the pass, in their order.
        begin: The tensors that it began with.
        ends: The tensors whose values are wanted.
        given: Values in place of those of the pass.
        memory: Everything else.

    Raises:
        ReplayError: An operation that cannot be computed again.
    """
    go_back = rewinding_global(device_and_dtype(memory.model)[0])
    states: dict[torch.Generator, Tensor] = {}  # of generators that the model has
    for operation in operations:
        generator = None if operation.draw is None else operation.draw.generator
        if generator is not None:
            states.setdefault(generator, generator.get_state())
    try:
        memory.rewind()
        return _Replay(_needed(operations, ends, given), begin, ends, given, memory).run()
    finally:
        go_back()
        for generator, state in states.items():
            generator.set_state(state)


class _Replay:
    """The values of tensors while the operations run again."""

    def __init__(
        self,
        operations: list[Operation],
        begin: list[TensorNode],
        ends: list[TensorNode],
        given: Mapping[TensorNode, Tensor],
        memory: Memory,
    ) -> None:
        self._operations, self._memory = operations, memory
        self._last = _last_uses(operations, ends)
        self._ends, self._overwriting = set(ends), any(one.in_place for one in operations)
        self._given = {node: self._usable(value, self._overwriting) for node, value in given.items()}
        self._as_in_the_pass = all(
            node.kind == "input" and _equal(value, memory.first[node.name]) for node, value in given.items()
        )
        self._values = {node: self._first_value(node) for node in begin if node in self._last}

    def run(self) -> dict[TensorNode, Tensor]:
        """Runs the operations that are needed and returns the values that are still there."""
        found: dict[TensorNode, Tensor] = {}
        for operation in self._operations:
            self._run(operation)
            if self._overwriting:  # later operations may write into what is asked for
                for node in self._ends.intersection(operation.written):
                    found[node] = self._values[node].clone()
            for node in [*operation.inputs, *operation.written]:
                if self._last.get(node) is operation or node not in self._last:
                    self._values.pop(node, None)
        return self._values | found

    def _first_value(self, node: TensorNode) -> Tensor:
        """The value of a tensor that the pass began with; what the pass overwrites is a copy."""
        if node in self._given:
            value = self._given[node]
        elif node.kind in ("parameter", "buffer"):
            value = self._memory.weight(node)
        elif node.kind == "unknown" and not self._as_in_the_pass:
            raise ReplayError(
                f"it is not known what made {node.name!r} of shape {node.shape}, and whether it follows from "
                f"the given values: give its value too, replay({{..., {node.name!r}: tensor}})"
            )
        else:
            value = self._memory.first[node.name]
        overwritten = node.kind == "buffer" or node.name in self._memory.overwritten
        return value.detach().clone() if overwritten else self._usable(value)

    @staticmethod
    def _usable(value: Tensor, copied: bool = False) -> Tensor:
        """A copy of a tensor that may be overwritten, or that inference mode made and autograd refuses."""
        refused = value.is_inference() and not torch.is_inference_mode_enabled()
        return value.clone() if copied or refused else value

    def _run(self, operation: Operation) -> None:
        given = operation.outputs and all(node in self._given for node in operation.outputs)
        if given and not operation.in_place:
            for node in operation.outputs:
                self._values[node] = self._given[node]
            return
        results = self._results(operation)
        for node, result in zip(operation.outputs, results, strict=True):
            if node in self._given:
                if operation.in_place:
                    result.copy_(self._given[node])
                else:
                    result = self._given[node]
            self._values[node] = result
        for after, before in operation.views:
            if before in self._values:
                self._values[after] = self._values[before]

    def _results(self, operation: Operation) -> list[Tensor]:
        """The tensors that an operation returns or overwrites, in the order of its outputs."""
        if operation.kind == "untracked":
            raise ReplayError(
                f"{operation.name!r} ({operation.value}) is not seen by functions of torch and cannot be "
                f"computed again: give its value, replay({{{operation.name!r}: tensor}})"
            )
        args, kwargs = with_values((operation.args, operation.kwargs), self._values)
        if operation.kind == "custom":
            return list(args)
        try:
            output = _called(operation, args, kwargs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = listed(tuple(one.shape) for one in args if isinstance(one, Tensor))
            raise ReplayError(
                f"{operation.name!r} ({operation.line}) cannot take tensors of the shapes {shapes}: {error}"
            ) from error
        if operation.kind == "read":
            self._check_read(operation, output)
            return []
        if operation.in_place and output is None:
            output = args[0]
        return _tensors_in(output)

    def _check_read(self, operation: Operation, value: Any) -> None:
        """Raises an error where Python read another number: the model may have gone on in another way."""
        if not _same(value, operation.value):
            raise ReplayError(
                f"the model read a number with {operation.name!r} ({operation.line}). With these values "
                f"it is another number, and the model may do something else: run the model"
            )


def _called(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation returns in the blocks that it ran in."""
    assert operation.callable is not None
    with ExitStack() as blocks:
        if operation.gradients is not None:
            blocks.enter_context(torch.set_grad_enabled(operation.gradients))
        if operation.autocast is not None:
            blocks.enter_context(torch.autocast(*operation.autocast))
        if operation.draw is not None:
            blocks.enter_context(operation.draw.again())
        return operation.callable(*args, **kwargs)


def _tensors_in(output: Any) -> list[Tensor]:
    """Returns the tensors in what a function returned, the main tensor first, as the graph lists them."""
    return [main_tensor(output, part) for part in tensor_parts(output)]


def _needed(
    all_operations: list[Operation], ends: list[TensorNode], given: Mapping[TensorNode, Tensor]
) -> list[Operation]:
    """The operations that the ends depend on, in their order, with all that overwrite tensors."""
    needed = {node.name for node in ends}
    operations = []
    for operation in reversed(all_operations):
        wanted = any(node.name in needed for node in operation.written)
        if wanted or operation.kind == "read" or operation.in_place:
            operations.append(operation)
            known = operation.outputs and all(node in given for node in operation.outputs)
            if not known or operation.in_place:
                needed.update(node.name for node in operation.inputs)
                needed.update(before.name for _, before in operation.views)
    return operations[::-1]


def _last_uses(operations: list[Operation], ends: list[TensorNode]) -> dict[TensorNode, Operation | None]:
    """The last operation that uses each tensor; None for those that are asked for."""
    last: dict[TensorNode, Operation | None] = {}
    for operation in operations:
        for node in [*operation.inputs, *(before for _, before in operation.views)]:
            last[node] = operation
    return last | dict.fromkeys(ends)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of the same shape are of one kind and have the same numbers."""
    kinds = {(value.dtype, value.device, value.layout) for value in (one, other)}
    return kinds == {(one.dtype, one.device, torch.strided)} and torch.equal(one, other)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or not hasattr(one, "tobytes"):
        return bool(one == other) or one != one
    return bool(one.tobytes() == other.tobytes())
