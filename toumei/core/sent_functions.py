"""Functions on their way to other processes: pickled once, and read once in each process.

joblib sends a function along with every item, and a function may hold a model of gigabytes.
"""

import os
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from inspect import getclosurevars
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FunctionType, MethodType
from typing import Any
from uuid import uuid4

from .errors import ArgumentError
from .files import atomic_write, nameless
from .kinds import shown
from .optional import require


def active_backend() -> Any:
    """Returns the backend of joblib that the user has chosen, by default that of processes."""
    backend, _ = require("joblib", "a sweep").parallel.get_active_backend()
    return backend


@contextmanager
def sent(function: Callable[[Any], Any], backend: Any) -> Iterator[Callable[[Any], Any]]:
    """Yields what other processes call instead of a function.

    Args:
        function: The function.
        backend: A backend of joblib.

    Raises:
        ArgumentError: The function cannot be pickled.
    """
    name = type(backend).__name__
    if name in ("ThreadingBackend", "SequentialBackend"):
        yield function
        return
    content = _pickled(function)
    if name in ("LokyBackend", "MultiprocessingBackend"):
        with _file_of(content) as path:
            yield _InFile(path, uuid4().hex)
    elif name == "DaskDistributedBackend":
        name = f"toumei-{uuid4().hex}"
        backend.client.publish_dataset(content, name=name)
        try:
            yield _OnDask(name)
        finally:
            backend.client.unpublish_dataset(name)
    elif name == "RayBackend":
        yield _OnRay(require("ray", "a sweep on Ray").put(content))
    else:
        yield _Along(content)


@contextmanager
def _file_of(content: bytes) -> Iterator[Path]:
    """A file for other processes of this machine.

    On Linux it has no name: nothing is left of it if this process is killed.
    """
    with ExitStack() as opened:
        for file in nameless(Path(gettempdir())):
            opened.enter_context(file).write(content)
            file.flush()
            yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
            return
        path = Path(opened.enter_context(TemporaryDirectory()), "function")
        with atomic_write(path) as partial:
            partial.write_bytes(content)
        yield path


def _pickled(function: Callable[[Any], Any]) -> bytes:
    """The function as bytes, also where it was defined in a notebook or inside another function."""
    dumps = require("joblib.externals.loky.backend.reduction", "a sweep", "joblib").dumps
    try:
        return bytes(dumps(function, reducers=_reducers()))
    except Exception as error:  # whatever the classes of users raise
        for name, part in _parts(function):
            try:
                dumps(part, reducers=_reducers())
            except Exception:
                raise ArgumentError(
                    f"{shown(function)} cannot be sent to other processes, because its {name} cannot be "
                    f"pickled: {error}"
                ) from error
        raise ArgumentError(f"{shown(function)} cannot be sent to other processes: {error}") from error


def _reducers() -> dict[type, Callable[[Any], Any]]:
    """How to pickle what transformers leaves on models whose hidden states were asked for.

    Its hooks read a variable of the process, which cannot be pickled: the other process has one, too.
    """
    module = sys.modules.get("transformers.utils.output_capturing")
    variable = getattr(module, "_active_collector", None)
    return {} if variable is None else {type(variable): lambda one: (_collector, ())}


def _collector() -> Any:
    return import_module("transformers.utils.output_capturing")._active_collector


def _parts(function: Any) -> Iterator[tuple[str, Any]]:
    """What a function encloses or holds, by name."""
    for name, value in (getattr(function, "__dict__", None) or {}).items():
        yield f"attribute {name!r}", value
    if isinstance(function, FunctionType):
        variables = getclosurevars(function)
        for name, value in {**variables.nonlocals, **variables.globals}.items():
            yield f"variable {name!r}", value
    if isinstance(function, MethodType):
        yield "object", function.__self__
    if isinstance(function, partial):
        yield "function", function.func
        for name, value in [*enumerate(function.args), *function.keywords.items()]:
            yield f"argument {name!r}", value


@dataclass(frozen=True)
class _Sent(ABC):
    """A function that is read once in each process."""

    def __call__(self, item: Any) -> Any:
        return _read(self)(item)

    @abstractmethod
    def content(self) -> bytes:
        """Returns the pickled function."""


@dataclass(frozen=True)
class _InFile(_Sent):
    """A function in a file of this machine, and a name, for files without a name take the place of others."""

    path: Path
    name: str

    def content(self) -> bytes:
        """Returns the pickled function."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class _OnDask(_Sent):
    """A function that the scheduler of a Dask cluster holds under a name.

    Data that is scattered over the workers would be lost with the last worker that has it.
    """

    name: str

    def content(self) -> bytes:
        """Returns the pickled function."""
        distributed = require("distributed", "a sweep on Dask")
        content: bytes = distributed.get_client().get_dataset(self.name)
        return content


@dataclass(frozen=True)
class _OnRay(_Sent):
    """A function in the object store of a Ray cluster."""

    reference: Any

    def content(self) -> bytes:
        """Returns the pickled function."""
        content: bytes = require("ray", "a sweep on Ray").get(self.reference)
        return content


@dataclass(frozen=True)
class _Along(_Sent):
    """A function that is sent along, for other backends: it is pickled and read once all the same."""

    pickled: bytes

    def content(self) -> bytes:
        """Returns the pickled function."""
        return self.pickled


@lru_cache(maxsize=1)
def _read(function: _Sent) -> Callable[[Any], Any]:
    result: Callable[[Any], Any] = pickle.loads(function.content())
    return result
