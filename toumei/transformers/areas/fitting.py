"""Coordinates of the texts of a corpus, by one fit of a reduction to the texts of all categories.

There are two ways. Pooled states are kept, and the corpus is read once; or only means and covariances are
kept, and the corpus is read twice, the second time to place the texts. For PCA and SVD both give the same.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.checks import check_memory
from ...core.summaries import counted
from .moments import Moments
from .reductions import Projection, Reduction
from .states import States

_TOGETHER = 1024  # texts whose products are summed at once
_ROUNDING = 1e-5  # share of a coordinate's size below which its range is rounding


Batch = tuple[Tensor, States]


class Coordinates(NamedTuple):
    """Where texts lie.

    Attributes:
        values: (layers, texts, components), float64.
        explained: (layers, components), NaN where it is not known.
        constant: The layers in which all texts have the same state.
    """

    values: Tensor
    explained: Tensor
    constant: tuple[str, ...]


def gathered(batches: Iterable[Batch], texts: int) -> States:
    """Returns the states of all texts in their order, by layer (texts, width).

    Args:
        batches: Of `StateReader.batches`.
        texts: How many there are, 0 where nobody knows.

    Raises:
        ArgumentError: They would take more than 8 GB.
    """
    numbers: list[Tensor] = []
    kept: dict[str, list[Tensor]] = {}
    for batch, states in batches:
        if not numbers:
            width = sum(one.shape[1] for one in states.values())
            check_memory(
                f"the states of {counted(texts, 'text')}",
                texts * width,
                "give keep_states=False, which reads texts twice",
            )
        numbers.append(batch)
        for layer, rows in states.items():
            kept.setdefault(layer, []).append(rows)
    order = torch.cat(numbers).argsort()
    return {layer: torch.cat(kept.pop(layer))[order] for layer in list(kept)}


def streamed_moments(batches: Iterable[Batch]) -> dict[str, Moments]:
    """Returns the moments of the states of all texts, by layer."""
    moments: dict[str, Moments] = {}
    waiting: dict[str, list[Tensor]] = {}
    for _, states in batches:
        for layer, rows in states.items():
            if layer not in moments:
                moments[layer], waiting[layer] = Moments(rows.shape[1]), []
            waiting[layer].append(rows)
            if sum(map(len, waiting[layer])) >= _TOGETHER:
                moments[layer].add(torch.cat(waiting.pop(layer)))
                waiting[layer] = []
    for layer, rows_left in waiting.items():
        if rows_left:
            moments[layer].add(torch.cat(rows_left))
    return moments


def moments_of(states: States) -> dict[str, Moments]:
    """Returns the moments of kept states, by layer."""
    found = {}
    for layer, rows in states.items():
        found[layer] = Moments(rows.shape[1])
        for part in rows.split(_TOGETHER):
            found[layer].add(part)
    return found


def coordinates_of_states(reduction: Reduction, states: States) -> Coordinates:
    """Returns where texts lie whose states were kept.

    Raises:
        ArgumentError: There are too few texts for so many components.
    """
    moments = moments_of(states)
    maps, constant = _projections(reduction, moments), constant_layers(moments)
    found = {}
    for layer, rows in states.items():
        project = maps[layer]
        if project is not None:
            found[layer] = project(rows)
        elif layer in constant:
            found[layer] = torch.zeros(len(rows), reduction.n_components, dtype=torch.float64)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="umap")  # says that a seed takes one thread
                values = reduction.estimator().fit_transform(rows.numpy())
            found[layer] = torch.from_numpy(values).double()
    return coordinates_of(found, maps, constant)


def read_twice(reduction: Reduction, batches: Callable[[str], Iterable[Batch]]) -> Coordinates:
    """Returns where texts lie that are read twice: for the covariances, and to be placed.

    Args:
        reduction: A reduction that is a linear map.
        batches: Begins to read all texts, under a description of what for.

    Raises:
        ArgumentError: There are too few texts for so many components.
    """
    moments = streamed_moments(batches("covariances"))
    maps, constant = _projections(reduction, moments), constant_layers(moments)
    numbers: list[Tensor] = []
    found: dict[str, list[Tensor]] = {layer: [] for layer in maps}
    for batch, states in batches("coordinates"):
        numbers.append(batch)
        for layer, project in maps.items():
            assert project is not None
            found[layer].append(project(states[layer]))
    order = torch.cat(numbers).argsort()
    return coordinates_of({layer: torch.cat(rows)[order] for layer, rows in found.items()}, maps, constant)


def _projections(reduction: Reduction, moments: dict[str, Moments]) -> dict[str, Projection | None]:
    """The linear map of each layer; None where the reduction has none."""
    for layer, one in moments.items():
        reduction.check(layer, one.count, len(one.mean))
    return {layer: reduction.projection(one) for layer, one in moments.items()}


def constant_layers(moments: dict[str, Moments]) -> tuple[str, ...]:
    """Returns the layers in which nothing varies beyond rounding."""
    return tuple(layer for layer, one in moments.items() if not bool(one.deviations.any()))


def coordinates_of(
    found: dict[str, Tensor], maps: dict[str, Projection | None], constant: tuple[str, ...]
) -> Coordinates:
    """Returns the coordinates of all layers as one tensor.

    Their signs are arbitrary, so they are chosen: the coordinates of each layer rise with those of the layer
    before. Coordinates that only round differently become equal.
    """
    values = torch.stack(list(found.values()))
    centred = values - values.mean(1, keepdim=True)
    for layer in range(1, len(values)):
        signs = torch.where((centred[layer] * centred[layer - 1]).sum(0) < 0, -1.0, 1.0)
        values[layer] *= signs
        centred[layer] *= signs
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    same = (high - low) <= _ROUNDING * torch.maximum(low.abs(), high.abs())
    values = torch.where(same, (low + high) / 2, values)
    unknown = torch.full((values.shape[2],), torch.nan, dtype=torch.float64)
    explained = torch.stack([unknown if one is None else one.explained for one in maps.values()])
    return Coordinates(values, explained, constant)
