"""Rows of attributions: some of them, several attributions below each other, and tables of pandas."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import ArgumentError, ShapeError
from ...core.kinds import shown
from ...core.summaries import counted
from .contributions import Contributions
from .inputs import parts_of
from .names import index_of

Result = TypeVar("Result", bound=Contributions)

OF_TARGETS = (
    *("values", "output", "baseline_output", "standard_error", "r_squared", "features"),
    "interactions",
)
"""The fields whose tensors have an axis of targets in front of that of the rows, if there are several."""

_OF_FEATURES = ("features", "interactions")
_BY_ROW = ("row_names", "tokens", "classes")


def each(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Returns a tensor, or a structure of tensors, after a change; None as it is."""
    if value is None or isinstance(value, Tensor):
        return None if value is None else change(value)
    if isinstance(value, tuple):
        return tuple(change(part) for part in value)
    return {name: change(part) for name, part in value.items()}


def row_number(result: Contributions, row: int | str) -> int:
    """Returns the number of a row, given by its number or its name.

    Raises:
        ArgumentError: There is no such row.
    """
    names, count = result.row_names or (), len(result)
    if isinstance(row, str):
        if not names:
            raise ArgumentError(f"no row {row!r}: the rows have no names")
        return index_of(row, names, "row", "rows")
    if not -count <= row < count:
        raise ArgumentError(f"no row {row}: there are {count}, 0 to {count - 1}")
    return row % count


def taken_rows(result: Result, rows: Any) -> Result:
    """Returns an attribution of some rows.

    Args:
        result: The attribution.
        rows: A slice, numbers, or a truth for each row.

    Raises:
        ArgumentError: Something else, rows that do not exist, or none.
    """
    try:
        numbers = torch.arange(len(result))[rows if isinstance(rows, slice) else torch.as_tensor(rows)]
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"rows are a slice, numbers from 0 to {len(result) - 1} or a truth for each row, got {rows!r}"
        ) from error
    if numbers.dim() != 1 or not len(numbers):
        raise ArgumentError(f"an attribution has at least one row, got {rows!r} of {len(result)}")

    def of_targets(tensor: Tensor) -> Tensor:
        return tensor.index_select(int(result.several), numbers)

    changed: dict[str, Any] = {name: each(getattr(result, name), of_targets) for name in OF_TARGETS}
    for name in _BY_ROW:
        values = getattr(result, name)
        changed[name] = None if values is None else tuple(values[row] for row in numbers.tolist())
    data = None if result.data is None else result.data[numbers]
    return replace(result, data=data, **changed)


def concatenated(results: Sequence[Result]) -> Result:
    """Returns attributions of the same method, targets and columns as one, with all their rows.

    Raises:
        ArgumentError: None, or attributions of another kind.
        ShapeError: Contributions of other shapes.
    """
    if not len(results) or not all(isinstance(result, Contributions) for result in results):
        raise ArgumentError(f"there must be at least one attribution, and nothing else, got {shown(results)}")
    first = results[0]
    for name in ("method", "several", "complete", "names", "feature_names"):
        found = list(dict.fromkeys(getattr(result, name) for result in results))
        if len(found) > 1:
            raise ArgumentError(f"attributions of different {name}: {found[0]!r} and {found[1]!r}")
    axis = int(first.several)
    changed: dict[str, Any] = {}
    try:
        for name in OF_TARGETS:
            changed[name] = _joined([getattr(result, name) for result in results], axis, name in _OF_FEATURES)
        changed["data"] = _joined([result.data for result in results], 0)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ShapeError(f"contributions of different shapes: {listed_shapes(results)}") from error
    for name in _BY_ROW:
        values = [getattr(result, name) for result in results]
        changed[name] = None if None in values else tuple(one for of_result in values for one in of_result)
    seeds = {result.seed for result in results}
    return replace(
        first,
        seed=first.seed if len(seeds) == 1 else None,
        repeat_gap=max(result.repeat_gap for result in results),
        **changed,
    )


def listed_shapes(results: Sequence[Contributions]) -> str:
    """Returns the shapes of contributions, for a message."""
    return ", ".join(str([tuple(part.shape) for part in parts_of(result.values)]) for result in results[:6])


def _joined(values: Sequence[Any], axis: int, of_features: bool = False) -> Any:
    """Tensors, or structures of them, along an axis; None where one result has none.

    Features that some results do not have are 0 there, as in the result of one call.
    """
    if any(value is None for value in values):
        return None
    if of_features:
        count = max(value.shape[-1] for value in values)
        values = [F.pad(value, (0, count - value.shape[-1]) * (value.dim() - 1 - axis)) for value in values]
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values), axis)
    if isinstance(first, tuple):
        return tuple(torch.cat(parts, axis) for parts in zip(*values, strict=True))
    return {name: torch.cat([value[name] for value in values], axis) for name in first}


def columns_of(result: Contributions) -> Tensor:
    """Returns contributions of columns, or of other features, (T, N, M).

    Raises:
        ArgumentError: Contributions of something else, such as pictures without features.
    """
    (values, *more) = parts_of(result.values)
    if not more and values.dim() == 1 + result.several:  # a number a row is a column
        values = values[..., None]
    if more or values.dim() != 2 + result.several:
        if result.features is None:
            raise ArgumentError(
                f"only tables (N, M) have columns, got contributions {listed_shapes([result])}; those of "
                f"pictures are drawn by overlay()"
            )
        values = result.features
    return values if result.several else values[None]


def column_names(result: Contributions, count: int) -> tuple[str, ...]:
    """Returns the names of M columns, or numbers of features that are other than the columns."""
    names = result.feature_names or ()
    return names if len(names) == count else tuple(f"feature {index}" for index in range(count))


def target_labels(result: Contributions, count: int) -> tuple[str, ...]:
    """Returns the names of T targets, by default their numbers."""
    return result.names or tuple(f"target {index}" for index in range(count))


def row_labels(result: Contributions) -> tuple[str, ...] | None:
    """Returns the name and the class of each row, as far as they are known; None if neither is."""
    parts = [part for part in (result.row_names, result.classes) if part is not None]
    return tuple(map(": ".join, zip(*parts, strict=True))) if parts else None


def as_frame(result: Contributions) -> Any:
    """Returns a table of pandas: a row for each input, below each other for several targets.

    Texts have a row for each token, with the columns ``token`` and ``contribution``.
    """
    import pandas

    values = columns_of(result).double().numpy()
    rows = _index_of(result.row_names or (), len(result))
    targets = target_labels(result, len(values))
    if result.tokens is not None:
        names = ["target", "row", "position"]
        frames = [
            pandas.DataFrame({"token": words, "contribution": row[: len(words)]})
            for of_target in values
            for words, row in zip(result.tokens, of_target, strict=True)
        ]
        keys = [(target, row) for target in targets for row in rows]
        whole = pandas.concat(frames, keys=keys, names=names)
        return whole if result.several else whole.droplevel("target")
    columns = column_names(result, values.shape[2])
    frames = [pandas.DataFrame(of_target, index=rows, columns=columns) for of_target in values]
    if not result.several:
        return frames[0]
    return pandas.concat(frames, keys=targets, names=["target", "row"])


def _index_of(names: Sequence[str], count: int) -> list[str] | list[int]:
    """The names of rows, as whole numbers where all are: so a table is joined with that it was made of."""
    if all(name.isdecimal() and name == str(int(name)) for name in names):
        return [int(name) for name in names] or list(range(count))
    return list(names)


def summed(result: Result, groups: Mapping[str, Sequence[str | int]] | Sequence[str]) -> Result:
    """Returns an attribution of groups of columns, each the sum of its columns' contributions.

    Args:
        result: Of a table.
        groups: For each group its columns, by name or number; or the group of each column.

    Raises:
        ArgumentError: Columns that do not exist, or that are in no group or in several.
    """
    values = columns_of(result)
    count = values.shape[2]
    columns = column_names(result, count)
    if isinstance(groups, Mapping):
        of_groups = {
            name: [feature_number(one, columns) for one in members] for name, members in groups.items()
        }
    else:
        if len(groups) != count:
            raise ArgumentError(
                f"{counted(len(groups), 'group')} for {counted(count, 'column')}: give the group of each "
                "column"
            )
        of_groups = {name: [i for i, of in enumerate(groups) if of == name] for name in dict.fromkeys(groups)}
    times = [sum(members.count(index) for members in of_groups.values()) for index in range(count)]
    wrong = [columns[index] for index, many in enumerate(times) if many != 1]
    if wrong:
        raise ArgumentError(f"every column is in one group, but in none or in several are {wrong[:6]}")
    total = torch.stack([values[:, :, members].sum(2) for members in of_groups.values()], 2)
    return replace(
        result,
        values=total if result.several else total[0],
        standard_error=None,  # does not follow from the errors of the terms
        features=None,
        interactions=None,
        data=None,
        tokens=None,
        feature_names=tuple(of_groups),
    )


def feature_number(given: str | int, columns: Sequence[str]) -> int:
    """The number of a column.

    Raises:
        ArgumentError: There is no such column.
    """
    if isinstance(given, str):
        return index_of(given, columns, "feature", "features")
    if not -len(columns) <= given < len(columns):
        raise ArgumentError(f"no feature {given}: there are {len(columns)}, 0 to {len(columns) - 1}")
    return given % len(columns)
