"""The fields of a dataclass as JSON and tensors, and back, each checked against its annotation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}
_Kind = Literal["float", "integer", "any"]


class FieldError(Exception):
    """A field that cannot be stored, or that a file holds in another form than the class declares."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"field {place!r} {problem}")
        self.problem = problem


@dataclass(frozen=True)
class Spec:
    """What a class declares of the tensors in a field.

    Attributes:
        axes: Their sizes: a number, a name that stands for one size in the whole class, ``_`` for any size,
            ``*T`` in front for any number of axes, ``...`` at the end for the rest. Of a field without
            tensors, the length.
        kind: Whether the numbers are of a floating-point or of an integer type.
        finite: Whether NaN and infinity are errors.
    """

    axes: str
    kind: _Kind = "float"
    finite: bool = False


def specs(**fields: str | Spec) -> Mapping[str, Spec]:
    """Returns what a class declares of its fields; text stands for axes of floating-point numbers.

    Example:
        >>> specs(values="N units")
        mappingproxy({'values': Spec(axes='N units', kind='float', finite=False)})
    """
    return MappingProxyType({name: Spec(of) if isinstance(of, str) else of for name, of in fields.items()})


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
            stored(item, own, f"{place}.{index}", tensors)
            for index, (item, own) in enumerate(zip(given, kinds, strict=True))
        ]
    if _is_mapping(kind) and isinstance(given, Mapping):
        key_kind, own = get_args(kind)
        if any(not _fits(key, key_kind) for key in given):
            raise FieldError(place, f"should have keys of {_told(key_kind)}, got {list(given)}")
        return {str(key): stored(item, own, f"{place}.{key}", tensors) for key, item in given.items()}
    if is_dataclass(kind) and type(given) is kind:
        return {
            name: stored(getattr(given, name), own, f"{place}.{name}".lstrip("."), tensors)
            for name, own in stored_fields(kind).items()
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
            restored(item, own, f"{place}.{index}", tensors)
            for index, (item, own) in enumerate(zip(found, kinds, strict=True))
        ]
        return items if get_origin(kind) is list else tuple(items)
    if _is_mapping(kind) and isinstance(found, dict):
        key_kind, own = get_args(kind)
        return {
            _key(key, key_kind, place): restored(item, own, f"{place}.{key}", tensors)
            for key, item in found.items()
        }
    if is_dataclass(kind) and isinstance(found, dict):
        return _restored_fields(found, kind, place, tensors, more)
    if _fits(found, kind):
        return found
    raise FieldError(place, f"should be {_told(kind)}, got {_shown(found)}")


def stored_fields(kind: Any) -> dict[str, Any]:
    """Returns the annotation of each field of a dataclass that is stored.

    Fields in the class' ``_not_stored`` are left out.
    """
    hints = get_type_hints(kind)
    left_out = getattr(kind, "_not_stored", ())
    return {field.name: hints[field.name] for field in fields(kind) if field.name not in left_out}


def check_specs(given: Any, place: str = "") -> None:
    """Makes sure that a dataclass, and those in its fields, have the tensors that their ``_specs`` declare.

    Raises:
        FieldError: A tensor has another shape or type, or numbers that are not finite.
    """
    sizes: dict[str, Any] = {}
    for name, spec in getattr(given, "_specs", {}).items():
        at, value = f"{place}.{name}".lstrip("."), getattr(given, name)
        found = list(_tensors_in(value))
        for tensor in found:
            _check_numbers(tensor, spec, at)
            _check_shape(tuple(tensor.shape), spec.axes, sizes, at)
        if not found and isinstance(value, (tuple, list)) and value != ():
            _check_shape((len(value),), spec.axes, sizes, at)
    for name in stored_fields(type(given)):
        for own in _dataclasses_in(getattr(given, name)):
            check_specs(own, f"{place}.{name}".lstrip("."))


def _restored_fields(
    found: dict[str, Any], kind: Any, place: str, tensors: Tensors, more: dict[str, Any]
) -> Any:
    kinds = stored_fields(kind)
    for name in found:
        if name not in kinds:
            raise FieldError(f"{place}.{name}".lstrip("."), "is not known")
    for name in kinds:
        if name not in found:
            raise FieldError(f"{place}.{name}".lstrip("."), "is missing")
    values = {
        name: restored(found[name], own, f"{place}.{name}".lstrip("."), tensors)
        for name, own in kinds.items()
    }
    return kind(**values, **more)


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
        raise FieldError(place, f"should have {len(kinds)} items, got {len(items)}")
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


def _check_numbers(tensor: Tensor, spec: Spec, place: str) -> None:
    floating = tensor.is_floating_point()
    whole = not floating and not tensor.is_complex() and tensor.dtype != torch.bool
    if not {"float": floating, "integer": whole, "any": True}[spec.kind]:
        expected = "floating-point numbers" if spec.kind == "float" else "integers"
        raise FieldError(place, f"should hold {expected}, got {tensor.dtype}")
    if spec.finite and (bad := int((~tensor.isfinite()).sum())):
        raise FieldError(place, f"has {bad} of {tensor.numel()} numbers that are not finite")


def _check_shape(shape: tuple[int, ...], axes: str, sizes: dict[str, Any], place: str) -> None:
    """Compares a shape with its declaration; names without a size yet get theirs."""
    names = axes.split()
    problem = f"should be of shape ({', '.join(names)}), got {shape}"
    if known := {name.lstrip("*"): sizes[name] for name in names if name in sizes}:
        problem += " where " + ", ".join(f"{name} is {size}" for name, size in known.items())
    rest = names[-1:] == ["..."]
    names = names[:-1] if rest else names
    if names and names[0].startswith("*"):
        front = sizes.setdefault(names[0], shape[: max(len(shape) - len(names) + 1, 0)])
        names = [*map(str, front), *names[1:]]
    if len(shape) < len(names) or (len(shape) > len(names) and not rest):
        raise FieldError(place, problem)
    for name, size in zip(names, shape, strict=False):
        expected = int(name) if name.isdigit() else size if name == "_" else sizes.setdefault(name, size)
        if size != expected:
            raise FieldError(place, problem)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for item in _items(value):
        yield from _tensors_in(item)


def _dataclasses_in(value: Any) -> Iterator[Any]:
    if is_dataclass(value):
        yield value
    for item in _items(value):
        yield from _dataclasses_in(item)


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, (tuple, list)) else ()


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
