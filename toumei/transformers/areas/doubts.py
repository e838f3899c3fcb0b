"""Warnings of areas that say nothing, with what to give instead."""

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
    if unused := [repr(name) for name, count in zip(areas.categories, counts, strict=True) if not count]:
        doubts.append(f"the dataset declares categories without texts, which have no area: {listed(unused)}")
    return doubts
