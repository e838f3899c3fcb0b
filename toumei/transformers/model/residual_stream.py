"""What is added to the residual stream, and how it is read out, found in the graph of operations of a pass.

The stream before the final norm is a sum. `residual_stream` follows it backwards through additions, factors,
dropout and changes of form or precision; what it ends at are the parts. So post-norms, parallel blocks and
scaled residuals need no rule of their own, and nothing that is added can be missed. In the same way it
follows the logits back to the final norm: factors, soft caps and linear maps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import torch

from ...core.checks import checked
from ...core.errors import ArchitectureError
from ...core.modules import evaluating
from ...instrument import Operation, OperationGraph, TensorNode, instrument
from .families import Anatomy

_PASSING = frozenset(
    ("clone", "contiguous", "detach", "dropout", "flatten", "float", "getitem", "reshape", "squeeze")
    + ("to", "type_as", "unsqueeze", "view")
)
_LINEAR = frozenset(("addmm", "linear", "matmul"))


@dataclass(frozen=True)
class StreamPart:
    """A tensor that is added to the residual stream.

    Attributes:
        name: The engine's name of the tensor.
        kind: ``"embedding"``, ``"positions"``, ``"attention"``, ``"MLP"`` or the name of another module.
        layer: The block that adds it, None before the first one.
        factor: By what it is multiplied on its way to the final norm.
        bias: Name of the bias that is part of it, or None.
        norm: Name of the norm after the projection, or None.
        projection: Name of the linear map of all heads or neurons whose result it is, or None.
    """

    name: str
    kind: str
    layer: int | None
    factor: float
    bias: str | None
    norm: str | None
    projection: str | None

    @property
    def label(self) -> str:
        """Its kind and layer, as in ``"attention 3"``."""
        return self.kind if self.layer is None else f"{self.kind} {self.layer}"


@dataclass(frozen=True)
class ResidualStream:
    """The residual stream of a model.

    Attributes:
        parts: What is added to it, in the order of the pass.
        embedding: Name of the stream before the first block.
        middles: Names of the stream between attention and MLP in each block, None where there is none.
        final: Name of the stream as the final norm takes it.
        maps: Names of the linear maps from the final norm to the logits; the last one is the head.
        factor: By what the logits are multiplied after them.
        capped: Whether a soft cap bounds the logits.
    """

    parts: tuple[StreamPart, ...]
    embedding: str
    middles: tuple[str | None, ...]
    final: str
    maps: tuple[str, ...]
    factor: float
    capped: bool


@checked
def residual_stream(parts: Anatomy) -> ResidualStream:
    """Returns what a model adds to its residual stream and how it reads it out, from a pass of two tokens.

    Args:
        parts: The parts of the model.

    Raises:
        ArchitectureError: The stream is no sum, or the logits are no linear function of it where scales of
            norms are constant and soft caps are left out; the message names the operation.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import anatomy
        >>> stream = residual_stream(anatomy(facts_gpt()[0]))
        >>> [part.label for part in stream.parts[:4]]
        ['embedding', 'positions', 'attention 0', 'MLP 0']
        >>> stream.parts[2].name, stream.parts[2].bias
        ('transformer.h.0.attn.c_proj/addmm#0', 'transformer.h.0.attn.c_proj.bias')
    """
    with torch.no_grad(), evaluating(parts.model), instrument(parts.model) as probe:
        with probe.track(only=[]) as tracker:
            parts.model(parts.two_tokens, use_cache=False)
    return _Search(parts, tracker.build_graph()).result()


class _Search:
    """The search in one graph."""

    def __init__(self, parts: Anatomy, graph: OperationGraph) -> None:
        self.parts, self.graph = parts, graph
        self.places = {operation.name: place for place, operation in enumerate(graph)}

    def result(self) -> ResidualStream:
        final, maps, factor, capped = self.read_out()
        nodes = self.sums_below(final)
        terms: dict[TensorNode, dict[TensorNode, float]] = {}
        for node, summands in nodes.items():
            terms[node] = {} if summands else {node: 1.0}
            for summand, times in summands:
                for term, so_far in terms[summand].items():
                    terms[node][term] = terms[node].get(term, 0.0) + times * so_far
        found = {term: self.part(term, times) for term, times in terms[final].items()}
        return ResidualStream(
            parts=tuple(found[term] for term in sorted(found, key=self.place)),
            embedding=self.state(terms, found, lambda part: part.layer is None) or final.name,
            middles=tuple(self.middle(terms, found, layer) for layer in range(self.parts.layers)),
            final=final.name,
            maps=tuple(maps),
            factor=factor,
            capped=capped,
        )

    def place(self, node: TensorNode) -> int:
        return -1 if node.producer is None else self.places[node.producer]

    # ------------------------------------------------------------ from the logits to the final norm

    def read_out(self) -> tuple[TensorNode, list[str], float, bool]:
        """The stream that the final norm takes, the linear maps after it, their factor, soft caps."""
        node, maps, factor, capped = self.graph.outputs[0], [], 1.0, False
        while True:
            operation = self.graph.producer(node)
            if operation is not None and self.parts.norm and _inside(operation.module, self.parts.norm):
                return self.entry(self.parts.norm), maps[::-1], factor, capped
            if maps and self.parts.norm is None and (operation is None or operation.function == "add"):
                return node, maps[::-1], factor, capped
            before = None if operation is None else _passed(operation)
            if operation is None:
                raise self.refusal("the logits do not come from the final norm")
            if before is None and operation.function == "tanh":
                before, capped = operation.inputs[0], True
            elif before is None and operation.function in _LINEAR and operation.module:
                before = operation.inputs[operation.function == "addmm"]
                maps.append(operation.module)
            elif before is None and (scaled := self.scaled(operation)):
                before, factor = scaled[0], factor * scaled[1]
            elif before is None:
                raise self.refusal(f"{operation.name!r} between final norm and logits is not linear")
            node = before

    def entry(self, module: str) -> TensorNode:
        """The tensor that a module takes."""
        inside = {one.name for one in self.graph if _inside(one.module, module)}
        given = [
            node
            for name in inside
            for node in self.graph.operations[name].inputs
            if node.producer not in inside and node.shape[-1:] == (self.parts.width,) and self.is_stream(node)
        ]
        if len(set(given)) != 1:
            raise self.refusal(f"{module!r} takes {len(set(given))} tensors")
        return given[0]

    # ------------------------------------------------------------ from the final norm to the parts

    def sums_below(self, final: TensorNode) -> dict[TensorNode, list[tuple[TensorNode, float]]]:
        """Nodes of which the stream is a sum, with their summands and factors; in the order of the pass."""
        found: dict[TensorNode, list[tuple[TensorNode, float]]] = {}
        waiting = [final]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = self.summands(node)
                waiting += [summand for summand, _ in found[node]]
        return {node: found[node] for node in sorted(found, key=self.place)}

    def summands(self, node: TensorNode) -> list[tuple[TensorNode, float]]:
        """What a tensor is a sum of, with factors; nothing for a part."""
        operation = self.graph.producer(node)
        if operation is None:
            return []
        if (before := _passed(operation)) is not None:
            return [(before, 1.0)]
        nodes = [one for one in operation.args if isinstance(one, TensorNode)]
        if operation.function == "add" and len(nodes) == 2 and "alpha" not in operation.kwargs:
            if all(map(self.is_stream, nodes)):
                return [(one, 1.0) for one in nodes]
        if scaled := self.scaled(operation):
            return [scaled]
        if operation.function in ("mul", "div") and any(map(self.is_sum, nodes)):
            raise self.refusal(f"{operation.name!r} multiplies the residual stream by a vector")
        return []

    def is_stream(self, node: TensorNode) -> bool:
        return torch.Size(node.shape).numel() == 2 * self.parts.width and node.shape[-1] == self.parts.width

    def is_sum(self, node: TensorNode) -> bool:
        """Whether a block made a tensor as the sum of two of the stream's size."""
        while (operation := self.graph.producer(node)) and (before := _passed(operation)):
            node = before
        if operation is None or operation.module not in self.parts.blocks or operation.function != "add":
            return False
        return len(operation.inputs) == 2 and all(map(self.is_stream, operation.inputs))

    def scaled(self, operation: Operation) -> tuple[TensorNode, float] | None:
        """What an operation multiplies or divides by a number, and the factor."""
        if operation.function not in ("mul", "div") or len(operation.args) != 2:
            return None
        first, second = operation.args
        if isinstance(second, TensorNode) and operation.function == "mul" and _is_number(first):
            first, second = second, first
        if not isinstance(first, TensorNode) or not _is_number(second):
            return None
        number = self.number(second)
        return first, number if operation.function == "mul" else 1 / number

    def number(self, value: Any) -> float:
        return float(
            self.graph.replay(record=[value])[value.name] if isinstance(value, TensorNode) else value
        )

    # ------------------------------------------------------------ what the parts are

    def part(self, node: TensorNode, factor: float) -> StreamPart:
        kind, layer = self.origin(node)
        operation = self.graph.producer(node)
        norm, projection = None, operation
        if operation is not None and "norm" in self.graph.modules.get(operation.module, "").lower():
            norm = operation.module
            inner: TensorNode | None = self.entry(norm)
            while inner is not None:
                projection = self.graph.producer(inner)
                inner = None if projection is None else _passed(projection)
        linear = layer is not None and projection is not None and projection.function in _LINEAR
        bias = None if operation is None else _bias(operation)
        return StreamPart(
            name=node.name,
            kind=kind,
            layer=layer,
            factor=factor,
            bias=bias,
            norm=norm,
            projection=projection.module if linear and projection is not None else None,
        )

    def origin(self, node: TensorNode) -> tuple[str, int | None]:
        """The kind and the layer of a part: those of the last attention, MLP or embedding that led to it."""
        operation = self.graph.producer(node)
        at = "" if operation is None else operation.module
        block = next((one for one in self.parts.blocks if _inside(at, one)), None)
        layer = None if block is None else self.parts.blocks.index(block)
        for operation in self.ancestors(node):
            if layer is None and _inside(operation.module, self.parts.embedding):
                return "embedding", None
            if block is not None and not _inside(operation.module, block):
                break
            if layer is not None:
                for kind, names in (("attention", self.parts.attentions), ("MLP", self.parts.mlps)):
                    if (name := names[layer]) and _inside(operation.module, name):
                        return kind, layer
        if block is None:
            return "positions", None
        return at[len(block) + 1 :].split(".")[0] or "block", layer

    def ancestors(self, node: TensorNode) -> Iterator[Operation]:
        """The operations that led to a tensor, the last ones first."""
        waiting: list[int] = []
        seen: set[int] = set()
        operations = list(self.graph)
        new = [node]
        while True:
            for place in {self.place(one) for one in new} - seen - {-1}:
                seen.add(place)
                heappush(waiting, -place)
            if not waiting:
                return
            operation = operations[-heappop(waiting)]
            yield operation
            new = operation.inputs

    def middle(self, terms: Any, found: dict[TensorNode, StreamPart], layer: int) -> str | None:
        """The name of the stream after attention, before the MLP."""

        def wanted(part: StreamPart) -> bool:
            before = part.layer is None or part.layer < layer
            return before or (part.layer == layer and part.kind == "attention")

        has_attention = any(part.layer == layer and part.kind == "attention" for part in found.values())
        return self.state(terms, found, wanted) if has_attention else None

    def state(self, terms: Any, found: dict[TensorNode, StreamPart], wanted: Any) -> str | None:
        """The name of the tensor that is the sum of some parts."""
        chosen = {term for term, part in found.items() if wanted(part)}
        same = [node for node, inside in terms.items() if inside.keys() == chosen]
        return same[-1].name if same else None

    def refusal(self, why: str) -> ArchitectureError:
        model = type(self.parts.model).__name__
        return ArchitectureError(f"the residual stream of {model} ({self.parts.kind}) is not known: {why}")


def _passed(operation: Operation) -> TensorNode | None:
    """The tensor whose numbers an operation hands on in their order."""
    if operation.function not in _PASSING or len(operation.outputs) != 1 or not operation.inputs:
        return None
    before, after = operation.inputs[0], operation.outputs[0]
    return before if before.shape[-1:] == after.shape[-1:] and _sizes(before) == _sizes(after) else None


def _sizes(node: TensorNode) -> int:
    return torch.Size(node.shape).numel()


def _is_number(value: Any) -> bool:
    if isinstance(value, TensorNode):
        return _sizes(value) == 1
    return isinstance(value, int | float)


def _bias(operation: Operation) -> str | None:
    """The name of the bias that a linear map or a norm adds at its end."""
    place = {"linear": 2, "addmm": 0, "layer_norm": 3}.get(operation.function)
    if place is None:
        return None
    given = operation.kwargs.get("bias", operation.args[place] if place < len(operation.args) else None)
    return given.name if isinstance(given, TensorNode) and given.kind == "parameter" else None


def _inside(module: str, outer: str) -> bool:
    return module == outer or module.startswith(f"{outer}.")
