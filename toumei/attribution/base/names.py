"""Names of what attributions show: the columns and rows of tables, and classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from torch import nn

from ...core.errors import ArgumentError, ShapeError, ToumeiError, UnitError
from ...core.kinds import as_names
from ...core.summaries import counted
from .inputs import Inputs, parts_of


@dataclass(frozen=True)
class Names:
    """The names of the columns and of the rows of a table, None where there are none.

    Attributes:
        features: Of the M columns.
        rows: Of the N rows.
    """

    features: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None

    def check(self, inputs: Inputs) -> None:
        """Refuses names that are not as many as the columns or rows of the inputs.

        Raises:
            ArgumentError: Columns have names, but the inputs are no table (N, M).
            ShapeError: Another number of names.
        """
        parts = parts_of(inputs)
        if self.rows is not None and parts and len(self.rows) != len(parts[0]):
            raise ShapeError(
                f"row_names has {counted(len(self.rows), 'name')} for {counted(len(parts[0]), 'input')}"
            )
        if self.features is None:
            return
        if len(parts) != 1 or parts[0].dim() != 2:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ArgumentError(f"feature_names are those of the columns of a table (N, M), got {shapes}")
        if len(self.features) != parts[0].shape[1]:
            raise ShapeError(
                f"feature_names has {counted(len(self.features), 'name')} for "
                f"{counted(parts[0].shape[1], 'column')}"
            )


def is_table(inputs: object) -> bool:
    """Returns whether inputs are a table of pandas."""
    return type(inputs).__module__.partition(".")[0] == "pandas" and hasattr(inputs, "columns")


def check_dense(inputs: object) -> None:
    """Refuses a sparse matrix of scipy.

    Raises:
        ArgumentError: It is one.
    """
    if type(inputs).__module__.partition(".")[0] == "scipy" and hasattr(inputs, "toarray"):
        raise ArgumentError(f"inputs are dense, got a {type(inputs).__name__}: give inputs.toarray()")


def named(
    inputs: Any,
    model: nn.Module,
    feature_names: Sequence[str] | None = None,
    row_names: Sequence[str] | None = None,
) -> tuple[Any, Names]:
    """Returns inputs, those of a table of pandas as an array, and the names of their columns and rows.

    Names that are given come before those of the table, and those before the names of the columns that an
    estimator was fitted to. An index of pandas that only counts has no names.

    Args:
        inputs: What the user gave.
        model: The network; as `as_network` returns it, it may have `feature_names`.
        feature_names: What the user gave.
        row_names: What the user gave.

    Raises:
        ArgumentError: A table with columns that are no numbers, or with other columns than the estimator was
            fitted to, or a sparse matrix.
    """
    check_dense(inputs)
    features = None if feature_names is None else tuple(as_names(feature_names))
    rows = None if row_names is None else tuple(as_names(row_names))
    fitted: tuple[str, ...] | None = getattr(model, "feature_names", None)
    if is_table(inputs):
        columns = tuple(map(str, inputs.columns))
        _check_columns(columns, fitted)
        counting = type(inputs.index).__name__ == "RangeIndex" and inputs.index[:1].tolist() == [0]
        rows = tuple(map(str, inputs.index)) if rows is None and not counting else rows
        return numbers_of(inputs), Names(features or columns, rows)
    shape: tuple[int, ...] = tuple(getattr(inputs, "shape", ()))
    if features is None and fitted is not None and len(shape) == 2 and shape[1] == len(fitted):
        features = fitted
    return inputs, Names(features, rows)


def numbers_of(table: Any) -> np.ndarray[Any, Any]:
    """Returns the numbers (N, M) of a table of pandas.

    Raises:
        ArgumentError: Columns of text, dates or categories.
    """
    others = [f"{name!r} ({kind})" for name, kind in table.dtypes.items() if kind.kind not in "biuf"]
    if others:
        more = ", ..." * (len(others) > 6)
        raise ArgumentError(
            f"the table has columns that are no numbers: {', '.join(others[:6])}{more}. "
            f"Encode them as the model was trained with, such as by pandas.get_dummies, and explain the part "
            f"of a pipeline that takes numbers"
        )
    array: np.ndarray[Any, Any] = table.to_numpy(dtype="float64", na_value=float("nan"))
    return array


def class_index(name: str, classes: Sequence[str]) -> int:
    """Returns the number of a class.

    Raises:
        UnitError: There is no such class, the nearest ones are named, or there are several.

    Example:
        >>> class_index("dog", ("cat", "dog"))
        1
    """
    return index_of(name, classes, "class", "classes", UnitError)


def index_of(
    name: str, known: Sequence[str], one: str, many: str, error: type[ToumeiError] = ArgumentError
) -> int:
    """Returns the place of a name among those of classes, features or rows.

    Raises:
        ToumeiError: Of the given type: there is no such name, and the nearest ones are said, or several.

    Example:
        >>> index_of("dose", ("age", "dose"), "feature", "features")
        1
    """
    found = [index for index, other in enumerate(known) if other == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise error(f"{name!r} is the name of the {many} {found}: give the number of one of them")
    raise error(f"no {one} {name!r}: {nearest(name, known)}")


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns which names are close to one, for a message.

    Example:
        >>> nearest("benig", ("malignant", "benign"))
        'did you mean benign?'
    """
    by_letters = {one.lower(): one for one in known}
    part = [one for lower, one in by_letters.items() if name and name.lower() in lower][:6]
    close = [by_letters[one] for one in get_close_matches(name.lower(), by_letters, n=6, cutoff=0.5)]
    found = list(dict.fromkeys([*close, *part]))[:6]
    if found:
        return f"did you mean {', '.join(found)}?"
    more = f", and {len(known) - 12} more" if len(known) > 12 else ""
    return f"there are {', '.join(known[:12])}{more}"


def _check_columns(columns: tuple[str, ...], fitted: tuple[str, ...] | None) -> None:
    """Refuses a table whose columns are not those that an estimator was fitted to."""
    if fitted is None or columns == fitted:
        return
    if set(columns) == set(fitted):
        raise ArgumentError("the columns of the table stand in another order than the model was fitted to")
    unknown = [name for name in columns if name not in fitted]
    missing = [name for name in fitted if name not in columns]
    raise ArgumentError(
        f"the model was fitted to other columns than the table has: unknown {unknown[:6]}, "
        f"missing {missing[:6]}"
    )
