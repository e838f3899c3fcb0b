"""The index of a bench: one row a run in SQLite, so that thousands of runs are listed at once.

The folders are what counts. The index is brought up to date with them whenever it is read, and made again
where it is damaged; a folder that cannot be written has one in memory.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ArgumentError
from ..core.json_files import from_json
from ..core.user_warnings import warn
from .runs import FORMAT, Run, read_run

_WAIT = 10.0  # seconds for other processes
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    experiment TEXT, run TEXT, version TEXT, status TEXT, started REAL, seconds REAL, summary TEXT,
    PRIMARY KEY (experiment, run)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of a run.

    Attributes:
        experiment: The name of the experiment.
        run: The name of the run.
        version: Its version.
        status: How it ended.
        started: When it began, in seconds since 1970.
        seconds: How long it took.
        summary: JSON of its arguments and of the numbers of its result.
    """

    experiment: str
    run: str
    version: str
    status: str
    started: float
    seconds: float | None
    summary: str

    @property
    def is_open(self) -> bool:
        """Whether the folder of the run has to be read again: it was running, or the row is damaged."""
        try:
            return self.status == "running" or not isinstance(from_json(self.summary), dict)
        except (ValueError, TypeError):
            return True

    @property
    def shown(self) -> dict[str, Any]:
        """Arguments, and numbers of the result, as they are printed in tables."""
        found: dict[str, Any] = from_json(self.summary)
        return found


class Index:
    """The index of a folder.

    Args:
        folder: The folder of the bench, which has the runs in ``runs/EXPERIMENT/RUN``.
    """

    def __init__(self, folder: Path) -> None:
        self.runs, self.path = folder / "runs", folder / f"index-{FORMAT}.sqlite"

    def add(self, run: Run) -> None:
        """Notes a run; where that fails, the next reader finds its folder."""
        with suppress(sqlite3.Error), self._open(self.path, wait=1.0) as database:
            _insert(database, [_row(run)])

    def rows(self, experiment: str | None = None) -> list[Row]:
        """Returns the runs of one experiment or of all, the oldest one first."""
        try:
            with self._open(self.path) as database:
                return self._current(database, experiment)
        except sqlite3.DatabaseError as error:
            if os.access(self.runs.parent, os.W_OK) and not isinstance(error, sqlite3.OperationalError):
                self.path.unlink(missing_ok=True)  # it is damaged
                with self._open(self.path) as database:
                    return self._current(database, experiment)
            with self._open(":memory:") as database:
                return self._current(database, experiment)

    def experiments(self) -> list[str]:
        """Returns the names of all experiments that have a folder."""
        return sorted(_folders(self.runs))

    @contextmanager
    def _open(self, path: Path | str, wait: float = _WAIT) -> Iterator[sqlite3.Connection]:
        if path != ":memory:":
            with suppress(OSError):  # it is there, or SQLite says what is wrong
                # with the permissions of the umask: what SQLite makes, a group can only read
                Path(path).touch(exist_ok=False)
        with closing(sqlite3.connect(path, timeout=wait)) as database:
            database.execute("PRAGMA synchronous = OFF")  # it can be made again
            database.execute(_TABLE)
            yield database

    def _current(self, database: sqlite3.Connection, experiment: str | None) -> list[Row]:
        names = self.experiments() if experiment is None else [experiment]
        found: list[Row] = []
        for name in names:
            rows = {row.run: row for row in _select(database, name)}
            there = _folders(self.runs / name)
            changed = [run for run in there if run not in rows or rows[run].is_open]
            new = {row.run: row for row in map(_row, self._read(name, changed))}
            gone = [row for run, row in rows.items() if run not in there]
            if gone or any(row != rows.get(run) for run, row in new.items()):
                _delete(database, gone)
                _insert(database, new.values())
            rows.update(new)
            found += [row for run, row in rows.items() if run in there]
        return sorted(found, key=lambda row: row.run)

    def _read(self, experiment: str, names: Iterable[str]) -> Iterator[Run]:
        for name in names:
            try:
                run = read_run(self.runs / experiment / name)
            except ArgumentError as error:
                warn(f"left out of the list: {error}")
                continue
            if run is not None:
                yield run


def _folders(path: Path) -> set[str]:
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _row(run: Run) -> Row:
    summary = json.dumps(run.record.get("shown", {}))
    return Row(run.experiment, run.id, run.version, run.status, run.started, run.seconds, summary)


def _select(database: sqlite3.Connection, experiment: str) -> Iterator[Row]:
    query = (
        "SELECT experiment, run, version, status, started, seconds, summary FROM runs WHERE experiment = ?"
    )
    return (Row(*values) for values in database.execute(query, [experiment]))


def _insert(database: sqlite3.Connection, rows: Iterable[Row]) -> None:
    values = [
        (row.experiment, row.run, row.version, row.status, row.started, row.seconds, row.summary)
        for row in rows
    ]
    with database:
        database.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _delete(database: sqlite3.Connection, rows: Iterable[Row]) -> None:
    with database:
        keys = [(row.experiment, row.run) for row in rows]
        database.executemany("DELETE FROM runs WHERE experiment = ? AND run = ?", keys)
