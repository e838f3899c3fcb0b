"""Which surgeries a model has now: they change where its activations are."""

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

APPLIED: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()
"""The surgeries that are applied to models, each with its ``number``; the last one is reverted first."""


def surgeries_of(model: nn.Module) -> tuple[int, ...]:
    """Returns the numbers of the surgeries that are applied to a model or to a part of it.

    Example:
        >>> surgeries_of(nn.Linear(2, 2))
        ()
    """
    if not any(APPLIED.values()):
        return ()
    parts = set(model.modules())
    return tuple(one.number for part, several in APPLIED.items() if part in parts for one in several)
