"""Texts of two kinds, and areas of coordinates that are given."""

import random

import torch

from toumei.transformers.areas import Areas

LAYERS = ("embedding", "first", "second")


def texts_of_two_kinds(count, seed=0, lengths=(3, 9)):
    """So many texts of each kind, of other words and of several lengths, and their kinds."""
    draw = random.Random(seed)
    kinds = {"low": range(1, 25), "high": range(35, 60)}
    texts, labels = [], []
    for _ in range(count):
        for kind, words in kinds.items():
            texts.append(" ".join(f"w{draw.choice(words)}" for _ in range(draw.randint(*lengths))))
            labels.append(kind)
    return texts, labels


def areas_of(coordinates, labels, size=4, bins="width", groups=None, layers=None, categories=("a", "b")):
    """Areas with these coordinates (layers, texts, components)."""
    coordinates = torch.as_tensor(coordinates, dtype=torch.float64)
    layers = LAYERS[: len(coordinates)] if layers is None else layers
    return Areas.of(
        size,
        bins,
        layers=layers,
        categories=categories,
        labels=torch.as_tensor(labels),
        groups=torch.arange(len(labels)) if groups is None else torch.as_tensor(groups),
        coordinates=coordinates,
        explained=torch.full((len(coordinates), coordinates.shape[2]), 0.1),
        constant=(),
        reduction="pca",
        pooling="last",
    )


def random_areas(texts=60, layers=3, components=2, seed=0, **options):
    """Areas of random coordinates, with two categories in turn."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.randn(layers, texts, components, generator=generator, dtype=torch.float64)
    return areas_of(coordinates, torch.arange(texts) % 2, **options)
