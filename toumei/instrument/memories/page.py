"""The page to browse memories: one file that needs no other, with a search for neurons and for tokens."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...plots.html import page
from .layer_memories import LayerMemories
from .page_script import BODY, SCRIPT, STYLE
from .trigger_texts import TriggerTexts
from .triggers import Triggers


def browsing_page(layers: Sequence[LayerMemories], corpus: TriggerTexts, count: int, summary: str) -> str:
    """Returns the HTML page of memories.

    Numbers are in it as the bytes of arrays, and of the texts those that are shown.

    Args:
        layers: The memories.
        corpus: The texts that trigger them.
        count: How many triggers of each neuron are shown.
        summary: The line below the title.
    """
    tails = [
        (_first(triggers, count), layer.z(triggers.values)[:, :count])
        for layer in layers
        for _, triggers, _ in layer.tails()
    ]
    shown = torch.cat([triggers.texts.flatten() for triggers, _ in tails]).unique()
    shown = shown[shown >= 0]
    remaining = iter(tails)
    data = {
        "texts": [corpus.texts[row] for row in shown.tolist()],
        "numbers": corpus.numbers[shown.long()].tolist(),
        "vocabulary": corpus.vocabulary,
        "layers": [
            {
                "name": layer.name,
                "neurons": len(layer),
                "mean": _bytes(layer.mean, np.float32),
                "deviation": _bytes(layer.variance.sqrt(), np.float32),
                "tails": [
                    _tail(name, *next(remaining), distributions, corpus, shown)
                    for name, _, distributions in layer.tails()
                ],
            }
            for layer in layers
        ],
    }
    return page("Key-value memories", BODY, summary=summary, style=STYLE, script=SCRIPT, data=data)


def _first(triggers: Triggers, count: int) -> Triggers:
    return Triggers(triggers.values[:, :count], triggers.texts[:, :count], triggers.positions[:, :count])


def _tail(
    name: str, triggers: Triggers, z: Tensor, distributions: Any, corpus: TriggerTexts, shown: Tensor
) -> dict[str, Any]:
    """The triggers of a tail and what it promotes, as the page reads them."""
    places = corpus.places(triggers)
    rows = torch.where(triggers.texts < 0, -1, torch.searchsorted(shown, triggers.texts.contiguous()))
    tail: dict[str, Any] = {
        "name": name,
        "count": triggers.texts.shape[1],
        "texts": _bytes(rows, np.int32),
        "values": _bytes(triggers.values, np.float32),
        "z": _bytes(z, np.float32),
        "starts": _bytes(places.starts, np.int32),
        "ends": _bytes(places.ends, np.int32),
        "tokens": _bytes(places.tokens, np.int32),
        "following": _bytes(places.following, np.int32),
        "promoted": None,
    }
    if distributions is not None:
        tail["promoted"] = {
            "count": distributions.tokens.shape[1],
            "tokens": _bytes(distributions.tokens, np.int32),
            "shares": _bytes(distributions.probabilities, np.float32),
        }
    return tail


def _bytes(numbers: Tensor, kind: type) -> str:
    """Numbers as little-endian bytes in base 64."""
    array = numbers.numpy().astype(np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()
