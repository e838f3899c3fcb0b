"""Which tensors, each times a number, sum to the stream before the final norm, and how logits follow from it.

It is found in the graph of a pass of a language model: direct logit attribution and lenses stand on it. Every
tensor that is added is a part, also of state space models, with a factor, its norm and its bias, which
`stream_sums` does not say; that says which partial sum each layer reads.

The stream before the final norm is a sum. `residual_stream` follows it backwards through additions, factors,
dropout and changes of form or precision; what it ends at are the parts. So post-norms, parallel blocks and
scaled residuals need no special rule, and nothing that is added can be missed. In the same way it
follows the logits back to the final norm: factors, soft caps and linear maps.
"""

from collections.abc import Callable, Mapping

import torch

from ...core.checks import checked
from ...core.linear_layers import without_adapter
from ...core.modules import evaluating
from ...instrument import Operation, TensorNode, instrument
from .families import Anatomy
from .scaled_sums import ScaledSums, inside, passed
from .stream_parts import ResidualStream, StreamPart

_LINEAR = frozenset(("addmm", "linear", "matmul"))
_BIAS = {"addmm": 0, "linear": 2, "layer_norm": 3}  # its place among the arguments
_WEIGHTED_SUMS = {"bmm": 1, "matmul": 1, "scaled_dot_product_attention": 2}  # the place of what they sum up
Terms = dict[TensorNode, dict[TensorNode, float]]


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
    with (
        torch.no_grad(),
        evaluating(parts.model),
        instrument(parts.model) as probe,
        probe.track(only=[]) as tracker,
    ):
        parts.model(parts.two_tokens, use_cache=False)
    graph = ScaledSums(parts, tracker.build_graph())
    final, maps, factor, capped = _read_out(graph)
    terms = _terms(graph, final)
    found = {term: _part(graph, term, times) for term, times in terms[final].items()}
    start = _state(terms, found, lambda part: part.layer is None)
    return ResidualStream(
        parts=tuple(found[term] for term in sorted(found, key=graph.place)),
        embedding=start or final.name,
        middles=tuple(_middle(terms, found, layer) for layer in range(parts.layers)),
        final=final.name,
        maps=maps,
        factor=factor,
        capped=capped,
    )


def _read_out(graph: ScaledSums) -> tuple[TensorNode, tuple[str, ...], float, bool]:
    """The stream that the final norm takes, the linear maps after it, their factor, whether a cap follows.

    A soft cap c tanh(x / c) is followed as if it were x: the factors cancel.
    """
    norm = graph.parts.norm
    node, maps, factor, capped = graph.graph.outputs[0], list[str](), 1.0, False
    while True:
        operation = graph.producer(node)
        if operation is not None and norm and inside(operation.module, norm):
            return graph.entry(norm), tuple(maps[::-1]), factor, capped
        if maps and norm is None and (operation is None or operation.function == "add"):
            return node, tuple(maps[::-1]), factor, capped
        if operation is None:
            raise graph.refusal("the logits do not come from the final norm")
        if (before := passed(operation)) is not None:
            node = before
        elif scaled := graph.scaled(operation):
            node, factor = scaled[0], factor * scaled[1]
        elif operation.function == "tanh":
            node, capped = operation.inputs[0], True
        elif operation.function in _LINEAR and operation.module:
            node = operation.inputs[operation.function == "addmm"]
            maps.append(operation.module)
        else:
            raise graph.refusal(f"{operation.name!r} between final norm and logits is not linear")


def _terms(graph: ScaledSums, final: TensorNode) -> Terms:
    """The parts that sum to each tensor on the way to the final norm, with their factors."""
    terms: Terms = {}
    for node, summands in graph.sums_below(final).items():
        terms[node] = {} if summands else {node: 1.0}
        for summand, times in summands:
            for term, factor in terms[summand].items():
                terms[node][term] = terms[node].get(term, 0.0) + times * factor
    return terms


def _part(graph: ScaledSums, node: TensorNode, factor: float) -> StreamPart:
    """What a tensor is that is added to the stream."""
    kind, layer = _origin(graph, node)
    operation = graph.producer(node)
    norm, last = None, operation
    if operation is not None and "norm" in graph.graph.modules.get(operation.module, "").lower():
        norm = operation.module
        last = _before(graph, graph.entry(norm))
    linear = None if last is None else _linear_map(graph, last)
    biased = operation if norm or linear is None else linear
    return StreamPart(
        name=node.name,
        kind=kind,
        layer=layer,
        factor=factor,
        bias=None if biased is None else _bias(biased),
        norm=norm,
        projection=last.module if layer is not None and linear and last else None,
        values=_values(graph, linear) if linear and kind == "attention" else None,
    )


def _before(graph: ScaledSums, node: TensorNode) -> Operation | None:
    """The operation that computed the numbers of a tensor, whatever form they were brought into."""
    operation = graph.producer(node)
    while operation is not None and (before := passed(operation)) is not None:
        operation = graph.producer(before)
    return operation


def _linear_map(graph: ScaledSums, operation: Operation) -> Operation | None:
    """The linear map that an operation is; of the sum of a layer and its adapter, the layer."""
    found: Operation | None = operation
    module = graph.parts.module(operation.module)
    if operation.function == "add" and without_adapter(module) is not module:
        found = _before(graph, operation.inputs[0])
    return found if found is not None and found.function in _LINEAR else None


def _values(graph: ScaledSums, linear: Operation) -> str | None:
    """The name of the values whose weighted sums a linear map takes."""
    node = linear.inputs[linear.function == "addmm"]
    while (operation := graph.producer(node)) is not None and len(operation.inputs) == 1:
        node = operation.inputs[0]  # heads are put side by side
    if operation is None or operation.function not in _WEIGHTED_SUMS:
        return None
    place = _WEIGHTED_SUMS[operation.function]
    values = operation.args[place] if place < len(operation.args) else operation.kwargs.get("value")
    return values.name if isinstance(values, TensorNode) and values.shape[-2] == 2 else None


def _origin(graph: ScaledSums, node: TensorNode) -> tuple[str, int | None]:
    """The kind and the layer of a part: those of the last attention, MLP or embedding that led to it."""
    parts = graph.parts
    operation = graph.producer(node)
    at = "" if operation is None else operation.module
    layer = next((number for number, name in enumerate(parts.blocks) if inside(at, name)), None)
    if layer is None:
        embedded = any(inside(one.module, parts.embedding) for one in graph.ancestors(node))
        return "embedding" if embedded else "positions", None
    for one in graph.ancestors(node):
        if not inside(one.module, parts.blocks[layer]):
            break
        for kind, names in (("attention", parts.attentions), ("MLP", parts.mlps)):
            if (name := names[layer]) and inside(one.module, name):
                return kind, layer
    return at[len(parts.blocks[layer]) + 1 :].split(".")[0] or "block", layer


def _middle(terms: Terms, found: Mapping[TensorNode, StreamPart], layer: int) -> str | None:
    """The name of the stream after attention, before the MLP."""
    if all(part.label != f"attention {layer}" for part in found.values()):
        return None

    def before(part: StreamPart) -> bool:
        return part.layer is None or part.layer < layer or part.label == f"attention {layer}"

    return _state(terms, found, before)


def _state(
    terms: Terms, found: Mapping[TensorNode, StreamPart], wanted: Callable[[StreamPart], bool]
) -> str | None:
    """The name of the tensor that is the sum of some parts."""
    chosen = {term for term, part in found.items() if wanted(part)}
    same = [node for node, inner in terms.items() if inner.keys() == chosen]
    return same[-1].name if same else None


def _bias(operation: Operation) -> str | None:
    """The name of the bias that a linear map or a norm adds at its end."""
    place = _BIAS.get(operation.function)
    if place is None:
        return None
    given = operation.kwargs.get("bias", operation.args[place] if place < len(operation.args) else None)
    return given.name if isinstance(given, TensorNode) and given.kind == "parameter" else None
