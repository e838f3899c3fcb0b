"""Values in dictionaries that are replaced for a while, and copies of modules that share their weights."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

_MISSING = object()
_BOUND = ("forward", "_compiled_call_impl")  # attributes of a module that call the module itself


@dataclass(frozen=True, eq=False)
class Replacement:
    """A new value in a dictionary, such as the attributes, weights or modules of a module.

    Attributes:
        holder: The dictionary.
        key: Its key.
        value: The new value.
    """

    holder: dict[str, Any]
    key: str
    value: Any


def undoing(changes: Sequence[Replacement]) -> Callable[[], None]:
    """Returns a function that gives the dictionaries their present values back; it can be called again.

    Example:
        >>> numbers = {"a": 1}
        >>> undo = undoing([Replacement(numbers, "a", 2), Replacement(numbers, "b", 3)])
        >>> numbers.update(a=2, b=3)
        >>> undo()
        >>> numbers
        {'a': 1}
    """
    before = [(one.holder, one.key, one.holder.get(one.key, _MISSING)) for one in changes]

    def undo() -> None:
        for holder, key, value in reversed(before):
            if value is _MISSING:
                holder.pop(key, None)
            else:
                holder[key] = value

    return undo


def attribute(module: nn.Module, name: str, value: Any) -> Replacement:
    """Returns the replacement of a plain attribute of a module."""
    return Replacement(module.__dict__, name, value)


def parameter(module: nn.Module, name: str, value: Any) -> Replacement:
    """Returns the replacement of a parameter of a module by a tensor, as trainable as the parameter is."""
    old = module._parameters[name]
    assert old is not None
    new = nn.Parameter(value.detach().to(old.dtype).contiguous(), requires_grad=old.requires_grad)
    return Replacement(module._parameters, name, new)


def sharing_copy(module: nn.Module) -> nn.Module:
    """Returns a copy of a module and the modules inside it, with the same parameters and buffers.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> other = sharing_copy(linear)
        >>> other is linear, other.weight is linear.weight
        (False, True)
    """
    new = object.__new__(type(module))
    for key, value in module.__dict__.items():
        if key not in _BOUND:
            new.__dict__[key] = (
                copy(value) if key.startswith("_") and isinstance(value, dict | set) else value
            )
    new.__dict__["_modules"] = {
        name: None if child is None else sharing_copy(child) for name, child in module._modules.items()
    }
    return new
