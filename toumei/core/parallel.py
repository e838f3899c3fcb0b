"""Sweeps: one function over many units, facts, images or shuffles, with finished items on disk."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from .kept_results import KeptResults, keep, kept
from .optional import require
from .sent_functions import active_backend, sent

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
    that the user has chosen with ``joblib.parallel_config("dask")`` or ``"ray"``. The function is sent once
    to each process, not with every item.

    Args:
        function: What to compute.
        items: What to compute it for.
        jobs: How many run at once; -1 for one a core.
        folder: Where each finished item is kept, so that a killed sweep goes on where it was. The results
            must then be tensors, numbers, strings, None, or lists, tuples and dicts of them, or objects with
            the methods ``save(path)`` and ``load(path)``. A result is found again by the content of the item
            and of the function: its code, what it encloses or holds, and the global variables that it reads,
            except for what the first call changes, such as a counter. A file that is damaged is made again.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: The content of an item or of the function cannot be read, or a result cannot be kept
            in the folder.
        OSError: The folder cannot be written.

    Example:
        >>> sweep(abs, [-1, 2, -3], verbose=False)
        [1, 2, 3]
    """
    items = list(items)
    results = None if folder is None else KeptResults(Path(folder), function, items)
    if jobs == 1:
        found = _one_by_one(function, items, results)
        return list(tqdm(found, total=len(items), disable=not verbose))
    joblib = require("joblib", "a sweep")
    backend = active_backend()
    streams = getattr(backend, "supports_return_generator", False)  # Ray's and others hand over a list
    paths = [None if results is None else results.path(index) for index in range(len(items))]
    with sent(function, backend) as function_there:
        task = _Task(function_there)
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator" if streams else "list")
        found = parallel(joblib.delayed(task)(*pair) for pair in zip(items, paths, strict=True))
        return list(tqdm(found, total=len(items), disable=not verbose))


def _one_by_one(
    function: Callable[[Any], Any], items: list[Any], results: KeptResults | None
) -> Iterator[Any]:
    for index, item in enumerate(items):
        if results is None:
            yield function(item)
        elif (found := kept(results.path(index))) is not None:
            yield found[0]
        else:
            result = function(item)
            results.note_changes()
            keep(results.path(index), result, item)
            yield result


class _Task:
    """What runs in other processes: the function, unless its result is in a file already."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, item: Any, path: Path | None) -> Any:
        if path is None:
            return self.function(item)
        if (found := kept(path)) is not None:
            return found[0]
        result = self.function(item)
        keep(path, result, item)
        return result
