"""A table of the runs of an experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..core.notebooks import escaped
from ..core.summaries import counted, shortened
from .index import Row


@dataclass(frozen=True)
class RunTable:
    """The runs of an experiment.

    Attributes:
        experiment: Its name.
        columns: The names of the columns: version, begin, status, seconds, arguments and numbers of results.
        rows: The runs, the oldest one first; None where a run has no such number.
        ids: The names of the runs.

    Example:
        >>> table = RunTable("where", ("layer", "logit"), ((0, 1.5), (1, 2.5)), ("a", "b"))
        >>> print(table)
        layer  logit
        0      1.5
        1      2.5
    """

    experiment: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @checked
    def __getitem__(self, column: str) -> list[Any]:
        """Returns a column.

        Raises:
            ArgumentError: There is no such column.
        """
        if column not in self.columns:
            raise ArgumentError(f"there is no column {shown(column)}; there are {', '.join(self.columns)}")
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    def __repr__(self) -> str:
        versions = len(set(self["version"]))
        return (
            f"RunTable({shortened(self.experiment)!r}, {counted(len(self), 'run')} of "
            f"{counted(versions, 'version')})"
        )

    def __str__(self) -> str:
        texts = [list(self.columns), *([_text(value) for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in texts
        ]
        return "\n".join(line.rstrip()[:220] for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escaped(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{escaped(_text(value))}</td>' for value in row)}</tr>" for row in self.rows
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def table_of(experiment: str, rows: Sequence[Row]) -> RunTable:
    """Returns a table of runs.

    Args:
        experiment: The name of the experiment.
        rows: What the index knows of them.
    """
    parts = [row.shown for row in rows]
    named = {
        part: dict.fromkeys(name for one in parts for name in one[part]) for part in ("arguments", "results")
    }
    results = [f"result {name}" if name in named["arguments"] else name for name in named["results"]]
    begun = (datetime.fromtimestamp(row.started).strftime("%Y-%m-%d %H:%M:%S") for row in rows)
    cells = (
        (
            *(row.version, begin, row.status, row.seconds),
            *(one["arguments"].get(name) for name in named["arguments"]),
            *(one["results"].get(name) for name in named["results"]),
        )
        for row, one, begin in zip(rows, parts, begun, strict=True)
    )
    columns = ("version", "begin", "status", "seconds", *named["arguments"], *results)
    return RunTable(experiment, columns, tuple(cells), tuple(row.run for row in rows))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return shortened(f"{value:.4g}" if isinstance(value, float) else str(value), 40)
