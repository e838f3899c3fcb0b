"""How often layers run in a pass, which must be as often as in the first one."""

from collections.abc import Iterable, Sequence

from ...core.activations import Activations
from ...core.errors import ArgumentError
from ...core.names import parse_layer
from ...core.summaries import counted
from ...core.surveys import Survey
from .places import Place


def check_runs(
    found: Survey,
    activations: Activations,
    places: Sequence[Place],
    edited: Iterable[str],
    recorded: Iterable[str],
) -> None:
    """Raises an error where layers ran more or less often than in the first pass.

    Args:
        found: What the first pass showed.
        activations: What another pass recorded.
        places: The tensors of the layers that are attributed to.
        edited: The sources of places that were edited.
        recorded: Names of layers that were recorded.

    Raises:
        ArgumentError: There is such a layer.
    """
    for place in places:
        if place.source in edited:
            check_run(found, place.layer, activations.runs(place.source))
    for name in recorded:
        check_run(found, name, activations.runs(name))


def check_run(found: Survey, layer: str, runs: int) -> None:
    """Raises an error for a layer that ran another number of times than in the first pass.

    Raises:
        ArgumentError: It did, and its name does not say which run counts.
    """
    if runs != found.runs[layer] and parse_layer(layer).run is None:
        raise ArgumentError(
            f"the layer {layer!r} ran {counted(found.runs[layer], 'time')} in the first pass and "
            f"{counted(runs, 'time')} in another: its last run is only meant where their number does not "
            "depend on the inputs"
        )
