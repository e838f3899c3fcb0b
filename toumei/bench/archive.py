"""The folder of a bench: its experiments, versions and runs."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ..core.errors import ArgumentError
from ..core.files import atomic_write, check_folder
from ..core.json_files import from_json
from .index import Index, Row
from .runs import FORMAT, Run, check_format, read_run


class Archive:
    """Finds runs in a folder.

    Args:
        folder: The folder; it is made where it is missing.

    Attributes:
        expected: Names of experiments that may not have run yet.

    Raises:
        ArgumentError: The folder is of a newer version of toumei, or it is none.
        OSError: The folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.expected = folder, set[str]()
        check_folder(folder)
        self._check()
        self._index = Index(folder)

    def add(self, run: Run) -> None:
        """Notes a run in the index."""
        self._index.add(run)

    def experiments(self) -> list[str]:
        """Returns the names of all experiments that have run."""
        return self._index.experiments()

    def rows(self, experiment: str | None = None) -> list[Row]:
        """Returns what the index knows of the runs of one experiment or of all, the oldest one first.

        Raises:
            ArgumentError: There is no such experiment.
        """
        if experiment is not None and experiment not in self.expected:
            names = self.experiments()
            if experiment not in names:
                raise ArgumentError(
                    f"{self.folder} has no experiment {experiment!r}{_near(experiment, names)}"
                )
        return self._index.rows(experiment)

    def runs(self, experiment: str | None = None, version: str | None = None) -> list[Run]:
        """Returns the runs of all experiments, of one, or of one version, the oldest one first.

        Raises:
            ArgumentError: There is no such experiment or version.
        """
        rows = self.rows(experiment)
        if version is not None:
            rows = self._of_version(version, rows)
        found = (read_run(self.folder / "runs" / row.experiment / row.run) for row in rows)
        return [run for run in found if run is not None]

    def last(self, version: str) -> Run:
        """Returns the last run of a version that ended by itself, or its last one.

        Raises:
            ArgumentError: There is no such version.
        """
        rows = self._of_version(version, self.rows())
        row = next((row for row in reversed(rows) if row.status in ("finished", "failed")), rows[-1])
        run = read_run(self.folder / "runs" / row.experiment / row.run)
        if run is None:
            raise ArgumentError(f"the last run of version {version} is gone")
        return run

    def _of_version(self, version: str, rows: Sequence[Row]) -> list[Row]:
        """The runs of the version that begins with these digits."""
        known = list(dict.fromkeys(row.version for row in rows))
        found = [one for one in known if version and one.startswith(version)]
        if len(found) != 1:
            near = _near(version, found or known)
            raise ArgumentError(f"{self.folder} has no single version {version!r}{near}")
        return [row for row in rows if row.version == found[0]]

    def _check(self) -> None:
        """Makes the folder, or makes sure that it can be read."""
        path = self.folder / "bench.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(f"{self.folder} is no folder")
        try:
            content = from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            with atomic_write(path) as partial:
                partial.write_text(json.dumps({"format": FORMAT}), encoding="utf-8")
            return
        except ValueError as error:
            raise ArgumentError(f"{path} is damaged: {error}") from error
        check_format(path, content if isinstance(content, dict) else {})


def _near(name: str, known: Sequence[str]) -> str:
    """What may have been meant, for a message."""
    near = get_close_matches(name, known, cutoff=0.3) or known[-8:]
    return f": did you mean {', '.join(map(repr, near))}?" if near else ", and no other one either"
