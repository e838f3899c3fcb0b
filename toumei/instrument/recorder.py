"""Writes down the operations of a forward pass while it runs."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from types import FrameType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from ..core.functions import Function, canonical_name, overwrites
from ..core.generators import draw_of, rewinding_global
from ..core.modules import device_and_dtype
from ..core.offloading import has_offloaded
from ..core.outputs import has_tensor, main_tensor, tensor_parts
from ..core.untracked import graph_nodes_made, in_transform
from .attention_weights import AttentionWeights
from .graph import OperationGraph
from .nodes import Memory, Operation, TensorNode, shape_of
from .nodes_in_values import plain_with_nodes, with_nodes
from .source_lines import source_line
from .values import Keep, Values, memory_of

_READS = frozenset(("item", "tolist", "is_nonzero", "equal", "allclose", "numpy"))
_Known = tuple[ref[Tensor], TensorNode, int, int]


class Recorder:
    """A listener that writes down one forward pass; see `toumei.core.hooks.listening`.

    Args:
        model: The model.
        keep: Says of a result whether its value is kept.
        device: Where kept tensors go; by default they stay where they are.
        weights: Attention weights that are computed from the arguments of operations and kept.
    """

    def __init__(
        self,
        model: nn.Module,
        keep: Keep,
        device: torch.device | None = None,
        weights: Iterable[AttentionWeights] = (),
    ) -> None:
        self.values = Values(keep, device)
        self._weights = {node.producer: node for node in weights}
        self.done = False
        self._model = model
        self._operations: dict[str, Operation] = {}
        self._tensors: dict[str, TensorNode] = {}
        self._modules = {module: name for name, module in model.named_modules()}
        self._names = [""]  # of the modules that run, the innermost one last
        # For each of them the tensors that functions in it returned as they were given, as `to` may do, and
        # what they were known as before.
        self._passed_on: list[list[tuple[Tensor, _Known]]] = [[]]
        self._ran: Counter[tuple[str, str]] = Counter()
        # Each tensor of the pass by its id: a reference that tells whether the id is still its one, its node,
        # where its memory begins, and how many operations had run.
        self._known: dict[int, _Known] = {}
        self._overwritten: dict[int, tuple[int, Operation]] = {}  # what did it last, by where memory begins
        # Calls of custom autograd functions by the ids of their nodes of autograd, with the node itself.
        self._custom_calls: dict[int, tuple[ref[Any], Operation]] = {}
        self._touched: set[int] = set()  # where the memory of the arguments of a call begins
        self._returned: dict[str, list[str]] = {}
        self._inputs: list[TensorNode] = []
        self._output: Any = None
        self._error: str | None = None
        # Parameters and buffers by their ids, held here: others would get the ids of those that are offloaded
        # during the pass.
        self._named: dict[int, tuple[Tensor, str, str]] = {}
        self._offloaded = False
        self._attributes: dict[int, str] | None = None
        self._rewind: Callable[[], None] = lambda: None
        self._device, self._autocasts = "cpu", True
        self._begun, self._gradients = 0, True
        self._outside: FrameType | None = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Writes down the inputs."""
        self._named = {id(one): (one, name, "parameter") for name, one in self._model.named_parameters()}
        self._named |= {id(one): (one, name, "buffer") for name, one in self._model.named_buffers()}
        self._offloaded = has_offloaded(self._model)
        device = device_and_dtype(self._model)[0]
        self._device, self._rewind = device.type, rewinding_global(device)
        self._autocasts = torch.amp.is_autocast_available(device.type)  # not so on meta
        self._begun, self._gradients = graph_nodes_made(), torch.is_grad_enabled()
        self._outside = sys._getframe(2)  # of the engine, which told the tracker
        for key, value in [*enumerate(args), *kwargs.items()]:
            for part in tensor_parts(value):
                tensor = main_tensor(value, part)
                if isinstance(tensor, nn.Parameter) and id(tensor) in self._named:
                    continue
                name = f"inputs[{key}]" + "".join(f"[{one}]" for one in part)
                self._inputs.append(self._add(tensor, name, "input"))

    def end(self, output: Any) -> None:
        """Writes down the output."""
        self._output = plain_with_nodes(output, self._node_of)
        self._finish()

    def fail(self, error: BaseException) -> None:
        """Writes down what ended the pass."""
        self._error = f"{type(error).__name__}: {error}"
        self._finish()
        if self.values.results and (isinstance(error, MemoryError) or "memory" in str(error)):
            kept = self.values.described()
            if hasattr(error, "add_note"):  # from Python 3.11
                error.add_note(kept)
            else:
                error.args = (f"{error}\n{kept}", *error.args[1:])

    def enter(self, module: nn.Module) -> None:
        """Lets a module be the innermost one."""
        self._names.append(self._modules.get(module, self._names[-1]))
        self._passed_on.append([])

    def leave(self, module: nn.Module, output: Any) -> None:
        """Lets the module around it be the innermost one again."""
        if len(self._names) == 1:
            return
        name = self._names.pop()
        tensor = output if isinstance(output, Tensor) else _first_tensor(output)
        known = None if tensor is None else self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            self._returned.setdefault(known[1].name, []).append(name)
        for tensor, before in self._passed_on.pop():
            if any(main_tensor(output, part) is tensor for part in tensor_parts(output)):
                self._passed_on[-1].append((tensor, before))
            else:  # outside, the tensor is what was given to the module
                self._known[id(tensor)] = before

    def call(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function, and writes it down if it has to do with tensors."""
        if in_transform():  # whose tensors stand for others; what it returns is of unknown origin
            return function(*args, **kwargs)
        in_place = overwrites(function, kwargs) or "out" in kwargs
        given, draw = None, draw_of(function, args, kwargs)
        if in_place:  # while it is as the function finds it
            given = self._arguments(args, kwargs)
            self.values.before_overwriting(kwargs.get("out", args[:1]))
        start = perf_counter()
        output = function(*args, **kwargs)
        seconds = perf_counter() - start
        name = canonical_name(function)[0]
        if name.startswith("set__"):  # a private property of a tensor, in which torch keeps hooks
            return output
        results = args[0] if in_place and output is None and args else output
        read = name in _READS
        if not read and not _holds_tensors(results):
            return output
        operation = self._write(name, "read" if read else "function", given or self._arguments(args, kwargs))
        operation.callable, operation.seconds, operation.in_place = function, seconds, in_place
        if self._autocasts and torch.is_autocast_enabled(self._device):
            operation.autocast = self._device, torch.get_autocast_dtype(self._device)
        if torch.is_grad_enabled() != self._gradients:
            operation.gradients = not self._gradients
        operation.draw = draw
        if read:
            operation.value = output
        else:
            self._add_results(operation, results)
            if operation.name in self._weights:
                node = self._weights[operation.name]
                self.values.results[node.name] = node.of_call(args, kwargs)
        return output

    def moved(self, before: Tensor, after: Tensor) -> None:
        """Writes down that a tensor of the pass was copied to another device; weights are not."""
        known = self._known.get(id(before))
        if known is None or known[0]() is not before:
            return
        operation = self._write("to", "function", self._arguments((before, after.device), {}), label="moved")
        operation.callable = Tensor.to
        self._add_results(operation, after)

    def graph(self) -> OperationGraph:
        """Returns the graph of the pass."""
        memory = Memory(
            model=self._model,
            first=self.values.first,
            overwritten=frozenset(self.values.overwritten),
            rewind=self._rewind,
        )
        return OperationGraph(
            operations=self._operations,
            tensors=self._tensors,
            modules={name: type(module).__name__ for module, name in self._modules.items()},
            returned=self._returned,
            inputs=tuple(self._inputs),
            output=self._output,
            error=self._error,
            memory=memory,
        )

    def _finish(self) -> None:
        """Lets go of what only a running pass needs."""
        self.done, self._outside, self._attributes = True, None, None
        for held in (self._known, self._overwritten, self._named, self._custom_calls):
            held.clear()
        self._passed_on = [[]]

    def _arguments(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        self._touched.clear()
        return with_nodes(args, self._node_of), with_nodes(kwargs, self._node_of)

    def _write(self, name: str, kind: str, given: tuple[Any, Any], label: str | None = None) -> Operation:
        """Adds an operation of the innermost module, with another label than its function if one is given."""
        module, label = self._names[-1], label or name
        run = self._ran[module, label]
        self._ran[module, label] = run + 1
        operation = Operation(
            name=f"{module}/{label}#{run}",
            function=name,
            module=module,
            run=run,
            kind=kind,
            args=given[0],
            kwargs=given[1],
            outputs=[],
            source=source_line(self._outside, depth=2),
        )
        self._operations[operation.name] = operation
        return operation

    def _add_results(self, operation: Operation, results: Any) -> None:
        """Adds the tensors that an operation returned or overwrote."""
        parts = ((),) if isinstance(results, Tensor) else tensor_parts(results)
        for part in parts:
            tensor = main_tensor(results, part)
            before = self._known.get(id(tensor))
            if before is not None and before[0]() is tensor and not operation.in_place:
                self._passed_on[-1].append((tensor, before))
            name = operation.name + "".join(f"[{one}]" for one in part)
            node = self._add(tensor, name, "result", operation)
            operation.outputs.append(node)
            where = self._known[id(tensor)][2]
            if operation.in_place and where:
                self._overwritten[where] = len(self._operations), operation
            self.values.add(node, tensor)

    def _add(self, tensor: Tensor, name: str, kind: str, producer: Operation | None = None) -> TensorNode:
        """Adds a tensor."""
        where, nbytes = memory_of(tensor)
        node = TensorNode(
            name=name,
            kind=kind,
            shape=shape_of(tensor),
            dtype=tensor.dtype,
            device=tensor.device,
            nbytes=0 if where in self._touched else nbytes,
            producer=None if producer is None else producer.name,
        )
        self._tensors[name] = node
        self._known[id(tensor)] = ref(tensor), node, where, len(self._operations)
        if producer is None:
            self.values.begin_with(node, tensor)
        return node

    def _node_of(self, tensor: Tensor) -> TensorNode:
        """The node of a tensor as it is now."""
        known = self._known.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._begin_with(tensor)
            known = self._known[id(tensor)]
        _, node, where, number = known
        self._touched.add(where)
        overwritten = self._overwritten.get(where) if where else None
        if overwritten is not None and overwritten[0] > number:
            return self._changed_view(tensor, node, overwritten[1])
        if tensor.requires_grad and hasattr(tensor.grad_fn, "_forward_cls"):
            return self._custom(tensor, node)
        return node

    def _changed_view(self, tensor: Tensor, before: TensorNode, by: Operation) -> TensorNode:
        """Adds a tensor that shares memory with what an operation overwrote since the tensor was made."""
        name = f"{before.name.partition('@')[0]}@{by.name}"
        node = self._tensors.get(name)
        if node is None:
            node = self._add(tensor, name, "result", by)
            by.views.append((node, before))
        else:
            self._known[id(tensor)] = ref(tensor), node, self._known[id(tensor)][2], len(self._operations)
        return node

    def _custom(self, tensor: Tensor, node: TensorNode) -> TensorNode:
        """Adds the custom autograd function that a tensor went through unseen, if it is not there yet."""
        grad_fn: Any = tensor.grad_fn
        before, operation = self._custom_calls.get(id(grad_fn), (None, None))
        if operation is None or before is None or before() is not grad_fn:
            operation = self._write(grad_fn._forward_cls.__name__, "custom", ((), {}))
            self._custom_calls[id(grad_fn)] = ref(grad_fn), operation
        if self._comes_from(node, operation):
            return node
        name = operation.name + f"[{len(operation.outputs)}]" * bool(operation.outputs)
        operation.args = (*operation.args, node)
        operation.outputs.append(self._add(tensor, name, "result", operation))
        self.values.add(operation.outputs[-1], tensor)
        return operation.outputs[-1]

    def _comes_from(self, node: TensorNode, operation: Operation) -> bool:
        """Whether an operation returned a tensor, which then at most was told to need a gradient, say."""
        while node.producer is not None and node.producer != operation.name:
            producer = self._operations[node.producer]
            if not producer.in_place or not producer.inputs:
                return False
            node = producer.inputs[0]
        return node.producer == operation.name

    def _begin_with(self, tensor: Tensor) -> None:
        """Adds a tensor that no operation of the graph made."""
        if id(tensor) in self._named:
            self._add(tensor, *self._named[id(tensor)][1:])
            return
        if self._offloaded and (weight := self._loaded(tensor)):
            self._add_again(tensor, *weight)
            return
        grad_fn = tensor.grad_fn
        if grad_fn is not None and grad_fn._sequence_nr() >= self._begun:
            touched = set(self._touched)
            operation = self._write("untracked", "untracked", ((), {}))
            operation.value = str(grad_fn.name())
            operation.outputs.append(self._add(tensor, operation.name, "result", operation))
            self.values.add(operation.outputs[0], tensor)
            self._touched = touched
            return
        if self._attributes is None:
            self._attributes = _attributes(self._modules)
        name, kind = self._attributes.get(id(tensor)), "constant"
        if name is None or name in self._tensors:
            name, kind = f"unknown[{self._ran['', 'unknown']}]", "unknown"
            self._ran["", "unknown"] += 1
        self._add(tensor, name, kind)

    def _loaded(self, tensor: Tensor) -> tuple[str, str] | None:
        """Name and kind of a weight that was loaded for the innermost module; None for other tensors."""
        name = self._names[-1]
        module = self._model.get_submodule(name)
        for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
            for inner, one in tensors:
                if one is tensor:
                    return f"{name}.{inner}".lstrip("."), kind
        return None

    def _add_again(self, tensor: Tensor, name: str, kind: str) -> None:
        """Adds a weight, which may have been there, was offloaded, and was loaded once more."""
        node = self._tensors.get(name)
        if node is None:
            self._add(tensor, name, kind)
        else:
            self._known[id(tensor)] = ref(tensor), node, memory_of(tensor)[0], len(self._operations)


def _first_tensor(output: Any) -> Tensor | None:
    """The main tensor of a module's output, None if it has none."""
    return main_tensor(output) if has_tensor(output) else None


def _holds_tensors(results: Any) -> bool:
    if isinstance(results, Tensor):
        return True
    if not isinstance(results, tuple | list) or isinstance(results, torch.Size):
        return False
    return any(isinstance(one, Tensor) for one in results)


def _attributes(modules: Mapping[nn.Module, str]) -> dict[int, str]:
    """The names of tensors that modules hold as plain attributes or inside of them, by their ids."""
    return {
        id(tensor): f"{name}.{attribute}".lstrip(".") + "".join(f"[{key}]" for key in part)
        for module, name in modules.items()
        for attribute, value in vars(module).items()
        if not attribute.startswith("_")
        for part in tensor_parts(value)
        for tensor in [main_tensor(value, part)]
    }
