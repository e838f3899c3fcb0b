"""The changes of layers by which a model writes the optimized values of facts."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from ....core.interrupts import until_the_end
from ...model.families import Anatomy
from ..statistics.second_moments import SecondMoment
from ..weight_edits import registry
from ..weight_edits.low_rank import LowRank
from .keys import read_keys, read_states
from .methods import EditingMethod
from .requests import SubjectText
from .settings import EditSettings
from .value import Value


def layer_changes(
    parts: Anatomy,
    method: EditingMethod,
    texts: Sequence[Sequence[SubjectText]],
    values: Sequence[Value],
    moments: Mapping[int, SecondMoment],
    settings: EditSettings,
    batch_size: int,
) -> dict[int, LowRank]:
    """Returns the change of each layer, in float32 on the CPU.

    A method of one fact adds the optimized vector to the value of its key. A method of many has each layer
    make its share of what is missing after the last layer (Meng et al., 2023, eq. 20).

    Args:
        parts: The model, whose weights are afterwards as before, bit for bit.
        method: The closed form.
        texts: For each fact the texts that its key is the mean of.
        values: The optimized value of each fact.
        moments: Of the keys of each layer.
        settings: The layers, and what the closed form takes.
        batch_size: How many texts are run at once.

    Raises:
        NonFiniteError: The closed form has no solution.
    """
    if not method.many:
        layer = settings.layers[0]
        keys = read_keys(parts, layer, texts, 1 / len(texts[0]), batch_size)
        return {layer: _thin(method.update(keys, values[0].delta.double()[None], moments[layer], settings))}
    wanted = torch.stack([value.start + value.delta for value in values]).double()
    last = parts.block(settings.layers[-1])
    changes: dict[int, LowRank] = {}
    with until_the_end() as cleanup:
        for left, layer in zip(range(len(settings.layers), 0, -1), settings.layers, strict=True):
            reached = read_states(parts, last, [rows[:1] for rows in texts], batch_size)
            keys = read_keys(parts, layer, texts, 0.5, batch_size)
            residuals = (wanted - reached[:, 0]) / left
            changes[layer] = _thin(method.update(keys, residuals, moments[layer], settings))
            if left > 1:
                change, owner = {parts.module(parts.down(layer)): changes[layer]}, object()
                cleanup.add(partial(registry.remove, change, owner))
                registry.apply(change, owner)
    return changes


def _thin(change: LowRank) -> LowRank:
    """The change in float32 on the CPU."""
    keys = None if change.keys is None else change.keys.float().cpu()
    return LowRank(left=change.left.float().cpu(), right=change.right.float().cpu(), keys=keys)
