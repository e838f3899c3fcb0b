"""The tensors in whatever a module returns, and the way to put other ones in their place.

Modules return a tensor, a tuple (attention blocks: hidden states first), a mapping (the `ModelOutput` of
Hugging Face) or a dataclass. The main tensor is the tensor itself, the first tensor of a sequence, or the
logits, the last hidden state or else the first tensor of a mapping or dataclass. Where all tensors lie
deeper, it is that of the first part with one. Another one is named by the keys and indices that lead to it:
``[1]``, ``[pooler_output]``.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
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
    return main_tensor(_entries(output)[_main_key(output)])


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
    if not part and isinstance(output, Tensor):
        return tensor
    key, *rest = part or (_main_key(output),)
    key = _found_key(output, key)
    return _with_entry(output, key, with_main_tensor(_entries(output)[key], tensor, rest))


def _with_entry(output: Any, key: Any, value: Any) -> Any:
    if isinstance(output, Mapping):
        if is_dataclass(output) or not isinstance(output, MutableMapping):
            # a ModelOutput takes its fields by name
            return type(output)(**{**output, key: value})
        changed = copy(output)
        changed[key] = value
        return changed
    if isinstance(output, tuple | list):
        items = list(output)
        items[key] = value
        return output._make(items) if hasattr(output, "_make") else type(output)(items)
    return replace(output, **{str(key): value})


def _part_of(output: Any, key: Key) -> Any:
    return _entries(output)[_found_key(output, key)]


def _found_key(output: Any, key: Key) -> Any:
    """The key of a part as the output has it: an index from the end, a field of a named tuple, text."""
    entries = _entries(output)
    if isinstance(output, tuple | list):
        if isinstance(key, int) and key < 0:
            key += len(output)
        elif key in getattr(output, "_fields", ()):
            key = output._fields.index(key)  # type: ignore[union-attr]
    if key not in entries and str(key) in entries:
        key = str(key)
    if key not in entries:
        raise OutputError(
            f"there is no part [{key}] in the output, a {type(output).__name__}: it has {_parts(entries)}"
        )
    return key


def _parts(entries: Mapping[Any, Any]) -> str:
    return ", ".join(f"[{name}]" for name in entries) or "none"


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
    order = (*(key for key in _PREFERRED_KEYS if key in entries), *entries)
    for key in order:
        if isinstance(entries[key], Tensor):
            return key
    for key in order:
        if has_tensor(entries[key]):
            return key
    raise OutputError(
        f"expected a tensor, or a tuple, list, mapping or dataclass that holds one, as the output of a "
        f"module; got {type(output).__name__}" + (f" of the parts {_parts(entries)}" if entries else "")
    )


def tensor_parts(output: Any, part: Sequence[Key] = ()) -> tuple[tuple[Key, ...], ...]:
    """Returns the keys and indices that lead to each tensor in an output, those of its main tensor first.

    Args:
        output: What a module returned.
        part: Keys and indices that lead to a part, in which the tensors are looked for; paths start there.

    Raises:
        OutputError: There is no such part.

    Example:
        >>> import torch
        >>> tensor_parts({"loss": torch.zeros(()), "logits": torch.ones(1, 2), "states": (torch.ones(2),)})
        (('logits',), ('loss',), ('states', 0))
    """
    for key in part:
        output = _part_of(output, key)
    if isinstance(output, Tensor):
        return ((),)
    entries = _entries(output)
    found = [(key, *rest) for key, value in entries.items() for rest in tensor_parts(value)]
    if found:
        main = _main_key(output)
        found.sort(key=lambda path: path[0] != main)
    return tuple(found)


def has_tensor(output: Any) -> bool:
    """Returns whether there is a tensor in an output.

    Example:
        >>> has_tensor((None, {"mask": [1]}))
        False
    """
    return isinstance(output, Tensor) or any(map(has_tensor, _entries(output).values()))
