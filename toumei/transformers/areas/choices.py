"""Layers and categories that are named or numbered."""

from collections.abc import Sequence
from difflib import get_close_matches

from ...core.errors import ArgumentError, LayerError
from ...core.summaries import listed


def layer_of(layers: Sequence[str], layer: str | int) -> int:
    """Returns the place of a layer that is given by its name or its number; negative ones count from the end.

    Raises:
        LayerError: There is no such layer.

    Example:
        >>> layer_of(["embedding", "block"], "block"), layer_of(["embedding", "block"], -2)
        (1, 0)
    """
    if isinstance(layer, int):
        if not -len(layers) <= layer < len(layers):
            raise LayerError(f"no layer {layer}: there are layers 0 to {len(layers) - 1}")
        return layer % len(layers)
    if layer not in layers:
        raise LayerError(f"no layer {layer!r}: {_nearest(layer, layers)}")
    return list(layers).index(layer)


def category_of(categories: Sequence[str], category: str | int) -> int:
    """Returns the number of a category that is given by its name or its number.

    Raises:
        ArgumentError: There is no such category.

    Example:
        >>> category_of(["true", "fake"], "fake")
        1
    """
    if isinstance(category, str) and category in categories:
        return list(categories).index(category)
    if isinstance(category, int) and 0 <= category < len(categories):
        return category
    if isinstance(category, int):
        raise ArgumentError(f"no category {category}: there are {listed(categories, 6)}")
    raise ArgumentError(f"no category {category!r}: {_nearest(category, categories)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"there are {listed(known, 6)}"
