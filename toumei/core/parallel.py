"""Sweeps: one function over many units, facts, images or shuffles, with finished items on disk."""

import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from .errors import ArgumentError
from .files import atomic_write
from .optional import require

Item = TypeVar("Item")


def sweep(
    function: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    jobs: int = 1,
    folder: str | Path | None = None,
    verbose: bool = True,
) -> list[Any]:
    """Returns the results of a function for all items, in their order.

    Runs in this process with one job, else through joblib: in processes of this machine, or on the cluster
    that the user has chosen with ``joblib.parallel_config("dask")`` or ``"ray"``.

    Args:
        function: What to compute; importable (not a lambda) when processes are used.
        items: What to compute it for.
        jobs: How many run at once; -1 for one a core.
        folder: Where each finished item is kept, so that a killed sweep goes on where it was. The results
            must then be tensors, numbers, strings, None, or lists, tuples and dicts of them: they are read
            back without running any code. An item is known by its place and its `repr`.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: A result cannot be kept in the folder, or a kept one is damaged.

    Example:
        >>> sweep(abs, [-1, 2, -3], verbose=False)
        [1, 2, 3]
    """
    items = list(items)
    joblib = require("joblib", "a sweep")
    with _sent(function, jobs) as sent:
        task = _Task(sent, None if folder is None else Path(folder))
        results = joblib.Parallel(n_jobs=jobs, return_as="generator")(
            joblib.delayed(task)(index, item) for index, item in enumerate(items)
        )
        return list(tqdm(results, total=len(items), disable=not verbose))


@contextmanager
def _sent(function: Callable[[Item], Any], jobs: int) -> Iterator[Callable[[Item], Any]]:
    """Gives what processes of this machine call instead of a function, which may hold gigabytes.

    joblib would send it along with every item; each process reads it once.
    """
    joblib = require("joblib", "a sweep")
    if jobs == 1 or type(joblib.parallel.get_active_backend()[0]).__name__ != "LokyBackend":
        yield function
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "function")
        with atomic_write(path) as partial, partial.open("wb") as file:
            require("joblib.externals.loky.backend.reduction", "a sweep", "joblib").dump(function, file)
        yield _Sent(path)


@dataclass(frozen=True)
class _Sent:
    """A function that is read from a file, once in each process."""

    path: Path

    def __call__(self, item: Any) -> Any:
        return _read(self.path)(item)


@lru_cache(maxsize=1)
def _read(path: Path) -> Callable[[Any], Any]:
    with path.open("rb") as file:
        function: Callable[[Any], Any] = pickle.load(file)
    return function


def _kept(path: Path) -> Any:
    """Returns the result in a file; any error of the file is an `ArgumentError`."""
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise ArgumentError(f"{path} is damaged, remove it to compute its item again: {error}") from error


class _Task:
    """The function of a sweep, whose results are kept in a folder if there is one, a file an item."""

    def __init__(self, function: Callable[[Any], Any], folder: Path | None) -> None:
        self.function, self.folder = function, folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, index: int, item: Any) -> Any:
        if self.folder is None:
            return self.function(item)
        path = self.folder / f"{index:06d}-{hashlib.sha256(repr(item).encode()).hexdigest()[:12]}.pt"
        if path.exists():
            return _kept(path)
        result = self.function(item)
        try:
            with atomic_write(path) as partial:
                torch.save(result, partial)
                torch.load(partial, weights_only=True)
        except Exception as error:
            raise ArgumentError(f"the result for {item!r} cannot be kept on disk: {error}") from error
        return result
