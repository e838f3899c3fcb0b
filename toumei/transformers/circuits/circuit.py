"""A circuit: some of the edges between the parts of a transformer."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted, listed, shortened
from ...core.tensor_specs import Spec, specs
from ...plots.html import framed, save_page
from .edge_names import edge_mask, edge_name
from .labels import LOGITS, place_of
from .page import circuit_page
from .picture import MOST, draw_circuit
from .positions import Sketch, lines_of, node_positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from networkx import DiGraph

_MOST_IN_FRAME = 400


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Circuit(Saved):
    """Edges that are kept, of all edges of a model.

    Nodes that write to the residual stream are ``"embed"`` and, where the model adds them, ``"pos_embed"``;
    ``"a5.2"``, head 2 of layer 5; and ``"m3"``, the MLP of layer 3. Nodes that read it are ``"a5.2<q>"``, the
    queries of a head, ``"a5.2<k>"`` and ``"a5.2<v>"``, its keys and values, ``"a5.0-2<k>"`` where heads 0 to
    2 share them, ``"m3"`` and ``"logits"``. An edge is ``"a0.1->m2"``.

    Attributes:
        kept: Which edges are kept, (readers, writers).
        allowed: Which edges there are: a reader sees the writers before it.
        scores: The score of each edge that has one, else NaN.
        writers: The labels of all writers, in the order of the model.
        readers: Those of all readers.
        found_by: How the circuit was chosen.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, acdc, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> circuit = acdc(model, clean, corrupt, logit_difference(4, 5), 0.1)
        >>> circuit.nodes
        ('embed', 'a0.0', 'a1.0', 'logits')
    """

    kept: Tensor
    allowed: Tensor
    scores: Tensor
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    found_by: str

    _specs = specs(
        kept=Spec("readers writers", "any"),
        allowed=Spec("readers writers", "any"),
        scores="readers writers",
        writers="writers",
        readers="readers",
    )

    @property
    def edges(self) -> tuple[str, ...]:
        """The names of the edges, those with the largest scores first."""
        places = self.kept.nonzero().tolist()
        order = self.scores[self.kept].abs().nan_to_num(-1.0).argsort(descending=True, stable=True).tolist()
        return tuple(edge_name(self.writers[places[one][1]], self.readers[places[one][0]]) for one in order)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that an edge comes from or goes to, in the order of the model, the logits last."""
        used = {self.writers[place] for place in self.kept.any(0).nonzero().flatten().tolist()}
        for place in self.kept.any(1).nonzero().flatten().tolist():
            used.update(place_of(self.readers[place]).writers or (LOGITS,))
        return tuple(label for label in (*self.writers, LOGITS) if label in used)

    @property
    def share(self) -> float:
        """Which share of all edges is kept."""
        return len(self) / int(self.allowed.sum())

    @checked
    def without(self, nodes: Iterable[str]) -> "Circuit":
        """Returns the circuit without the edges that come from some nodes.

        Args:
            nodes: Labels of writers.

        Raises:
            ArgumentError: There is no such writer.
        """
        kept = self.kept.clone()
        for label in [nodes] if isinstance(nodes, str) else nodes:
            if label not in self.writers:
                raise ArgumentError(f"nodes that write are {listed(self.writers)}, got {label!r}")
            kept[:, self.writers.index(label)] = False
        return replace(self, kept=kept)

    @checked
    def with_edges(self, edges: Iterable[str]) -> "Circuit":
        """Returns the circuit of the same model that has these edges and no others.

        Args:
            edges: Names such as ``"a0.1->m2"``.

        Raises:
            ArgumentError: There is no such edge.
        """
        kept = edge_mask(edges, self.writers, self.readers, self.allowed)
        return replace(self, kept=kept, found_by="given edges")

    @checked
    def random(self, seed: int = 0) -> "Circuit":
        """Returns a circuit of as many edges, drawn from all edges of the model.

        Args:
            seed: Draws them.
        """
        places = self.allowed.nonzero()
        chosen = torch.randperm(len(places), generator=make_generator(seed))[: len(self)]
        kept = torch.zeros_like(self.kept)
        kept[tuple(places[chosen].T)] = True
        return replace(self, kept=kept, found_by=f"random edges, seed {seed}")

    def to_networkx(self) -> "DiGraph":
        """Returns the circuit as a graph of networkx.

        Its nodes are writers and readers, with ``kind``, ``layer`` and ``input``. An edge from writer to
        reader has the attribute ``score``; one from an input of a head to the head has ``inside``.
        """
        from networkx import DiGraph

        graph = DiGraph()
        for name in self.edges:
            writer, reader = name.split("->")
            for label in (writer, reader, *place_of(reader).writers):
                place = place_of(label)
                graph.add_node(label, kind=place.kind, layer=place.layer, input=place.input)
            graph.add_edge(writer, reader, score=self._score(writer, reader))
            for label in place_of(reader).writers:
                if label != reader:
                    graph.add_edge(reader, label, inside=True)
        return graph

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the circuit: layers from bottom to top, heads side by side, MLPs on the right.

        Edges with larger scores are wider, by the square root of the score, orange for positive and blue for
        negative ones. They end at the left of a head for queries, in the middle for keys, at the right for
        values.

        Args:
            ax: Where to draw; a new figure by default.
        """
        return draw_circuit(self._sketch(MOST), ax)

    @checked
    def save_html(self, path: str | Path) -> None:
        """Writes a page on which the circuit can be explored; it needs no other file and no network.

        A slider says how many edges are shown, a click on a node lists the edges into it and out of it.

        Args:
            path: The file.
        """
        save_page(circuit_page(self._sketch(None)), path)

    def _sketch(self, most: int | None) -> Sketch:
        """What is drawn, at most so many edges."""
        pairs = [tuple(name.split("->")) for name in self.edges[:most]]
        scores = {(writer, reader): self._score(writer, reader) for writer, reader in pairs}
        going_on = {self.writers[place] for place in self.kept.any(0).nonzero().flatten().tolist()}
        return Sketch(
            positions=node_positions(self.writers),
            lines=lines_of(scores, going_on),
            kept=len(self),
            total=int(self.allowed.sum()),
            found_by=self.found_by,
        )

    def _score(self, writer: str, reader: str) -> float:
        """The score of an edge, 0 where it has none."""
        score = self.scores[self.readers.index(reader), self.writers.index(writer)]
        return float(score.nan_to_num(0.0))

    def __len__(self) -> int:
        return int(self.kept.sum())

    def __repr__(self) -> str:
        found = shortened(self.found_by, 40)
        return (
            f"Circuit({len(self)} of {counted(int(self.allowed.sum()), 'edge')}, "
            f"{counted(len(self.nodes), 'node')}, {found})"
        )

    def __str__(self) -> str:
        lines = [f"{counted(len(self), 'edge')} ({self.share:.1%}), {self.found_by}"]
        for name in self.edges[:12]:
            lines.append(f"{name:<24}{self._score(*name.split('->')):+.4f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return framed(circuit_page(self._sketch(_MOST_IN_FRAME)), 720)
