"""Warnings of areas that say nothing, with what to give instead."""

import warnings

import torch

from ...core.summaries import listed
from .result import Areas


def doubts_about_texts(areas: Areas) -> list[str]:
    """Returns what is wrong with the texts and their states: all the same, or categories without texts."""
    doubts = []
    if areas.constant:
        doubts.append(
            f"all {len(areas)} texts have the same {areas.pooling} state in {listed(areas.constant)}, so "
            f"that one cell holds them all: give another pooling or leave these layers out"
        )
    counts = torch.bincount(areas.labels, minlength=len(areas.categories)).tolist()
    pairs = zip(areas.categories, counts, strict=True)
    if few := [f"{name!r} has {count}" for name, count in pairs if count < 2]:
        doubts.append(f"a category with fewer than two texts has no area: {listed(few)}. Give more texts")
    return doubts


def doubts_about_cells(areas: Areas) -> list[str]:
    """Returns what is wrong with the maps: more cells than texts."""
    if not areas.cells.numel() or areas.size**2 <= len(areas):
        return []
    enough = int((len(areas) / 4) ** 0.5)
    smaller = f", or map_dimension={enough}" if enough > 1 else ""
    return [
        f"maps of {areas.size} x {areas.size} have more cells than there are texts, {len(areas)}, so that "
        f"most cells hold none: give more texts{smaller}"
    ]


def warn_of(doubts: list[str], stacklevel: int) -> None:
    """Warns of each doubt."""
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=stacklevel + 1)
