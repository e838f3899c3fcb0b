"""Objects of Python and pandas as plain values, and back: times, ranges, enums, exact numbers, tables."""

import datetime
import enum
import sys
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np

from .hashes import class_name, named_class

DEEPEST = 100  # levels of values in values

_TEXTS: dict[str, type] = {kind.__name__: kind for kind in (Decimal, Fraction, UUID)}
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
    if isinstance(value, enum.Enum):
        return "$enum", class_name(kind), value.name
    return _table(value)


def _table(value: Any) -> tuple[str, str, Any] | None:
    """A table or column of pandas."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame | pandas.Series | pandas.Index):
        return None
    if isinstance(value, pandas.Index):
        if isinstance(value, pandas.MultiIndex):
            return "$index", "MultiIndex", [list(value.names), [tuple(row) for row in value]]
        return "$index", str(value.dtype), [list(value.names), _cells(value)]
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
    names, values = parts
    if kind == "MultiIndex":
        return pandas.MultiIndex.from_tuples(values, names=names)
    return pandas.Index(values, dtype=kind, name=names[0])


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


def _member(kind: Any, name: str) -> Any:
    if not isinstance(kind, enum.EnumMeta):
        raise LookupError("its module has not been imported, or has no such class any more")
    return kind[name]


def _array(dtype: str, parts: Any) -> np.ndarray:
    array = np.empty(len(parts["cells"]), dtype=object)
    array[:] = parts["cells"]
    found: np.ndarray = array.astype(dtype).reshape(parts["shape"])
    return found
