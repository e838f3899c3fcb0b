"""Finds the hook points of any transformer in the graph of a forward pass."""

from dataclasses import dataclass, field
from functools import cached_property

from ...core.errors import ArchitectureError
from ...core.summaries import counted
from ...instrument import (
    FeedForward,
    LinearMap,
    MultiHeadAttentionInstance,
    Normalization,
    OperationGraph,
    TensorNode,
    find_feed_forward,
    find_linear,
    find_multi_head_attention,
    find_normalizations,
)
from ...instrument.search.sources import source
from .attention_points import AttentionPoints
from .hook_points import HookPoint, Point
from .norm_points import points_of_norm
from .stream_sums import StreamSum, find_stream_sums, has_positions
from .tensor_layouts import VECTORS, TensorLayouts


@dataclass(frozen=True, eq=False, repr=False)
class HookPoints:
    """The hook points of a model.

    Attributes:
        points: They by name.
        missing: Why others are not there, by name.
        attentions: The attention of each layer.
        networks: The feed-forward network of each layer that has one of its own, not of experts.
        outputs: The linear map of the heads' outputs to the stream, by layer.
        segments: The sums of the residual stream.
        layers: How many there are.
        final_norm: The norm before the head, if there is one.
    """

    points: dict[str, Point]
    missing: dict[str, str]
    attentions: dict[int, MultiHeadAttentionInstance]
    networks: dict[int, FeedForward]
    outputs: dict[int, LinearMap]
    segments: list[StreamSum]
    layers: int
    final_norm: Normalization | None
    graph: OperationGraph = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"HookPoints({len(self.names)} of {counted(self.layers, 'layer')}, {len(self.missing)} missing)"
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, also those of what each head writes into the stream."""
        return *self.points, *(f"blocks.{layer}.attn.hook_result" for layer in self.outputs)

    @cached_property
    def linear_maps(self) -> dict[str, LinearMap]:
        """The linear maps of the pass by the engine's names of their outputs."""
        found: dict[str, LinearMap] = {}
        for linear in find_linear(self.graph):
            for node in (linear.output, linear.operation.outputs[0]):
                modules = self.graph.returned.get(node.name, [])
                found |= dict.fromkeys([node.name, *(f"{module}#0" for module in modules)], linear)
        return found

    @cached_property
    def in_place(self) -> bool:
        """Whether an operation of the pass writes into a tensor."""
        return any(operation.in_place for operation in self.graph)


def find_hook_points(graph: OperationGraph) -> HookPoints:
    """Returns the hook points in the graph of a pass over two texts of the same length.

    Args:
        graph: A graph, of a pass whose number of positions is no number of heads.

    Raises:
        ArchitectureError: There is no attention, or no residual stream.
    """
    attentions = [one for one in find_multi_head_attention(graph) if one.query_length == one.key_length]
    if not attentions:
        raise ArchitectureError(
            f"no attention of a known form ran in the {graph.modules['']}: it is no transformer, or has "
            f"none of its hook points; hooked() records its modules and operations"
        )
    length = attentions[0].query_length
    networks = [
        one
        for one in find_feed_forward(graph)
        if one.kind == "experts" or has_positions(one.down.output, length)
    ]
    return _Search(graph, attentions, networks).found()


class _Search:
    def __init__(
        self,
        graph: OperationGraph,
        attentions: list[MultiHeadAttentionInstance],
        networks: list[FeedForward],
    ) -> None:
        self._graph, self._layouts = graph, TensorLayouts(graph, attentions[0].query_length)
        self._attentions = {one.layer: one for one in attentions}
        self._experts = {one.layer for one in networks if one.kind == "experts"}
        self._networks = {one.layer: one for one in networks if one.layer not in self._experts}
        self._segments = find_stream_sums(graph, attentions, networks)
        self._linear = {one.output: one for one in find_linear(graph)}
        self._linear |= {one.operation.outputs[0]: one for one in self._linear.values()}
        others = [layer for segment in self._segments for _, layer in segment.parts]
        self._layers = 1 + max(*self._attentions, *self._networks, *self._experts, *others)
        self._points: dict[str, Point] = {}
        self._missing: dict[str, str] = {}
        self._streams: dict[str, TensorNode] = {}
        self._outputs: dict[int, LinearMap] = {}

    def found(self) -> HookPoints:
        """All that is found."""
        self._embeddings()
        for layer in range(self._layers):
            self._attention(layer)
        for layer in range(self._layers):
            self._network(layer)
        self._stream()
        final = self._norms()
        return HookPoints(
            points=self._points,
            missing=self._missing,
            attentions=self._attentions,
            networks=self._networks,
            outputs=self._outputs,
            segments=self._segments,
            layers=self._layers,
            final_norm=final,
            graph=self._graph,
        )

    def _put(self, name: str, found: Point | str) -> None:
        if isinstance(found, str):
            self._missing[name] = found
        else:
            self._points[name] = found

    def _vectors(self, name: str, node: TensorNode) -> None:
        self._put(name, self._layouts.point(name, node, VECTORS))

    def _embeddings(self) -> None:
        """The embeddings of tokens and of positions, where the stream begins with them."""
        first = self._segments[0].start
        if len(first) == 1:
            self._vectors("hook_embed", first[0])
        by_kind = self._tables(first)
        if set(by_kind) == {"hook_embed", "hook_pos_embed"}:
            for name, node in by_kind.items():
                self._put(name, self._embedding(name, node))
        else:
            self._missing["hook_pos_embed"] = (
                "no embeddings of positions from a table of their own are added to those of tokens"
            )

    def _tables(self, start: tuple[TensorNode, ...]) -> dict[str, TensorNode]:
        """The results of tables of tokens and of positions that the stream begins with, by name."""
        nodes, normed = list(start), False
        if len(start) == 1:
            made = self._graph.producer(source(self._graph, start[0]))
            if made is not None and made.function == "layer_norm":  # as in BERT
                made, normed = self._graph.producer(source(self._graph, made.inputs[0])), True
            nodes = []
            while made is not None and made.function == "add":
                nodes += [one for one in made.inputs if not self._is_sum(one)]
                inner = [one for one in made.inputs if self._is_sum(one)]
                made = self._graph.producer(source(self._graph, inner[0])) if inner else None
        found: dict[str, TensorNode] = {}
        for node in nodes:
            table = self._table(node)
            if table is None and not normed:
                return {}
            if table is not None and "type" not in table:
                position = "pos" in table or "wpe" in table
                found.setdefault("hook_pos_embed" if position else "hook_embed", node)
        return found

    def _is_sum(self, node: TensorNode) -> bool:
        made = self._graph.producer(source(self._graph, node))
        return made is not None and made.function == "add" and self._table(node) is None

    def _table(self, node: TensorNode) -> str | None:
        """The name of the table that a tensor is looked up in."""
        made = self._graph.producer(source(self._graph, node))
        if made is None or made.function != "embedding":
            return None
        return next((one.name.lower() for one in made.inputs if one.kind == "parameter"), None)

    def _embedding(self, name: str, node: TensorNode) -> HookPoint | str:
        """The embeddings, those of positions maybe the same for all texts."""
        axes: tuple[tuple[str, ...], ...] | None = None
        if len(node.shape) == 2 and node.shape[0] == self._layouts.length:
            axes = ("position",), ("width",)
        elif node.shape[0] == 1:
            axes = ("batch",), ("position",), ("width",)
        return self._layouts.point(name, node, VECTORS, axes=axes)

    def _attention(self, layer: int) -> None:
        """Queries, keys, values, outputs and weights of a layer's heads."""
        prefix = f"blocks.{layer}.attn.hook_"
        attention = self._attentions.get(layer)
        if attention is None:
            names = ("q", "k", "v", "z", "pattern", "attn_scores", "result", "rot_q", "rot_k")
            self._missing |= {prefix + name: f"block {layer} has no attention" for name in names}
            return
        search = AttentionPoints(self._layouts, self._linear)
        for name, found in search.of(layer, attention).items():
            self._put(name, found)
        output = search.output_map(attention)
        if prefix + "z" not in self._points:
            self._missing[prefix + "result"] = self._missing[prefix + "z"]
        elif output is None:
            self._missing[prefix + "result"] = "no linear map of the heads' outputs was found"
        else:
            self._outputs[layer] = output

    def _network(self, layer: int) -> None:
        """What goes into the activation function of a layer, and the coefficients of its neurons."""
        prefix = f"blocks.{layer}.mlp.hook_"
        network = self._networks.get(layer)
        if network is None:
            why = f"no feed-forward network of a known form was found in block {layer}"
            if layer in self._experts:
                why = f"block {layer} sends its tokens to experts, which have neurons of their own"
            self._missing |= {prefix + name: why for name in ("pre", "post", "pre_linear")}
            return
        self._vectors(prefix + "pre", network.activation.input)
        self._vectors(prefix + "post", network.coefficients)
        if network.up is None:
            self._missing[prefix + "pre_linear"] = "this architecture has no gates beside its neurons"
            return
        product = self._graph.producer(network.before_norm)
        gate = source(self._graph, network.activation.output)
        for node in product.inputs if product is not None else []:
            if source(self._graph, node) is not gate:
                self._vectors(prefix + "pre_linear", node)

    def _stream(self) -> None:
        """The residual stream before, inside and after each block, and what is added to it."""
        parts = {key: node for segment in self._segments for key, node in segment.parts.items()}
        for (kind, layer), node in parts.items():
            self._vectors(f"blocks.{layer}.hook_{kind}_out", node)
        whole = len(self._segments) == 1
        for segment in self._segments:
            for layer in range(self._layers):
                before = {one for one in segment.parts if one[1] < layer}
                here = {one for one in segment.parts if one[1] == layer}
                mixers = here - {("mlp", layer)}
                wanted = {
                    "pre": before if whole or mixers else None,
                    "mid": before | mixers if mixers else None,
                    "post": before | here if ("mlp", layer) in here or (whole and here) else None,
                }
                for name, components in wanted.items():
                    total = None if components is None else segment.sums.get(frozenset(components))
                    if name == "mid" and total not in segment.reads.get(
                        ("mlp", layer), [total] * (not whole)
                    ):
                        continue  # the feed-forward layer does not read it
                    if total is not None:
                        self._streams[f"blocks.{layer}.hook_resid_{name}"] = total
        for name, total in self._streams.items():
            self._vectors(name, total)
        self._missing_streams(parts)

    def _missing_streams(self, parts: "dict[tuple[str, int], TensorNode]") -> None:
        for layer in range(self._layers):
            for kind in ("attn", "mlp"):
                if (kind, layer) not in parts:
                    others = {one for one, number in parts if number == layer} - {"attn", "mlp"}
                    name = "attention" if kind == "attn" else "feed-forward layer"
                    has = f", but {', '.join(f'hook_{one}_out' for one in sorted(others))}" if others else ""
                    self._missing[f"blocks.{layer}.hook_{kind}_out"] = f"block {layer} has no {name}{has}"
            for name in ("pre", "mid", "post"):
                full = f"blocks.{layer}.hook_resid_{name}"
                if full in self._streams:
                    continue
                both = ("attn", layer) in parts and ("mlp", layer) in parts
                parallel = name == "mid" and both and f"blocks.{layer}.hook_resid_post" in self._streams
                self._missing[full] = (
                    "attention and feed-forward layer of this block are added to the stream together"
                    if parallel
                    else "the stream there has other parts than attention and feed-forward layers"
                )

    def _norms(self) -> Normalization | None:
        """The points of the norms that read the stream; the last one is returned."""
        norms: dict[TensorNode, list[Normalization]] = {}
        for norm in find_normalizations(self._graph):
            norms.setdefault(source(self._graph, norm.input), []).append(norm)
        last = self._segments[-1]
        end = last.sums.get(frozenset(last.parts))
        final = None if end is None else next(iter(norms.get(source(self._graph, end), [])), None)
        self._norm("ln_final", final, end)
        for layer in range(self._layers):
            before, middle = (self._streams.get(f"blocks.{layer}.hook_resid_{n}") for n in ("pre", "mid"))
            at_start = [] if before is None else norms.get(source(self._graph, before), [])
            inside = [] if middle is None else norms.get(source(self._graph, middle), [])
            self._norm(f"blocks.{layer}.ln1", next(iter(at_start), None), before)
            second = inside if middle is not None else at_start[1:]
            self._norm(f"blocks.{layer}.ln2", next(iter(second), None), before if middle is None else middle)
        return final

    def _norm(self, prefix: str, norm: Normalization | None, node: TensorNode | None) -> None:
        """The scale of a norm that reads the stream, and what it normalizes."""
        given: HookPoint | str = (
            "no norm that reads the stream there was found: the architecture has none, or writes it out in "
            "an unknown way"
        )
        if norm is not None and node is not None:
            given = self._layouts.point(prefix, node, VECTORS)
            if isinstance(given, HookPoint):
                for point in points_of_norm(prefix, norm, given):
                    self._points[point.name] = point
                return
        self._missing |= {f"{prefix}.hook_{name}": str(given) for name in ("scale", "normalized")}
