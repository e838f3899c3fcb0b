"""What a class declares of the tensors in its fields, and whether they are so."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from .summaries import counted


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
    kind: Literal["float", "integer", "any"] = "float"
    finite: bool = False


def specs(**fields: str | Spec) -> Mapping[str, Spec]:
    """Returns what a class declares of its fields; text stands for axes of floating-point numbers.

    Example:
        >>> specs(values="N units")
        mappingproxy({'values': Spec(axes='N units', kind='float', finite=False)})
    """
    return MappingProxyType({name: Spec(of) if isinstance(of, str) else of for name, of in fields.items()})


def check_specs(given: Any, place: str = "") -> None:
    """Makes sure that a dataclass, and those in its fields, have the tensors that their ``_specs`` declare.

    Raises:
        FieldError: A tensor has another shape or type, or numbers that are not finite.
    """
    sizes: dict[str, Any] = {}
    for name, spec in getattr(given, "_specs", {}).items():
        at, value = join(place, name), getattr(given, name)
        found = list(_tensors_in(value))
        for tensor in found:
            _check_numbers(tensor, spec, at)
            _check_shape(tuple(tensor.shape), spec.axes, sizes, at)
        if not found and isinstance(value, (tuple, list)) and value != ():
            _check_shape((len(value),), spec.axes, sizes, at)
    for field in fields(given):
        for part in _dataclasses_in(getattr(given, field.name)):
            check_specs(part, join(place, field.name))


def join(place: str, name: str | int) -> str:
    """Returns the place of a field or of an item.

    Example:
        >>> join("", "values"), join("values", 0)
        ('values', 'values.0')
    """
    return f"{place}.{name}" if place else str(name)


def _check_numbers(tensor: Tensor, spec: Spec, place: str) -> None:
    floating = tensor.is_floating_point()
    whole = not floating and not tensor.is_complex() and tensor.dtype != torch.bool
    if not {"float": floating, "integer": whole, "any": True}[spec.kind]:
        expected = "floating-point numbers" if spec.kind == "float" else "integers"
        raise FieldError(place, f"should hold {expected}, got {tensor.dtype}")
    if spec.finite and (bad := int((~tensor.isfinite()).sum())):
        raise FieldError(place, f"is not finite in {bad} of {counted(tensor.numel(), 'number')}")


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
