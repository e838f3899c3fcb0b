"""Runs that also go to MLflow: arguments as parameters, numbers as metrics, everything else as artifacts."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import ArgumentError, ServerError, ToumeiError
from ..core.files import atomic_write
from ..core.json_files import from_json
from ..core.optional import require
from ..core.user_warnings import warn
from .runs import Run

_MARK = "mlflow.json"  # in the folder of a run that was sent: the name of the run there, by address
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "killed": "KILLED"}
_SECONDS, _SECONDS_TO_ANSWER = 3, 10  # to wait for a server
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Mirror:
    """Sends runs to a store of MLflow.

    Args:
        uri: The address of a server, such as ``"http://host:5000"``, or ``"sqlite:///runs.db"``.
        folder: The folder of the bench, where the artifacts of a database are.

    Raises:
        ArgumentError: It is no address.
        MissingDependencyError: mlflow is not installed.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        _check_address(uri)
        self.uri = uri
        self._folder = folder
        with _settings():
            tracking = require("mlflow.tracking", "sending runs to MLflow", "toumei[bench]")
            self._entities = require("mlflow.entities", "sending runs to MLflow", "toumei[bench]")
        self._tracking = tracking
        self._client: Any = None

    def send(self, run: Run) -> bool:
        """Sends a run that has ended; returns whether it had not been sent before.

        Raises:
            ServerError: The store cannot be reached, or refuses it.
        """
        if run.status not in _STATUS or self.uri in _sent(run):
            return False
        self._check_server()
        try:
            with _settings():
                name = self._send(run)
        except ToumeiError:
            raise
        except Exception as error:  # of mlflow, of its database or of the network
            raise ServerError(f"MLflow at {self.uri} does not take run {run.id}: {error}") from error
        with atomic_write(run.folder / _MARK) as partial:
            partial.write_text(json.dumps({**_sent(run), self.uri: name}), encoding="utf-8")
        return True

    def offer(self, run: Run) -> None:
        """Sends a run, or warns that it can be sent later."""
        try:
            self.send(run)
        except (ServerError, OSError) as error:
            warn(f"{error}. The run is kept, and bench.sync() sends it later")

    def _send(self, run: Run) -> str:
        self._client = self._client or self._tracking.MlflowClient(self.uri)
        experiment = self._experiment(run.experiment)
        query = f"tags.`toumei.run` = '{run.id}'"
        there = self._client.search_runs([experiment], query)  # it may have been sent in part
        if there:
            name: str = there[0].info.run_id
        else:
            record = run.record
            tags = {
                "toumei.run": run.id,
                "toumei.version": run.version,
                "toumei.seed": str(run.seed),
                "toumei.model": str(record["model"].get("weights", "")),
                "mlflow.source.git.commit": str((record.get("git") or {}).get("commit") or ""),
                "mlflow.note.content": f"```python\n{run.source}\n```",
            }
            begun = round(1000 * run.started)
            made = self._client.create_run(experiment, begun, tags, f"{run.version} {run.id}")
            name = made.info.run_id
        self._log(run, name)
        self._client.log_artifacts(name, str(run.folder))
        ended = round(1000 * (run.started + (run.seconds or 0)))
        self._client.set_terminated(name, _STATUS[run.status], ended)
        return name

    def _log(self, run: Run, name: str) -> None:
        shown = run.record["shown"]
        params = [
            self._entities.Param(_key(key), str(value)[:5000]) for key, value in shown["arguments"].items()
        ]
        numbers = {key: value for key, value in shown["results"].items() if not isinstance(value, str)}
        if run.seconds is not None:
            numbers["seconds"] = run.seconds
        when = round(1000 * run.started)
        metrics = [self._entities.Metric(_key(key), float(value), when, 0) for key, value in numbers.items()]
        self._client.log_batch(name, metrics=metrics, params=params[:100])

    def _experiment(self, name: str) -> str:
        """The number of the experiment there, which is made where it is missing."""
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            number: str = found.experiment_id
            return number
        place = None if _is_server(self.uri) else (self._folder.absolute() / "mlflow" / name).as_uri()
        made: str = self._client.create_experiment(name, artifact_location=place)
        return made

    def _check_server(self) -> None:
        """Knocks at the server, for MLflow itself would try again for minutes."""
        if not _is_server(self.uri):
            return
        parts = urlsplit(self.uri)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        knock = HTTPConnection(parts.hostname or "", port, timeout=_SECONDS)
        try:
            knock.connect()
            if parts.scheme == "http":
                knock.sock.settimeout(_SECONDS_TO_ANSWER)
                knock.request("GET", f"{parts.path.rstrip('/')}/health")
                knock.getresponse()
        except (OSError, HTTPException) as error:
            raise ServerError(f"there is no MLflow server at {self.uri}: {error}") from error
        finally:
            knock.close()


def _check_address(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        right = bool(uri.strip()) and (not _is_server(uri) or (parts.hostname and parts.port != 0))
    except ValueError:  # a port that is none
        right = False
    if not right:
        raise ArgumentError(
            f"mlflow is the address of a server or database, such as 'http://host:5000' or "
            f"'sqlite:///runs.db', got {uri!r}"
        )


@contextmanager
def _settings() -> Iterator[None]:
    """Settings of MLflow for a block, where the user has none."""
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _sent(run: Run) -> dict[str, str]:
    """The names of a run in the stores that it was sent to."""
    try:
        found: dict[str, str] = from_json((run.folder / _MARK).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def _key(name: str) -> str:
    """A name as MLflow allows it.

    Example:
        >>> _key("heads[0].loss")
        'heads.0.loss'
    """
    return re.sub(r"[^\w\-. /]", "_", re.sub(r"\[(\w+)\]", r".\1", name))
