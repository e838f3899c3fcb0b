"""Functions on their way to other processes: pickled once, and read once in each process.

joblib sends a function along with every item, and a function may hold a model of gigabytes.
"""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .files import atomic_write
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
    """
    name = type(backend).__name__
    if name in ("ThreadingBackend", "SequentialBackend"):
        yield function
        return
    reduction = require("joblib.externals.loky.backend.reduction", "a sweep", "joblib")
    content = bytes(reduction.dumps(function))
    if name in ("LokyBackend", "MultiprocessingBackend"):
        with TemporaryDirectory() as folder:
            path = Path(folder, "function")
            with atomic_write(path) as partial:
                partial.write_bytes(content)
            yield _InFile(path)
    elif name == "DaskDistributedBackend":
        (future,) = backend.client.scatter([content], broadcast=True, hash=False)
        yield _OnDask(future.key)
        future.release()
    elif name == "RayBackend":
        yield _OnRay(require("ray", "a sweep on Ray").put(content))
    else:
        yield _Along(content)


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
    """A function in a file of this machine."""

    path: Path

    def content(self) -> bytes:
        """Returns the pickled function."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class _OnDask(_Sent):
    """A function that each worker of a Dask cluster holds under a key."""

    key: str

    def content(self) -> bytes:
        """Returns the pickled function."""
        distributed = require("distributed", "a sweep on Dask")
        content: bytes = distributed.Future(self.key, distributed.get_client()).result()
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
