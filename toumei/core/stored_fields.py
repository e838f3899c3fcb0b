"""The fields of a dataclass as JSON and tensors, and back, each checked against its annotation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .summaries import counted
from .tensor_specs import FieldError, join

_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}


class Tensors:
    """The tensors of a file by name, and which of them have been used."""

    def __init__(self, named: Mapping[str, Tensor] | None = None) -> None:
        self.named = dict(named or {})
        self._unused = set(self.named)

    def put(self, place: str, tensor: Tensor) -> dict[str, Any]:
        """Keeps a tensor under the name of its place, and returns what stands for it in the header."""
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise FieldError(place, f"is a tensor without plain numbers in memory ({tensor.layout})")
        name = place
        while name in self.named:  # a key of a dictionary may have a dot in it
            name += "'"
        self.named[name] = tensor.detach()
        return {"tensor": name, **_described(tensor)}

    def take(self, place: str, found: Any) -> Tensor:
        """Returns the tensor that the header names, once."""
        if not isinstance(found, dict) or not isinstance(name := found.get("tensor"), str):
            raise FieldError(place, f"should be a tensor, got {_shown(found)}")
        if name not in self.named:
            raise FieldError(place, f"is missing: there is no tensor {name!r}")
        tensor = self.named[name]
        if name not in self._unused or found != {"tensor": name, **_described(tensor)}:
            raise FieldError(place, f"is {_described(tensor)}, but the header says {found}")
        self._unused.discard(name)
        return tensor

    def check_used(self) -> None:
        """Raises a `FieldError` if there are tensors that no field has."""
        for name in sorted(self._unused):
            raise FieldError(name, "is a tensor that the class does not have")


def stored(given: Any, kind: Any, place: str, tensors: Tensors) -> Any:
    """Returns a value as JSON, and puts its tensors aside.

    Args:
        given: The value.
        kind: Its annotation: a scalar, a literal, a tensor, an optional, a union, a tuple, a sequence, a
            mapping from strings or integers, or a dataclass of them.
        place: Where it stands, for messages and for the names of tensors.
        tensors: Takes the tensors.

    Raises:
        FieldError: The value is not of the kind.
    """
    if kind is Tensor and isinstance(given, Tensor):
        return tensors.put(place, given)
    if (options := _options(kind)) is not None:
        return _first(options, kind, place, given, lambda option: stored(given, option, place, tensors))
    if _is_sequence(kind) and isinstance(given, (tuple, list)):
        kinds = _item_kinds(kind, given, place)
        return [
            stored(item, item_kind, join(place, index), tensors)
            for index, (item, item_kind) in enumerate(zip(given, kinds, strict=True))
        ]
    if _is_mapping(kind) and isinstance(given, Mapping):
        key_kind, item_kind = get_args(kind)
        if any(not _fits(key, key_kind) for key in given):
            raise FieldError(place, f"should have keys of {_told(key_kind)}, got {list(given)}")
        return {str(key): stored(item, item_kind, join(place, key), tensors) for key, item in given.items()}
    if is_dataclass(kind) and type(given) is kind:
        return {
            name: stored(getattr(given, name), field_kind, join(place, name), tensors)
            for name, field_kind in stored_annotations(kind).items()
            # left out where it is empty, so that older versions can read the file
            if getattr(given, name) is not None or name not in _added(kind)
        }
    if _fits(given, kind):
        return given
    raise FieldError(place, f"should be {_told(kind)}, got {_shown(given)}")


def restored(found: Any, kind: Any, place: str, tensors: Tensors, **more: Any) -> Any:
    """Returns the value that `stored` turned into JSON.

    Args:
        found: The JSON.
        kind: The annotation of the value.
        place: Where it stands.
        tensors: The tensors of the file.
        more: Of a dataclass, the values of the fields that are not stored.

    Raises:
        FieldError: The JSON is not of the kind, or a field is missing or unknown.
    """
    if kind is Tensor:
        return tensors.take(place, found)
    if (options := _options(kind)) is not None:
        return _first(options, kind, place, found, lambda option: restored(found, option, place, tensors))
    if _is_sequence(kind) and isinstance(found, list):
        kinds = _item_kinds(kind, found, place)
        items = [
            restored(item, item_kind, join(place, index), tensors)
            for index, (item, item_kind) in enumerate(zip(found, kinds, strict=True))
        ]
        return items if get_origin(kind) is list else tuple(items)
    if _is_mapping(kind) and isinstance(found, dict):
        key_kind, item_kind = get_args(kind)
        return {
            _key(key, key_kind, place): restored(item, item_kind, join(place, key), tensors)
            for key, item in found.items()
        }
    if is_dataclass(kind) and isinstance(found, dict):
        return _restored_fields(found, kind, place, tensors, more)
    if _fits(found, kind):
        return found
    raise FieldError(place, f"should be {_told(kind)}, got {_shown(found)}")


def stored_annotations(kind: Any) -> dict[str, Any]:
    """Returns the annotation of each field of a dataclass that is stored.

    Fields in the class' ``_not_stored`` are left out.
    """
    hints = get_type_hints(kind)
    left_out = getattr(kind, "_not_stored", ())
    return {field.name: hints[field.name] for field in fields(kind) if field.name not in left_out}


def _restored_fields(
    found: dict[str, Any], kind: Any, place: str, tensors: Tensors, more: dict[str, Any]
) -> Any:
    kinds = stored_annotations(kind)
    for name in found:
        if name not in kinds:
            raise FieldError(join(place, name), "is not known")
    for name in kinds:
        if name not in found and name not in _added(kind):
            raise FieldError(join(place, name), "is missing")
    values = {
        name: restored(found.get(name), field_kind, join(place, name), tensors)
        for name, field_kind in kinds.items()
    }
    return kind(**values, **more)


def _added(kind: Any) -> tuple[str, ...]:
    """The fields that files of older versions do not have, which are None there."""
    added: tuple[str, ...] = getattr(kind, "_added", ())
    return added


def _options(kind: Any) -> tuple[Any, ...] | None:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else None


def _first(options: tuple[Any, ...], kind: Any, place: str, given: Any, convert: Callable[[Any], Any]) -> Any:
    """The value as the first of several kinds that it has; the error of the only one where there is one."""
    if given is None and NoneType in options:
        return None
    others = [option for option in options if option is not NoneType]
    if len(others) == 1:
        return convert(others[0])
    said = f"should be {_told(kind)}, got {_shown(given)}"
    for option in others:
        try:
            return convert(option)
        except FieldError as error:
            said = said if error.problem.startswith("should be ") else error.problem
    raise FieldError(place, said)


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list, Sequence)


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (dict, Mapping)


def _item_kinds(kind: Any, items: Sequence[Any], place: str) -> list[Any]:
    """The annotation of each item."""
    kinds = list(get_args(kind))
    if get_origin(kind) is not tuple or kinds[-1] is Ellipsis:
        return [kinds[0]] * len(items)
    if len(kinds) != len(items):
        raise FieldError(place, f"should have {counted(len(kinds), 'item')}, got {len(items)}")
    return kinds


def _key(key: str, kind: Any, place: str) -> str | int:
    if kind is str:
        return key
    try:
        number = int(key)
    except ValueError:
        number = None
    if number is None or str(number) != key:
        raise FieldError(place, f"should have keys of {_told(kind)}, got {key!r}")
    return number


def _fits(given: Any, kind: Any) -> bool:
    """Whether a value is a scalar of the kind, or one of the values of a literal."""
    if get_origin(kind) is Literal:
        return any(given == value and type(given) is type(value) for value in get_args(kind))
    if isinstance(given, bool):
        return kind is bool
    return isinstance(given, _SCALARS.get(kind, ()))


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _shown(given: Any) -> str:
    """A value in a message, by its type and as much of it as fits."""
    if isinstance(given, Tensor):
        return f"a tensor of shape {tuple(given.shape)}"
    text = repr(given)
    return f"{type(given).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _told(kind: Any) -> str:
    """An annotation in a message."""
    return (
        kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
    )
