"""A page on which the edges of a circuit can be explored."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...plots.html import page, save_page
from ...plots.style import NEGATIVE, POSITIVE
from .labels import place_of
from .positions import lines_of, node_positions

if TYPE_CHECKING:
    from .circuit import Circuit

_FOLDER = Path(__file__).parent
_SHOWN = 60  # edges at first


def save_circuit_page(circuit: "Circuit", path: str | Path) -> None:
    """Writes the page of a circuit."""
    save_page(circuit_page(circuit, None), path)


def circuit_page(circuit: "Circuit", most: int | None) -> str:
    """Returns the page of a circuit.

    Args:
        circuit: The circuit.
        most: The most edges, the strongest ones; None for all.
    """
    summary = (
        f"{len(circuit):,} of {int(circuit.allowed.sum()):,} edges, {circuit.found_by}. Edges end at the "
        f"left of a head for queries, in the middle for keys, at the right for values."
    )
    return page(
        "Circuit",
        _file("page.html"),
        summary=summary,
        style=_file("page.css") + f":root {{ --positive: {POSITIVE}; --negative: {NEGATIVE}; }}",
        script=_file("page.js"),
        data=_data(circuit, most),
    )


def _data(circuit: "Circuit", most: int | None) -> dict[str, Any]:
    """Nodes with their places, and lines from the strongest on."""
    positions = node_positions(circuit)
    lines = lines_of(circuit, most)
    names = list(dict.fromkeys(line.name for line in lines))
    numbers = {name: number for number, name in enumerate(names)}
    nodes = {label: number for number, label in enumerate(positions)}
    return {
        "nodes": [
            {"label": label, "kind": place_of(label).kind, "x": round(x, 3), "y": round(y, 3)}
            for label, (x, y) in positions.items()
        ],
        "lines": [
            {
                "edge": numbers[line.name],
                "from": nodes[line.writer],
                "to": nodes[line.reader],
                "input": line.input,
                "score": line.score,
            }
            for line in lines
        ],
        "edges": names,
        "shown": min(_SHOWN, len(names)),
    }


@cache
def _file(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")
