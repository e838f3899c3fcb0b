"""Errors of corpora that have too few texts: for a category, or for the cells of a map."""

from collections.abc import Sequence
from math import isqrt

from ...core.errors import ArgumentError
from ...core.summaries import counted, listed


def check_categories(categories: Sequence[str], labels: Sequence[int]) -> None:
    """Makes sure that no category has a single text.

    Args:
        categories: Their names.
        labels: The number of each text's category.

    Raises:
        ArgumentError: One has; the message names it.

    Example:
        >>> check_categories(["often", "rare"], [0, 0, 1, 1])
    """
    counts = [0] * len(categories)
    for label in labels:
        counts[label] += 1
    alone = [repr(name) for name, count in zip(categories, counts, strict=True) if count == 1]
    if len(alone) == 1:
        raise ArgumentError(
            f"category {alone[0]} has one of the {counted(len(labels), 'text')}, and an area needs two or "
            "more: give more texts of it or leave it out"
        )
    if alone:
        raise ArgumentError(
            f"categories {listed(alone)} have one text each, of {len(labels)}, and an area needs two or "
            f"more: give more texts of them or leave them out"
        )


def check_cells(size: int, texts: int) -> None:
    """Makes sure that maps do not have more cells than there are texts, those of all categories together.

    Args:
        size: Cells in a row of a map.
        texts: How many texts there are.

    Raises:
        ArgumentError: They have more.
    """
    if size**2 <= texts:
        return
    few = isqrt(texts // 4)
    average = f" ({few} gives four texts a cell or more)" if few > 1 else ""
    raise ArgumentError(
        f"maps of {size} x {size} have {counted(size**2, 'cell')} for {counted(texts, 'text')}, so that most "
        f"would hold none: give map_dimension={isqrt(texts)} or less{average}, or more texts"
    )
