"""Where the nodes of a circuit are drawn: a row for each layer, heads side by side, MLPs on the right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .labels import LOGITS, place_of

GAP = 0.17  # from the middle of a node to its edges above and below
_INPUTS = {"q": -0.22, "k": 0.0, "v": 0.22}  # where the edges end at a head


class Line(NamedTuple):
    """An edge as it is drawn.

    Attributes:
        name: The name of the edge.
        writer: The node that it comes from.
        reader: The node that it goes to, one of several heads if they share the input.
        input: ``"q"``, ``"k"``, ``"v"``, or empty.
        score: Its score, 0 where it has none.
    """

    name: str
    writer: str
    reader: str
    input: str
    score: float


@dataclass(frozen=True)
class Sketch:
    """What is drawn of a circuit.

    Attributes:
        positions: x and y of all nodes of the model, by label; a layer is as high as 1.
        lines: The edges, the strongest first.
        kept: How many edges the circuit has.
        total: How many edges the model has.
        found_by: How the circuit was chosen.
    """

    positions: Mapping[str, tuple[float, float]]
    lines: Sequence[Line]
    kept: int
    total: int
    found_by: str

    @property
    def drawn(self) -> int:
        """How many edges are drawn."""
        return len({line.name for line in self.lines})


def node_positions(writers: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Returns x and y of all nodes of a model.

    Example:
        >>> node_positions(["embed", "a0.0", "a0.1", "m0"])
        {'logits': (0.5, 1.0), 'a0.0': (0.0, 0.0), 'a0.1': (1.0, 0.0), 'm0': (2.3, 0.5), 'embed': (0.5, -1.0)}
    """
    heads = 1 + max(max(place_of(label).heads, default=0) for label in writers)
    layers = 1 + max(place_of(label).layer or 0 for label in writers)
    middle = (heads - 1) / 2
    found = {LOGITS: (middle, float(layers))}
    for label in writers:
        place = place_of(label)
        layer = float(place.layer or 0)
        if place.kind == "head":
            found[label] = float(place.heads[0]), layer
        elif place.kind == "mlp":
            found[label] = heads + 0.3, layer + 0.5
    embeddings = [label for label in writers if place_of(label).kind == "embedding"]
    for number, label in enumerate(embeddings):
        found[label] = middle + 2.5 * (number - (len(embeddings) - 1) / 2), -1.0
    return found


def lines_of(edges: Mapping[tuple[str, str], float], going_on: set[str]) -> list[Line]:
    """Returns edges as they are drawn.

    Some heads share an input. An edge to it goes to those heads that the circuit goes on from, or to all.

    Args:
        edges: The scores by writer and reader, 0 where there is none.
        going_on: The nodes that the circuit goes on from.
    """
    found = []
    for (writer, reader), score in edges.items():
        place = place_of(reader)
        heads = place.writers or (LOGITS,)
        for label in [one for one in heads if one in going_on] or heads:
            found.append(Line(f"{writer}->{reader}", writer, label, place.input, score))
    return found


def end_of(line: Line, positions: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Returns where a line ends: below its node, for heads at the place of its input."""
    x, y = positions[line.reader]
    return x + _INPUTS.get(line.input, 0.0), y - GAP
