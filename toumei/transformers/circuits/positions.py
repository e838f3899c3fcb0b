"""Where the nodes of a circuit are drawn: a row for each layer, heads side by side, MLPs on the right."""

from typing import TYPE_CHECKING, NamedTuple

from .labels import LOGITS, place_of

if TYPE_CHECKING:
    from .circuit import Circuit

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


def node_positions(circuit: "Circuit") -> dict[str, tuple[float, float]]:
    """Returns x and y of all nodes of the model, by label; a layer is as high as 1."""
    heads = 1 + max(max(place_of(label).heads, default=0) for label in circuit.writers)
    layers = 1 + max(place_of(label).layer or 0 for label in circuit.writers)
    middle = (heads - 1) / 2
    found = {LOGITS: (middle, float(layers))}
    for label in circuit.writers:
        place = place_of(label)
        layer = float(place.layer or 0)
        if place.kind == "head":
            found[label] = float(place.heads[0]), layer
        elif place.kind == "mlp":
            found[label] = heads + 0.3, layer + 0.5
    embeddings = [label for label in circuit.writers if place_of(label).kind == "embedding"]
    for number, label in enumerate(embeddings):
        found[label] = middle + 2.5 * (number - (len(embeddings) - 1) / 2), -1.0
    return found


def lines_of(circuit: "Circuit", most: int | None = None) -> list[Line]:
    """Returns the edges as they are drawn, the strongest first.

    An edge to an input that heads share goes to those of them from which the circuit goes on, or to all.

    Args:
        circuit: The circuit.
        most: How many edges.
    """
    going_on = {circuit.writers[place] for place in circuit.kept.any(0).nonzero().flatten().tolist()}
    found = []
    for name in circuit.edges[:most]:
        writer, reader = name.split("->")
        score = float(circuit.scores[circuit.readers.index(reader), circuit.writers.index(writer)])
        place = place_of(reader)
        heads = place.writers or (LOGITS,)
        for label in [one for one in heads if one in going_on] or heads:
            found.append(Line(name, writer, label, place.input, 0.0 if score != score else score))
    return found


def end_of(line: Line, positions: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """Returns where a line ends: below its node, for heads at the place of its input."""
    x, y = positions[line.reader]
    return x + _INPUTS.get(line.input, 0.0), y - 0.16
