"""The residual computation of a model as nodes that write to the stream and nodes that read from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.summaries import counted
from ..heads.norm_factors import NormFactor
from ..heads.weights import HeadWeights, head_weights, input_factor, output_factor
from ..model.hook_points import HookPoint
from ..model.hook_search import HookPoints
from ..model.hooked_model import HookedModel
from ..model.stream_sums import StreamSum
from .labels import EMBEDDINGS, LOGITS, head_label, input_label
from .norms import StreamNorm, stream_norm


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """A part of the model that reads the residual stream.

    Attributes:
        kind: ``"attn"``, ``"mlp"`` or ``"logits"``.
        layer: The block.
        stream: Name of the stream that it reads.
        output: Name of what it adds to the stream; empty for the logits.
        sees: How many writers come before it.
        readers: Labels of its inputs: queries of each head, keys, values; or one.
        writers: Labels of what it adds.
    """

    kind: str
    layer: int
    stream: str
    output: str
    sees: int
    readers: tuple[str, ...]
    writers: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionInputs:
    """How a layer's heads read the stream and write to it, in float32.

    Attributes:
        norm: Between the stream and the projections.
        weights: Of the heads, keys and values once for each group that shares them.
        after: Between the heads' outputs and the stream.
    """

    norm: StreamNorm
    weights: HeadWeights
    after: NormFactor

    def readers(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yields the name, the weights (heads, width, d_head) and biases of queries, keys and values."""
        for letter in "qkv":
            weight, bias = (getattr(self.weights, f"{name}_{letter.upper()}") for name in "Wb")
            yield letter, weight, bias

    def pulled(self, stream: Tensor, gradients: dict[str, Tensor]) -> Tensor:
        """Returns the gradients (readers, batch, position, width) of the stream, one for each input.

        Args:
            stream: (batch, position, width).
            gradients: Of queries, keys and values, (batch, position, head, d_head).
        """
        normed = [
            torch.einsum("bphd,hwd->hbpw", wide(gradients[letter]), weight)
            for letter, weight, _ in self.readers()
        ]
        return self.norm.pull(wide(stream), torch.cat(normed))

    def read(self, streams: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields the name and the queries, keys and values (batch, position, head, d_head) of a layer.

        Args:
            streams: The stream (readers, batch, position, width) as each input sees it.
        """
        normed, start = self.norm(streams), 0
        for letter, weight, bias in self.readers():
            given = normed[start : start + len(weight)]
            start += len(weight)
            yield letter, torch.einsum("hbpw,hwd->bphd", given, weight) + bias

    def written(self, heads: Tensor, added: Tensor | None) -> Tensor:
        """Returns what each head adds to the stream, (heads, batch, position, width).

        A norm after the heads divides all of them by one number for each position.

        Args:
            heads: Their outputs (batch, position, head, d_head).
            added: What they add together, (batch, position, width); needed if there is a norm.
        """
        results = torch.einsum("bphd,hdw->hbpw", wide(heads), self.weights.W_O)
        if self.after.kind == "none":
            return self.after.after(results)
        assert added is not None
        return self.after.after(results) * self.after.scale(results.sum(0), wide(added))


def wide(tensor: Tensor) -> Tensor:
    """Returns a tensor in float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class Wiring:
    """The nodes of a model.

    Args:
        model: The model.

    Attributes:
        stages: The parts in the order in which they run; the logits are the last.
        writers: Labels of all that is added to the stream, in this order.
        readers: Labels of all inputs.
        attention: How the heads of each layer read and write.

    Raises:
        ArchitectureError: The stream is no sum of embeddings, heads and MLPs; the message says why.
    """

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self._points = points = model.points
        segment = _only_segment(points)
        both = all(isinstance(points.points.get(f"hook_{name}"), HookPoint) for name in EMBEDDINGS)
        self.embeddings = EMBEDDINGS if both else EMBEDDINGS[:1]
        self.start = _stream_name(points, segment, frozenset())
        self.attention = {
            layer: _attention_inputs(model, layer) for kind, layer in segment.parts if kind == "attn"
        }
        self.stages = tuple(self._stages(segment))
        self.writers = (*self.embeddings, *(label for stage in self.stages for label in stage.writers))
        self.readers = tuple(label for stage in self.stages for label in stage.readers)

    @cached_property
    def allowed(self) -> Tensor:
        """Which writers each reader sees, (readers, writers)."""
        rows = [torch.arange(len(self.writers)) < stage.sees for stage in self.stages for _ in stage.readers]
        return torch.stack(rows)

    @property
    def has_norms_after(self) -> bool:
        """Whether norms stand between heads and the stream."""
        return any(one.after.kind != "none" for one in self.attention.values())

    def _stages(self, segment: StreamSum) -> Iterator[Stage]:
        """The parts, each with the number of the writers before it."""
        counts = {frozenset[tuple[str, int]](): len(self.embeddings)}
        added = frozenset[tuple[str, int]]()
        for kind, layer in segment.parts:
            read = _read_sum(self._points, segment, (kind, layer))
            if read not in counts:
                raise ArchitectureError(
                    f"the {kind} of block {layer} reads a stream that is no sum of the blocks before it"
                )
            writers = self._writers(kind, layer)
            yield Stage(
                kind=kind,
                layer=layer,
                stream=_stream_name(self._points, segment, read),
                output=f"blocks.{layer}.hook_{kind}_out",
                sees=counts[read],
                readers=self._readers(kind, layer),
                writers=writers,
            )
            before = max(counts.values())
            added |= {(kind, layer)}
            counts[added] = before + len(writers)
        yield Stage(
            kind=LOGITS,
            layer=self._points.layers,
            stream=_stream_name(self._points, segment, added),
            output="",
            sees=counts[added],
            readers=(LOGITS,),
            writers=(),
        )

    def _writers(self, kind: str, layer: int) -> tuple[str, ...]:
        if kind == "mlp":
            return (f"m{layer}",)
        return tuple(head_label(layer, head) for head in range(self.attention[layer].weights.heads))

    def _readers(self, kind: str, layer: int) -> tuple[str, ...]:
        if kind == "mlp":
            return (f"m{layer}",)
        weights = self.attention[layer].weights
        size = weights.heads // weights.key_value_heads
        groups = [tuple(range(start, start + size)) for start in range(0, weights.heads, size)]
        queries = [input_label(layer, (head,), "q") for head in range(weights.heads)]
        return *queries, *(input_label(layer, group, letter) for letter in "kv" for group in groups)


def _only_segment(points: HookPoints) -> StreamSum:
    """The residual stream, which is one sum of attention layers and MLPs."""
    graph = points.graph.modules[""]
    if len(points.segments) != 1:
        raise ArchitectureError(
            f"norms stand in the residual stream of {graph}: it is no sum of what its parts write, so there "
            f"are no edges between them"
        )
    segment = points.segments[0]
    unknown = [node for (kind, _), node in segment.parts.items() if kind not in ("attn", "mlp")]
    if unknown or segment.others:
        names = ", ".join(one.name for one in [*unknown, *segment.others][:3])
        raise ArchitectureError(
            f"the residual stream of {graph} has other parts than heads and MLPs: {names}"
        )
    if not any(kind == "attn" for kind, _ in segment.parts):
        raise ArchitectureError(f"no attention adds to the residual stream of {graph}")
    return segment


def _read_sum(
    points: HookPoints, segment: StreamSum, component: tuple[str, int]
) -> frozenset[tuple[str, int]]:
    """The components in the sum that a component reads."""
    reads = set(segment.reads[component])
    found = [key for key, node in segment.sums.items() if node in reads]
    if len(reads) != 1 or len(found) != 1:
        names = ", ".join(sorted(one.name for one in reads))
        raise ArchitectureError(
            f"the {component[0]} of block {component[1]} of {points.graph.modules['']} reads more than one "
            f"sum of the stream, or a part of it: {names}"
        )
    return found[0]


def _stream_name(points: HookPoints, segment: StreamSum, components: frozenset[tuple[str, int]]) -> str:
    """The name of the hook point of a sum."""
    node = segment.sums.get(components)
    if node is not None:
        wanted = points.graph.returned.get(node.name, [])
        held = {node.name, *(f"{module}#0" for module in wanted)}
        for name, point in points.points.items():
            if "hook_resid" in name and isinstance(point, HookPoint) and point.layer in held:
                return name
    raise ArchitectureError(
        f"the residual stream of {points.graph.modules['']} after {counted(len(components), 'part')} is no "
        "tensor of the model that can be read and changed"
    )


def _attention_inputs(model: HookedModel, layer: int) -> AttentionInputs:
    points = model.points
    after = output_factor(points, layer)
    dtype = torch.promote_types(next(model.model.parameters()).dtype, torch.float32)
    weights = head_weights(model, layer, dtype=dtype).grouped()
    if after.kind != "none" and bool(weights.b_O.any()):
        raise ArchitectureError(
            f"the heads of layer {layer} have an output bias and a norm after it: what a single head adds "
            f"cannot be told"
        )
    return AttentionInputs(
        norm=stream_norm(points, f"blocks.{layer}.ln1", input_factor(points, layer)),
        weights=weights,
        after=after,
    )
