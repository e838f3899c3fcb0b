"""Objects of Python, numpy and pandas as plain values, and back: times, enums, exact numbers, tables."""

import ast
import datetime
import enum
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np

from .hashes import class_name, named_class

DEEPEST = 100  # levels of values in values

_TEXTS: dict[str, type] = {kind.__name__: kind for kind in (Decimal, Fraction, UUID)}
_MAPPINGS: dict[str, Any] = {kind.__name__: kind for kind in (OrderedDict, Counter)}
_TIMES: dict[str, Any] = {
    kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time)
}  # a datetime is a date, too


def plain_of(value: Any) -> tuple[str, str, Any] | None:
    """Returns how an object is written: a key, a text, and plain parts; None if it is no such object.

    Example:
        >>> plain_of(range(3))
        ('$range', 'range', [0, 3, 1])
    """
    kind = type(value)
    if kind in _USUAL:
        return None
    if isinstance(value, enum.Enum):
        return "$enum", class_name(kind), value.value if isinstance(value, enum.Flag) else value.name
    if isinstance(value, np.generic | np.ndarray):
        return _numbers(value)
    if kind in (range, slice):
        return f"${kind.__name__}", kind.__name__, [value.start, value.stop, value.step]
    if kind in _TIMES.values():
        return "$time", kind.__name__, value.isoformat()
    if kind is datetime.timedelta:
        return "$timedelta", "timedelta", [value.days, value.seconds, value.microseconds]
    if kind in _TEXTS.values():
        return "$exact", kind.__name__, str(value)
    if kind is deque:
        return "$deque", "deque", [list(value), value.maxlen]
    if kind is bytearray:
        return "$bytearray", "bytearray", bytes(value)
    if kind in _MAPPINGS.values():
        return "$mapping", kind.__name__, dict(value)
    if kind is defaultdict and (made := value.default_factory) in _FACTORIES.values():
        return "$mapping", f"defaultdict of {getattr(made, '__name__', made)}", dict(value)
    return _table(value)


def _numbers(value: Any) -> tuple[str, str, Any] | None:
    """A number of numpy, or an array whose numbers torch does not have in that form; None for others."""
    kind = value.dtype.kind
    if isinstance(value, np.ndarray):
        if kind in "USOMm" or isinstance(value, np.ma.MaskedArray):
            return None
        if value.dtype.names is not None:
            return "$record", str(value.dtype), [list(value.shape), {n: value[n] for n in value.dtype.names}]
        if kind in _LONG and value.dtype.itemsize > _LONG[kind]:
            texts = [str(one) for one in value.astype(value.dtype.newbyteorder("=")).ravel()]
            return "$cells", str(value.dtype), {"shape": list(value.shape), "cells": texts}
        if not value.dtype.isnative:
            return "$swapped", str(value.dtype), value.astype(value.dtype.newbyteorder("="))
        return None
    if kind in "biufc" and (kind not in _LONG or value.dtype.itemsize <= _LONG[kind]):
        return "$scalar", str(value.dtype), value.item()
    if kind in "Mm":
        return "$instant", str(value.dtype), int(value.astype(np.int64))
    return ("$scalar", str(value.dtype), str(value)) if kind in "Ufc" else None


_USUAL = frozenset({int, float, complex, list, tuple, dict, set})
_FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple)}
_FACTORIES["None"] = None
_LONG = {"f": 8, "c": 16}  # bytes of the longest numbers that torch has


def _table(value: Any) -> tuple[str, str, Any] | None:
    """A table or column of pandas."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame | pandas.Series | pandas.Index):
        return None
    if isinstance(value, pandas.Index):
        if type(value) is pandas.RangeIndex:
            return "$index", "RangeIndex", [list(value.names), [value.start, value.stop, value.step]]
        if isinstance(value, pandas.MultiIndex):
            return "$index", "MultiIndex", [list(value.names), [tuple(row) for row in value]]
        step = getattr(value, "freqstr", None) if value.dtype.kind in "Mm" else None
        return "$index", str(value.dtype), [list(value.names), _cells(value), step]
    if isinstance(value, pandas.Series):
        return "$column", str(value.dtype), [value.name, value.index, _cells(value)]
    columns = [value.iloc[:, place] for place in range(value.shape[1])]
    parts = [[str(one.dtype), _cells(one)] for one in columns]
    return "$table", "DataFrame", [value.columns, value.index, parts]


def _cells(column: Any) -> Any:
    """The values of a column: an array where numpy has numbers for them, else a list, with None for gaps.

    Of categories they are their numbers, names and whether they have an order.
    """
    if column.dtype == "category" and hasattr(column, "cat"):
        return [column.cat.codes.to_numpy(), column.cat.categories, bool(column.cat.ordered)]
    if not hasattr(column.dtype, "na_value"):
        values = column.to_numpy()
        return list(values) if values.dtype.kind == "O" else values
    texts = column.astype(str) if column.dtype.kind in "Mm" else column
    return [None if gap else one for one, gap in zip(texts, column.isna(), strict=True)]


def _index(kind: str, parts: Any) -> Any:
    pandas = sys.modules["pandas"]
    names, values, *step = parts
    if kind == "RangeIndex":
        return pandas.RangeIndex(*values, name=names[0])
    if kind == "MultiIndex":
        return pandas.MultiIndex.from_tuples(values, names=names)
    index = pandas.Index(values, dtype=kind, name=names[0])
    if any(step):
        index.freq = step[0]
    return index


def _column(kind: str, parts: Any) -> Any:
    name, index, values = parts
    pandas = sys.modules["pandas"]
    if kind == "category":
        values = pandas.Categorical.from_codes(values[0], categories=values[1], ordered=values[2])
    return pandas.Series(values, index=index, dtype=None if kind == "category" else kind, name=name)


def _frame(kind: str, parts: Any) -> Any:
    columns, index, inside = parts
    made = {place: _column(dtype, [None, index, values]) for place, (dtype, values) in enumerate(inside)}
    frame = sys.modules["pandas"].DataFrame(made, index=index)
    frame.columns = columns
    return frame


_MADE: dict[str, Callable[[str, Any], Any]] = {
    "$range": lambda text, parts: range(*parts),
    "$slice": lambda text, parts: slice(*parts),
    "$time": lambda text, parts: _TIMES[text].fromisoformat(parts),
    "$timedelta": lambda text, parts: datetime.timedelta(*parts),
    "$exact": lambda text, parts: _TEXTS[text](parts),
    "$deque": lambda text, parts: deque(*parts),
    "$enum": lambda text, parts: _member(named_class(text), parts),
    "$bytearray": lambda text, parts: bytearray(parts),
    "$mapping": lambda text, parts: _mapping(text, parts),
    "$scalar": lambda text, parts: np.dtype(text).type(parts),
    "$instant": lambda text, parts: np.array(parts, np.int64).view(text)[()],
    "$swapped": lambda text, parts: parts.astype(text),
    "$record": lambda text, parts: _record(text, parts),
    "$index": _index,
    "$column": _column,
    "$table": _frame,
    "$cells": lambda text, parts: _array(text, parts),
}
PLAIN_KEYS = frozenset(_MADE)


def plain_made(key: str, text: str, parts: Any) -> Any:
    """Returns the object that `plain_of` has written.

    Raises:
        Exception: What it is made of is not there, such as pandas or a class of the user.
    """
    return _MADE[key](text, parts)


def _member(kind: Any, name: str | int) -> Any:
    if not isinstance(kind, enum.EnumMeta):
        raise LookupError("its module has not been imported, or has no such class any more")
    return kind[name] if isinstance(name, str) else kind(name)


def _mapping(kind: str, parts: Any) -> Any:
    made = kind.removeprefix("defaultdict of ")
    return _MAPPINGS[kind](parts) if made == kind else defaultdict(_FACTORIES[made], parts)


def _record(dtype: str, parts: Any) -> np.ndarray:
    shape, columns = parts
    found = np.empty(shape, np.dtype(ast.literal_eval(dtype)))
    for name, column in columns.items():
        found[name] = column
    return found


def _array(dtype: str, parts: Any) -> np.ndarray:
    array = np.empty(len(parts["cells"]), dtype=object)
    array[:] = parts["cells"]
    found: np.ndarray = array.astype(dtype).reshape(parts["shape"])
    return found
