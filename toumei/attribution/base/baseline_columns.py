"""Baselines with named columns, in the order of the columns of the inputs."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.conversions import MISFIT, as_tensor
from ...core.errors import ArgumentError
from ...core.user_warnings import warn
from .names import is_table
from .random_baselines import FromData


def in_order(
    baselines: Any, inputs: Any, fitted: tuple[str, ...] | None, names: tuple[str, ...] | None
) -> Any:
    """Returns baselines with the columns in the order of those of the inputs.

    A row or a table of pandas, and data that were drawn from one, have names. They belong to the columns of a
    table of pandas, or else to those that an estimator was fitted to, and must be the same ones. Of numbers
    with other names only the order can be told, where the names are the same.

    Args:
        baselines: What the user gave.
        inputs: What the user gave.
        fitted: The columns of the table that an estimator was fitted to.
        names: Of the columns, where the inputs have none.

    Raises:
        ArgumentError: Other columns than those of the inputs.

    Example:
        >>> import pandas
        >>> import torch
        >>> mean = pandas.Series({"dose": 2.0, "age": 40.0})
        >>> in_order(mean, torch.rand(3, 2), ("age", "dose"), None).tolist()
        [40.0, 2.0]
    """
    found = _columns(baselines)
    columns = tuple(map(str, inputs.columns)) if is_table(inputs) else fitted
    if found is None or found == (columns or names):
        return baselines
    if columns is None and (names is None or set(names) != set(found)):
        return baselines
    wanted = columns or names or ()
    if len(set(found)) != len(found) or set(found) != set(wanted):
        unknown = [name for name in found if name not in wanted]
        missing = [name for name in wanted if name not in found]
        raise ArgumentError(
            f"the baseline has other columns than the inputs: unknown {unknown[:6]}, missing {missing[:6]}"
        )
    order = [found.index(name) for name in wanted]
    if isinstance(baselines, FromData):
        return replace(baselines, data=baselines.data[:, order], columns=wanted)
    return baselines.iloc[order] if baselines.ndim == 1 else baselines.iloc[:, order]


def warn_of_itself(baselines: Any, inputs: Any) -> None:
    """Warns where each row of several is its baseline, as where the rows to draw from are those explained."""
    tensor: Any = as_tensor(baselines) if hasattr(baselines, "shape") else MISFIT
    if tensor is MISFIT or not isinstance(inputs, Tensor) or tensor.shape != inputs.shape or len(inputs) < 2:
        return
    if torch.equal(tensor.to(inputs), inputs):
        warn(
            "the baseline of each input is that input, so that all contributions are 0: rows to draw from "
            "are FromData(rows), one row for all is rows.mean(0)"
        )


def _columns(baselines: Any) -> tuple[str, ...] | None:
    """The names of the columns of a baseline, None where it has none."""
    if isinstance(baselines, FromData):
        return baselines.columns
    if is_table(baselines):
        return tuple(map(str, baselines.columns))
    if type(baselines).__module__.partition(".")[0] != "pandas" or not hasattr(baselines, "index"):
        return None
    labels = baselines.index.tolist()
    return tuple(labels) if all(isinstance(label, str) for label in labels) else None
