"""What values fit a type annotation, and which others can be converted to it without loss."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from .advice import in_place_of
from .conversions import (
    MISFIT,
    as_none,
    as_number,
    as_path,
    as_tensor,
    as_text,
    as_truth,
    as_whole,
    has_values,
)
from .errors import ArgumentError, NotATensorError


@dataclass(frozen=True)
class Kind:
    """The values that fit an annotation.

    Attributes:
        words: How messages call them.
        take: Returns a value that fits as it is, one that can be converted as what it becomes, else `MISFIT`.
    """

    words: str
    take: Callable[[Any], Any]


def kind_of(annotation: Any) -> Kind | None:
    """Returns the kind of an annotation, None where any value will do.

    Example:
        >>> kind = kind_of(int | None)
        >>> kind.words, kind.take(3), kind.take(None), kind.take("3") is MISFIT
        ('a whole number or None', 3, None, True)
    """
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _one_of([kind_of(member) for member in inner])
    if origin is Literal:
        return Kind(f"one of {', '.join(map(repr, inner))}", lambda value: _same(value, inner))
    if origin is tuple and inner:
        return _tuple(inner)
    if origin in (dict, Mapping) or annotation in (dict, Mapping):
        return _mapping(inner)
    if origin in _COLLECTIONS or annotation in _COLLECTIONS:
        return _collection(origin or annotation, inner)
    if origin is PathLike or annotation is PathLike:
        return _SIMPLE[Path]
    if origin is Callable or annotation is Callable:
        return Kind("a function", lambda value: value if callable(value) else MISFIT)
    if origin is type:
        return Kind("a class", lambda value: value if isinstance(value, type) else MISFIT)
    if isinstance(annotation, type) and annotation.__module__.startswith(("toumei", "torch")):
        if getattr(annotation, "_is_protocol", False):
            return None
        name = annotation.__name__
        return Kind(f"a {name}", lambda value: value if isinstance(value, annotation) else MISFIT)
    return None


_COLLECTIONS = (Sequence, Iterable, Collection, list, set, frozenset, Iterator)


def shown(value: Any) -> str:
    """Returns a short text that says what a value is.

    Example:
        >>> shown(torch.zeros(2, 3)), shown("a"), shown(nn.ReLU)
        ('a tensor (2, 3)', "'a'", "<class 'torch.nn.modules.activation.ReLU'>")
    """
    if isinstance(value, Tensor):
        if value.is_nested:
            return "a nested tensor"
        stored = "" if value.layout is torch.strided else "sparse "
        stored = "meta " if value.is_meta else "quantized " if value.is_quantized else stored
        return f"a {stored}tensor {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, list | tuple) and any(isinstance(one, Tensor | np.ndarray) for one in value):
        return f"a {type(value).__name__} of {', '.join(map(shown, value[:3]))}" + ", ..." * (len(value) > 3)
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever the object of a user raises
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"


_SIMPLE: dict[Any, Kind | None] = {
    int: Kind("a whole number", as_whole),
    float: Kind("a number", as_number),
    bool: Kind("True or False", as_truth),
    str: Kind("a string", as_text),
    Path: Kind("a path", as_path),
    Tensor: Kind("a tensor", as_tensor),
    None: Kind("None", as_none),
    NoneType: Kind("None", as_none),
    Any: None,
    object: None,
}


def _same(value: Any, choices: Sequence[Any]) -> Any:
    return value if any(type(value) is type(one) and value == one for one in choices) else MISFIT


def _one_of(kinds: Sequence[Kind | None]) -> Kind | None:
    """The kind of a union: as it is if it fits one member so, else as the first makes of it that takes it."""
    members = [kind for kind in kinds if kind is not None]
    if len(members) < len(kinds):
        return None

    def take(value: Any) -> Any:
        found = MISFIT
        for member in members:
            taken = member.take(value)
            if taken is value:
                return value
            if found is MISFIT:
                found = taken
        return found

    *others, last = dict.fromkeys(member.words for member in members)
    return Kind(f"{', '.join(others)} or {last}" if others else last, take)


def _tuple(inner: Sequence[Any]) -> Kind:
    """Tuples; a list becomes one."""
    if len(inner) == 2 and inner[1] is ...:
        one = kind_of(inner[0])
        words = f"a tuple, each {one.words}" if one else "a tuple"
        return Kind(words, lambda value: _each(value, one, tuple))
    kinds = [kind_of(part) for part in inner]
    parts = ", ".join(kind.words if kind else "anything" for kind in kinds)

    def take(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(kinds):
            return MISFIT
        return _kept(value, [_taken(kind, part) for kind, part in zip(kinds, value, strict=True)], tuple)

    return Kind(f"a tuple ({parts})", take)


def _collection(origin: Any, inner: Sequence[Any]) -> Kind:
    """Collections and iterables, but no strings; what is in lists and tuples is looked at."""
    one = kind_of(inner[0]) if inner else None
    words = f"a sequence, each {one.words}" if one else "a sequence"

    def take(value: Any) -> Any:
        value = _column(value)
        if isinstance(value, list | tuple) and origin not in (set, frozenset):
            return _each(value, one, list if origin is list else type(value))
        if isinstance(value, str) and inner:  # names of one letter
            return value if inner == (str,) and origin is not list else MISFIT
        if isinstance(value, bytes | bytearray | memoryview | Mapping) and inner:
            return MISFIT
        if isinstance(value, range) and value and _taken(one, value[0]) is MISFIT:
            return MISFIT
        if isinstance(value, np.ndarray | Tensor) and not value.ndim:
            return MISFIT
        if isinstance(value, np.ndarray | Tensor) and one is not None:
            unread = isinstance(value, Tensor) and not has_values(value)
            if unread or "a tensor" in one.words:
                return MISFIT
            return _each(value.tolist(), one, list)
        if isinstance(value, origin):
            return value
        listed = hasattr(value, "__getitem__") and (origin is Iterable or hasattr(value, "__len__"))
        return value if listed and not isinstance(value, type | np.generic) else MISFIT

    return Kind(words, take)


def _column(value: Any) -> Any:
    """The values of a column of pandas as a list; `MISFIT` for a table, whose items are names of columns."""
    if type(value).__module__.partition(".")[0] != "pandas" or not hasattr(value, "tolist"):
        return MISFIT if hasattr(value, "iloc") else value
    return value.tolist()


def _mapping(inner: Sequence[Any]) -> Kind:
    one = kind_of(inner[1]) if inner else None
    words = f"a dictionary, each value {one.words}" if one else "a dictionary"

    def take(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return MISFIT
        taken = {key: _taken(one, part) for key, part in value.items()}
        if any(part is MISFIT for part in taken.values()):
            return MISFIT
        return value if all(taken[key] is part for key, part in value.items()) else taken

    return Kind(words, take)


def _each(value: Any, one: Kind | None, make: type) -> Any:
    if not isinstance(value, list | tuple):
        return MISFIT
    return _kept(value, [_taken(one, part) for part in value], make)


def _kept(value: Any, taken: list[Any], make: type) -> Any:
    """The value itself if none of its parts was converted and it has the right class."""
    if any(part is MISFIT for part in taken):
        return MISFIT
    unchanged = all(new is old for new, old in zip(taken, value, strict=True))
    return value if unchanged and isinstance(value, make) else make(taken)


def _taken(kind: Kind | None, value: Any) -> Any:
    return value if kind is None else kind.take(value)


def as_names(names: Any) -> list[str]:
    """Returns the names in an iterable, as a list.

    Raises:
        ArgumentError: It is none, or holds something else than strings.

    Example:
        >>> as_names(("a", "b"))
        ['a', 'b']
    """
    found = names if isinstance(names, list) else list(names) if _is_iterable(names) else [names]
    return list(fitted("names", found, _NAMES))


def _is_iterable(names: Any) -> bool:
    return isinstance(names, Iterable) and not isinstance(names, Tensor | np.ndarray)


def fits(kind: Kind, value: Any) -> bool:
    """Returns whether a value is of a kind, or is converted to it.

    Example:
        >>> fits(kind_of(int), 8), fits(kind_of(int), "8")
        (True, False)
    """
    return _taken(kind, value) is not MISFIT


def fitted(name: str, value: Any, kind: Kind | None) -> Any:
    """Returns a value that fits a kind, converted if need be.

    Raises:
        NotATensorError: It should be a tensor, and cannot become one.
        ArgumentError: It fits none of the kinds.

    Example:
        >>> fitted("samples", 8, kind_of(int))
        8
    """
    taken = _taken(kind, value)
    if taken is MISFIT:
        assert kind is not None
        error = NotATensorError if "a tensor" in kind.words else ArgumentError
        advice = "" if "one of" in kind.words else in_place_of(name, value)
        raise error(f"{name} is {kind.words}, got {shown(value)}{advice}")
    return taken


_NAMES = kind_of(list[str])
