"""The tensors in whatever a module returns, and the way to put other ones in their place.

Modules return a tensor, a tuple (attention blocks: hidden states first), a mapping (the `ModelOutput` of
Hugging Face) or a dataclass. The main tensor is the tensor itself, the first tensor of a sequence, or the
logits, the last hidden state or else the first tensor of a mapping or dataclass. Another one is named by the
keys and indices that lead to it: ``[1]``, ``[pooler_output]``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from .errors import OutputError

_PREFERRED_KEYS = ("logits", "last_hidden_state")
Key = int | str


def main_tensor(output: Any, part: Sequence[Key] = ()) -> Tensor:
    """Returns the main tensor of a module's output, or of a part of it.

    Args:
        output: A tensor, a tuple or list, a mapping such as a Hugging Face `ModelOutput`, or a dataclass.
        part: Keys and indices that lead to the part.

    Raises:
        OutputError: There is no such part, or no tensor in it; the message says which parts there are.

    Example:
        >>> import torch
        >>> main_tensor((torch.ones(2), None))
        tensor([1., 1.])
        >>> main_tensor((torch.ones(2), (torch.zeros(1), torch.ones(1))), (1, 0))
        tensor([0.])
    """
    for key in part:
        output = _part_of(output, key)
    if isinstance(output, Tensor):
        return output
    tensor: Tensor = _entries(output)[_main_key(output)]
    return tensor


def with_main_tensor(output: Any, tensor: Tensor, part: Sequence[Key] = ()) -> Any:
    """Returns an output of the same kind with a tensor replaced; the given output is left as it is.

    Args:
        output: What a module returned.
        tensor: The tensor to put in the place of its main tensor, or of that of a part.
        part: Keys and indices that lead to the part.

    Raises:
        OutputError: There is no such part, or no tensor in it.

    Example:
        >>> import torch
        >>> with_main_tensor((torch.ones(2), "cache"), torch.zeros(2))
        (tensor([0., 0.]), 'cache')
    """
    if part:
        key, *rest = part
        return _with_entry(output, key, with_main_tensor(_part_of(output, key), tensor, rest))
    return tensor if isinstance(output, Tensor) else _with_entry(output, _main_key(output), tensor)


def _with_entry(output: Any, key: Key, value: Any) -> Any:
    if isinstance(output, Mapping):
        entries = {**output, key: value}
        # a ModelOutput takes its fields by name
        return entries if type(output) is dict else type(output)(**entries)
    if isinstance(output, tuple | list):
        items = list(output)
        items[int(key)] = value
        return output._make(items) if hasattr(output, "_make") else type(output)(items)
    return replace(output, **{str(key): value})


def _part_of(output: Any, key: Key) -> Any:
    entries = _entries(output)
    if isinstance(key, int) and key < 0 and isinstance(output, tuple | list):
        key += len(output)
    if key not in entries:
        known = ", ".join(f"[{name}]" for name in entries) or "none"
        raise OutputError(
            f"there is no part [{key}] in the output, a {type(output).__name__}: it has {known}"
        )
    return entries[key]


def _entries(output: Any) -> dict[Any, Any]:
    """The parts of an output by key, index or field."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple | list):
        return dict(enumerate(output))
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return {}


def _main_key(output: Any) -> Any:
    entries = _entries(output)
    for key in (*(key for key in _PREFERRED_KEYS if key in entries), *entries):
        if isinstance(entries[key], Tensor):
            return key
    raise OutputError(
        f"expected a tensor, or a tuple, list, mapping or dataclass that holds one, as the output of a "
        f"module; got {type(output).__name__}"
    )
