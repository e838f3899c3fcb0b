"""The labels of classifiers, by the names that the config of a model has for them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...core.errors import UnitError
from .encoding import checked_index


def labelled(
    model: Any, targets: Sequence[Any], against: Any, said: Tensor
) -> list[tuple[int, int | None, str]]:
    """Returns the index of each target's label, that of the other one, and a name.

    Args:
        model: The model, whose config has the names of labels.
        targets: Names or indices of labels, or None for the likeliest one.
        against: The other label, or None.
        said: Logits (labels,).

    Raises:
        UnitError: A label that there is not.
    """
    names = _label_names(model, len(said))
    other = None if against is None else _label(names, against)
    found = []
    for target in targets:
        index = int(said.argmax()) if target is None else _label(names, target)
        found.append((index, other, names[index] if other is None else f"{names[index]} - {names[other]}"))
    return found


def _label_names(model: Any, count: int) -> list[str]:
    """The names of the labels in their order, numbers where the config has none."""
    config = getattr(model, "config", None)
    named = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    by_name = {index: str(name) for name, index in (getattr(config, "label2id", None) or {}).items()}
    return [named.get(index, by_name.get(index, str(index))) for index in range(count)]


def _label(names: list[str], given: Any) -> int:
    if isinstance(given, str):
        same = [index for index, name in enumerate(names) if name == given]
        same = same or [index for index, name in enumerate(names) if name.lower() == given.strip().lower()]
        if len(same) != 1:
            raise UnitError(f"no class {given!r}: there are {', '.join(map(repr, names))}")
        return same[0]
    return checked_index(given, len(names), "token or class")
