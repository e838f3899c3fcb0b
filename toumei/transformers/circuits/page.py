"""A page on which the edges of a circuit can be explored."""

from functools import cache
from pathlib import Path
from typing import Any

from ...core.summaries import counted
from ...plots.html import page
from ...plots.style import NEGATIVE, POSITIVE
from .labels import place_of
from .positions import Sketch

_FOLDER = Path(__file__).parent
_SHOWN = 60  # edges at first


def circuit_page(sketch: Sketch) -> str:
    """Returns the page of a circuit.

    Args:
        sketch: What is shown of it.
    """
    summary = (
        f"{sketch.kept:,} of {counted(sketch.total, 'edge', form=',')}, {sketch.found_by}. 3.1 is head 1 of "
        "layer 3, m2 the MLP of layer 2. Edges end at the left of a head for queries, in the middle for "
        "keys, at the right for values. Orange edges have positive scores, blue ones negative scores."
    )
    return page(
        "Circuit",
        _file("page.html"),
        summary=summary,
        style=_file("page.css") + f":root {{ --positive: {POSITIVE}; --negative: {NEGATIVE}; }}",
        script=_file("page.js"),
        data=_data(sketch),
    )


def _data(sketch: Sketch) -> dict[str, Any]:
    """Nodes with their places, and lines from the strongest on."""
    positions, lines = sketch.positions, sketch.lines
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
