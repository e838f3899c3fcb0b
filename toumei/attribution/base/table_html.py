"""An attribution of a table as a piece of HTML: the strongest columns by the first rows."""

from collections.abc import Sequence

from torch import Tensor

from ...core.notebooks import escaped
from ...core.summaries import counted
from ...plots.tables import number_text
from ...plots.tokens import shade
from .contributions import Contributions
from .rows import column_names, columns_of, row_labels, target_labels
from .table_plots import with_values

_MOST_COLUMNS, _MOST_ROWS, _MOST_TARGETS = 10, 8, 4


def columns_html(result: Contributions) -> str:
    """Returns a table for each target: a line for each of the strongest columns, a column for each row.

    Colours are those of texts, orange for the target and blue against it; the strongest contribution of a row
    has the full colour. What is left out is added up in the last line, or counted below.
    """
    values = columns_of(result)
    names = column_names(result, values.shape[2])
    if len(result) == 1:
        names = with_values(result, 0, names)
    heads = row_labels(result) or [f"row {index}" for index in range(len(result))]
    several = target_labels(result, len(values)) if result.several else (_target(result),)
    parts = [
        f'<p style="font-family:sans-serif">{escaped(repr(result))}</p>',
        *(
            _table(of_target, names, heads, title)
            for of_target, title in zip(values[:_MOST_TARGETS].double(), several, strict=False)
        ),
    ]
    left = [(len(result) - _MOST_ROWS, "row"), (len(values) - _MOST_TARGETS, "target")]
    parts += [f"<p>and {counted(count, f'more {what}')}</p>" for count, what in left if count > 0]
    return f"<div>{''.join(parts)}</div>"


def _target(result: Contributions) -> str:
    return result.names[0] if result.names else ""


def _table(values: Tensor, names: Sequence[str], heads: Sequence[str], title: str) -> str:
    """The table of contributions (N, M) to one target."""
    order = values.abs().mean(0).argsort(descending=True, stable=True).tolist()
    shown = values[:_MOST_ROWS]
    largest = shown.abs().amax(1).clamp(min=1e-300).tolist()
    head = "".join(f"<th>{escaped(name)}</th>" for name in heads[:_MOST_ROWS])
    lines = [f"<tr><th>{escaped(f'contribution to {title}' if title else 'contribution')}</th>{head}</tr>"]
    for column in order[:_MOST_COLUMNS]:
        numbers = zip(shown[:, column].tolist(), largest, strict=True)
        lines.append(_line(names[column], "".join(_cell(value, most) for value, most in numbers)))
    if others := order[_MOST_COLUMNS:]:
        sums = shown[:, others].sum(1).tolist()
        name = f"sum of {counted(len(others), 'other')}"
        cells = zip(sums, largest, strict=True)
        lines.append(_line(name, "".join(f"<td>{number_text(value, most)}</td>" for value, most in cells)))
    return f"<table>{''.join(lines)}</table>"


def _line(name: str, cells: str) -> str:
    return f'<tr><th style="text-align:left">{escaped(name)}</th>{cells}</tr>'


def _cell(value: float, largest: float) -> str:
    color = ",".join(map(str, shade(value / largest)))
    return f'<td style="background:rgb({color});color:black">{number_text(value, largest)}</td>'
