"""A run of an experiment: a folder, whose file run.json says what it is.

A run that goes on, or that was killed, has begun.json instead. A folder without both is of a run that was
killed before it began.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..core.errors import ArgumentError
from ..core.files import atomic_write
from ..core.json_files import from_json
from ..core.summaries import shortened
from .loaded_values import loaded, lost, not_kept, saved_parts

FORMAT = 1  # of folders; a change that older versions of the package cannot read raises it
RECORD, BEGUN = "run.json", "begun.json"


@dataclass(frozen=True)
class Run:
    """A run of an experiment.

    Attributes:
        id: Its name, which begins with the time in UTC.
        experiment: The name of the function.
        version: The hash of source, arguments, model and tools.
        status: ``"finished"``, ``"failed"``, ``"interrupted"``, ``"running"`` or ``"killed"``.
        started: When it began, in seconds since 1970.
        seconds: How long it took; None while it is running.
        seed: What its random numbers came from.
        folder: Where everything about it is.
        record: What the file run.json holds.

    Example:
        >>> run = Run("20260101-1", "where", "abc", "finished", 0.0, 1.5, 0, Path("runs"), {})
        >>> run.status, run.seconds
        ('finished', 1.5)
    """

    id: str
    experiment: str
    version: str
    status: str
    started: float
    seconds: float | None
    seed: int
    folder: Path
    record: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        took = "" if self.seconds is None else f", {self.seconds:.3g} s"
        return (
            f"Run({shortened(self.experiment)!r}, version {self.version}, {self.status}{took}, {self.id!r})"
        )

    def __str__(self) -> str:
        lines = [f"{self.experiment}, version {self.version}, run {self.id}: {self.status}"]
        for part in self.record.get("shown", {}).values():
            lines += [f"  {name} = {text}" for name, text in part.items()]
        lines += [f"  {place} is not kept: {why}" for place, why in self.record.get("unkept", {}).items()]
        if self.error is not None:
            lines.append(f"  {self.error['type']}: {self.error['message']}")
        return "\n".join(lines)

    @property
    def source(self) -> str:
        """The source of the function."""
        return str(self.record["source"])

    @property
    def error(self) -> Mapping[str, str] | None:
        """The type, message and traceback of the exception that ended it, if one did."""
        found: Mapping[str, str] | None = self.record.get("error")
        return found

    @property
    def figures(self) -> dict[str, Path]:
        """The files of the figures, by their place in the result."""
        return {place: self.folder / name for place, name in self.record.get("figures", {}).items()}

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments by name; what was not kept is a `NotKept`.

        Raises:
            ArgumentError: A file is missing or damaged.
        """
        found: dict[str, Any] = loaded(self.folder, self.record["arguments"])
        return found

    def arguments_to_run(self) -> dict[str, Any]:
        """Returns the arguments by name; all of them can be given again.

        Raises:
            ArgumentError: Some could not be kept, or a file is missing or damaged.
        """
        trees = self.record["arguments"]
        unkept = [name for name, tree in trees.items() if not_kept(tree)]
        if unkept:
            raise ArgumentError(f"{self.experiment} cannot run again: {', '.join(unkept)} could not be kept")
        given = self.arguments()
        for name, tree in trees.items():
            alone = any(isinstance(loaded(self.folder, part), Path) for _, part in saved_parts(tree, name))
            if lost(given[name]) or alone:
                raise ArgumentError(
                    f"{self.experiment} cannot run again: {name} cannot be made again "
                    f"from its file; import what it is of first"
                )
        return given

    def result(self) -> Any:
        """Returns what the experiment returned; what was not kept is a `NotKept`.

        Raises:
            ArgumentError: It has no result, or a file is missing or damaged.
        """
        if "result" not in self.record:
            raise ArgumentError(f"run {self.id} of {self.experiment} has no result: it is {self.status}")
        return loaded(self.folder, self.record["result"])


def new_id() -> str:
    """Returns a name for a run, which begins with the time."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S-%f}-{uuid4().hex[:6]}"


def this_process() -> dict[str, Any]:
    """Returns by what this process is told from others, also from those that get its number later."""
    return _process(os.getpid())


@cache
def _process(number: int) -> dict[str, Any]:
    return {"host": socket.gethostname(), "id": number, "began": _began(number)}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the file of a run that begins or that has ended, whole or not at all."""
    # another name, for to replace a file takes longer: some file systems then write it to the disk at once
    with atomic_write(folder / (BEGUN if record["status"] == "running" else RECORD)) as partial:
        partial.write_text(json.dumps(record, separators=(",", ":")), encoding="utf-8")


def read_run(folder: Path) -> Run | None:
    """Returns the run of a folder; None if it never began.

    Raises:
        ArgumentError: Its file is damaged, or of a newer format.
    """
    for path in (folder / RECORD, folder / BEGUN):
        try:
            return _run_of(path, from_json(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(f"{path} is damaged: {error}") from error
    return None


def _run_of(path: Path, record: Any) -> Run:
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}")
    check_format(path, record)
    _check_kinds(record)
    return Run(
        id=path.parent.name,
        experiment=record["experiment"],
        version=record["version"],
        status=_status(record),
        started=float(record["started"]),
        seconds=record["seconds"],
        seed=int(record["seed"]),
        folder=path.parent,
        record=record,
    )


_MAPPINGS = ("arguments", "argument_hashes", "model", "tools", "environment", "process", "shown")
_OF_TEXTS = ("helpers", "values", "figures")
_SOMETIMES = ("unkept", "error")


def _check_kinds(record: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for a part of another kind, a `KeyError` for a missing one."""
    texts_of = [name for name in _OF_TEXTS if name in record or name != "figures"]  # which an end has
    found = {name: record[name] for name in (*_MAPPINGS, *texts_of)}
    found |= {name: record[name] for name in _SOMETIMES if name in record}
    found |= {f"shown {name}": record["shown"][name] for name in ("arguments", "results")}
    for name, value in found.items():
        if not isinstance(value, dict):
            raise ValueError(f"its {name} should be an object, got {type(value).__name__}")
    texts = {name: record[name] for name in ("experiment", "version", "status", "source")}
    texts |= {f"{name} {key}": text for name in texts_of for key, text in found[name].items()}
    texts |= {f"error {name}": record["error"][name] for name in ("type", "message") if "error" in record}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"its {name} should be a text, got {type(value).__name__}")
    if isinstance(record["seconds"], bool) or not isinstance(record["seconds"], int | float | None):
        raise ValueError(f"its seconds are {record['seconds']!r}")


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Makes sure that this version of the package can read a file.

    Raises:
        ArgumentError: It has a newer format, or none.
    """
    version = content.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArgumentError(f"{path} has no format of a bench: {version!r}")
    if version > FORMAT:
        raise ArgumentError(
            f"{path} has format {version}, and this toumei reads formats up to {FORMAT}: "
            f"a newer toumei reads it"
        )


def _status(record: Mapping[str, Any]) -> str:
    """The status of a run, also where its process could not write how it ended."""
    status, process = str(record["status"]), record["process"]
    if status != "running" or process["host"] != socket.gethostname():
        return status
    began = _began(process["id"])
    return status if began is not None and began == process["began"] else "killed"


def _began(process: int) -> str | None:
    """When a process began, in a unit of the system; None if there is no such process."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _alive(process)
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _alive(process: int) -> str | None:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def described(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns everything about a version from its runs, as `Bench.get_version` does."""
    last = next((run for run in reversed(runs) if run.status == "finished"), runs[-1])
    kept = ("source", "helpers", "model", "tools", "environment")
    return {
        **{name: last.record[name] for name in kept},
        "arguments": last.arguments(),
        "result": last.result() if "result" in last.record else None,
        "timestamp": last.started,
        "version": last.version,
        "runs": list(runs),
    }
