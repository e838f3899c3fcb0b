"""What the methods of an attribution that draw tables do: its numbers and names on axes."""

from typing import TYPE_CHECKING

from torch import Tensor

from ...core.errors import ArgumentError
from ...core.summaries import counted
from ...plots import tables
from ...plots.statistics import heat_map
from ...plots.style import NEGATIVE, darker, drawing, look_of
from .contributions import Contributions
from .inputs import parts_of
from .rows import column_names, columns_of, feature_number, row_number, target_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEUTRAL = "dimgray"  # of magnitudes, which have no sign
_BELOW = (NEGATIVE, darker(NEGATIVE))


def bar(result: Contributions, row: int | str | None, most: int, ax: "Axes | None") -> "Axes":
    """See `Attribution.bar`."""
    values = columns_of(result)
    names, errors = column_names(result, values.shape[2]), None
    if row is None:
        values, label = values.abs().mean(1), "mean magnitude of the contribution"
    else:
        number = row_number(result, row)
        names = with_values(result, number, names)
        values, label, errors = values[:, number], "contribution", _errors(result, number)
    targets = target_labels(result, len(values))
    axes = tables.bar_chart(
        values,
        names,
        targets,
        errors=errors,
        most=most,
        color=_NEUTRAL if row is None else None,
        label=label + _to(result, row),
        ax=ax,
    )
    with look_of(ax):
        axes.set_title(_title(result, row))
    return axes


def waterfall(result: Contributions, row: int | str, most: int, ax: "Axes | None") -> "Axes":
    """See `Attribution.waterfall`."""
    values = _of_one_target(result)
    if result.baseline_output is None:
        raise ArgumentError(f"{result.method} has no baseline to begin at: use bar(row)")
    number = row_number(result, row)
    names = with_values(result, number, column_names(result, values.shape[1]))
    start, end = float(result.baseline_output[number]), float(result.output[number])
    label = "score" + _to(result, row).replace(" to ", " of ")
    axes = tables.waterfall(values[number], names, start, end, most=most, label=label, ax=ax)
    with look_of(ax):
        axes.set_title(_title(result, row), pad=18)
    return axes


def beeswarm(result: Contributions, most: int, ax: "Axes | None") -> "Axes":
    """See `Attribution.beeswarm`."""
    values = _of_one_target(result)
    names = column_names(result, values.shape[1])
    axes = tables.beeswarm(
        values, names, result.data, most=most, label="contribution" + _to(result, None), ax=ax
    )
    with look_of(ax):
        axes.set_title(_title(result, None))
    return axes


def scatter(result: Contributions, feature: int | str, by: int | str | None, ax: "Axes | None") -> "Axes":
    """See `Attribution.scatter`."""
    values = _of_one_target(result)
    if result.data is None:
        raise ArgumentError("the attribution does not hold the values of its columns: it is of no table")
    names = column_names(result, values.shape[1])
    number = feature_number(feature, names)
    other = None if by is None else feature_number(by, names)
    axes = tables.dependence(
        values[:, number],
        result.data[:, number],
        names[number],
        by=None if other is None else result.data[:, other],
        by_name="" if other is None else names[other],
        label="contribution" + _to(result, None),
        ax=ax,
    )
    with look_of(ax):
        axes.set_title(_title(result, None))
    return axes


def heatmap(result: Contributions, most: int, ax: "Axes | None") -> "Axes":
    """See `Attribution.heatmap`."""
    values = _of_one_target(result)
    columns = values.abs().mean(0).argsort(descending=True, stable=True)[:most]
    rows = result.output.argsort(descending=True, stable=True)
    names = [column_names(result, values.shape[1])[index] for index in columns.tolist()]
    with drawing(ax, 7.0, 0.3 * len(names) + 1.4) as ax:
        label = "contribution" + _to(result, None)
        heat_map(values[rows][:, columns].T, names, ax, label=label, below=_BELOW)
        ax.set_xlabel("rows, from the highest score to the lowest")
        ax.set_title(_title(result, None))
    return ax


def interaction_matrix(result: Contributions, row: int | str, ax: "Axes | None") -> "Axes":
    """See `Attribution.interaction_matrix`."""
    if result.interactions is None:
        raise ArgumentError(
            f"{result.method} was not asked for interactions: use ExactShapley(model, interactions=True)"
        )
    if result.several:
        raise ArgumentError("this attribution is for several targets: give attribution[i], that for one")
    number = row_number(result, row)
    matrix = result.interactions[number]
    names = column_names(result, len(matrix))
    if result.tokens is not None and len(result.tokens[number]) == len(matrix):
        names = result.tokens[number]
    side = 0.45 * len(names) + 1.6
    with drawing(ax, side + 1.2, side) as ax:
        label = "contribution of the pair" + _to(result, row)
        heat_map(matrix, names, ax, label=label, below=_BELOW, columns=names)
        ax.tick_params("x", rotation=90 if max(map(len, names)) > 4 else 0)
        ax.set_title(_title(result, row))
    return ax


def _of_one_target(result: Contributions) -> Tensor:
    """Contributions (N, M) to the only target.

    Raises:
        ArgumentError: There are several targets, or the contributions are not those of a table.
    """
    if result.several:
        raise ArgumentError("this attribution is for several targets: give attribution[i], that for one")
    return columns_of(result)[0]


def _errors(result: Contributions, row: int) -> Tensor | None:
    """Standard errors (T, M) of a row, None where they cannot be told."""
    if result.standard_error is None:
        return None
    (errors, *_) = parts_of(result.standard_error)
    if errors.dim() != 2 + result.several:
        return None
    errors = (errors if result.several else errors[None])[:, row]
    return None if errors.isnan().any() else errors


def with_values(result: Contributions, row: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of columns with the values that a row has there."""
    if result.data is None:
        return names
    numbers = result.data[row].tolist()
    return tuple(f"{name} = {number:.4g}" for name, number in zip(names, numbers, strict=True))


def _to(result: Contributions, row: int | str | None) -> str:
    """The class that gets the contributions, for labels."""
    if result.several:
        return ""
    if result.classes is not None:
        return (
            " to the class of each row" if row is None else f" to {result.classes[row_number(result, row)]}"
        )
    return f" to {result.names[0]}" if result.names else ""


def _title(result: Contributions, row: int | str | None) -> str:
    """The method, and the row or how many there are."""
    if row is None:
        return f"{result.method}, {counted(len(result), 'row')}"
    number = row_number(result, row)
    if result.row_names is None and len(result) == 1:
        return result.method  # a row of several that was taken out has no number any more
    return f"{result.method}, row {result.row_names[number] if result.row_names else number}"
