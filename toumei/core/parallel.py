"""Sweeps: one function over many units, facts, images or shuffles, with finished items on disk."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from .checks import check_choice, check_jobs
from .errors import ArgumentError
from .failed_items import Outcome, attempt, failure, named, without_frames
from .kept_results import KeptResults, kept
from .kinds import shown
from .optional import require
from .other_processes import outcomes_elsewhere
from .progress import tqdm

Item = TypeVar("Item")
Errors = Literal["raise", "collect"]

_AHEAD = 16  # items for each process that a stream reads before their results are asked for


def sweep(
    function: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    jobs: int = 1,
    folder: str | Path | None = None,
    errors: Errors = "raise",
    verbose: bool = True,
) -> list[Any]:
    """Returns the results of a function for all items, in their order.

    Runs in this process with one job, else through joblib: in processes of this machine, or on the cluster
    that the user has chosen with ``joblib.parallel_config("dask")`` or ``"ray"``. The function is sent once
    to each process, not with every item. If a process dies, what it had in hand runs in another one.

    Args:
        function: What to compute.
        items: What to compute it for.
        jobs: How many run at once; -1 for one a core. On Dask all threads of its workers run.
        folder: Where each result is kept as soon as it arrives, so that a killed sweep goes on where it was.
            Only this process writes there: workers on other machines need not see it. The results must then
            be tensors, numbers, strings, None, or lists, tuples and dicts of them, or objects with the
            methods ``save(path)`` and ``load(path)``. A result is found again by the content of the item and
            of the function: its code, what it encloses or holds, the global variables that it reads, and the
            same of the functions and classes of the user's modules that it calls, except for what the first
            call changes, such as a counter. A file that is damaged is made again.
        errors: What the first item does that fails: ``"raise"`` ends the sweep with its error, and a note
            that names the item; ``"collect"`` puts a `FailedItem` in the place of its result, and the others
            go on. Failed items are not kept, so that the next sweep tries them again.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: The content of an item or of the function cannot be read, a result cannot be kept
            in the folder, the function cannot be pickled for other processes, or `jobs` or `errors` make no
            sense.
        OSError: The folder cannot be written, which is found out before the first item. If the disk is full
            later, a warning names the file, and all results are returned as without a folder.

    Example:
        >>> sweep(abs, [-1, 2, -3], verbose=False)
        [1, 2, 3]
    """
    check_jobs(jobs)
    check_choice("errors", errors, ("raise", "collect"))
    if not callable(function):
        raise ArgumentError(f"expected a function to sweep with, got {shown(function)}")
    items = list(items)
    results = None if folder is None else KeptResults(Path(folder), function, items)
    found = _found(results, len(items))
    missing = [(index, item) for index, item in enumerate(items) if index not in found]
    if results is not None and missing:
        results.check_writable()
    here = jobs == 1 or not missing
    outcomes = _one_by_one(function, missing) if here else outcomes_elsewhere(function, missing, jobs)
    bar = tqdm(total=len(items), initial=len(found), desc="sweep", disable=not verbose)
    failures = 0
    with bar, closing(outcomes):
        for outcome in outcomes:
            outcome = _kept(outcome, items, results)
            result, failed = outcome.result, outcome.failed
            if failed is not None:
                if errors == "raise":
                    raise named(failed, elsewhere=not here)
                result = without_frames(failed)
                failures += 1
                bar.set_postfix(failed=failures, refresh=False)
            found[outcome.index] = result
            bar.update()
    return [found[index] for index in range(len(items))]


def streamed(
    function: Callable[[Item], Any], items: Iterable[Item], *, jobs: int = 1
) -> Generator[tuple[Item, Any], None, None]:
    """Yields each item and its result, in the order of the items, without keeping what was yielded.

    It is `sweep` for endless items, and for results too large to be in memory together. Items are read one at
    a time with one job, else in rounds of a few for each process. Close it where it is left early.

    Args:
        function: What to compute.
        items: What to compute it for.
        jobs: How many run at once, as for `sweep`.

    Raises:
        ArgumentError: The function cannot be pickled for other processes, or `jobs` makes no sense.

    Example:
        >>> from itertools import count
        >>> results = streamed(lambda number: number**2, count())
        >>> next(results), next(results), next(results)
        ((0, 0), (1, 1), (2, 4))
    """
    check_jobs(jobs)
    if jobs == 1:
        for item in items:
            yield item, function(item)
        return
    waiting = iter(items)
    size = _AHEAD * require("joblib", "a sweep").effective_n_jobs(jobs)
    while some := list(islice(waiting, size)):
        with closing(_in_order(outcomes_elsewhere(function, list(enumerate(some)), jobs))) as results:
            for item, result in zip(some, results, strict=True):
                yield item, result


def _in_order(outcomes: Generator[Outcome, None, None]) -> Generator[Any, None, None]:
    """The results of outcomes from other processes, in the order of their items."""
    early: dict[int, Any] = {}
    index = 0
    with closing(outcomes):
        for outcome in outcomes:
            if outcome.failed is not None:
                raise named(outcome.failed, elsewhere=True)
            early[outcome.index] = outcome.result
            while index in early:
                yield early.pop(index)
                index += 1


def _found(results: KeptResults | None, count: int) -> dict[int, Any]:
    """The results that are on disk, by the index of their item."""
    if results is None:
        return {}
    contents = ((index, kept(results.path(index))) for index in range(count))
    return {index: content[0] for index, content in contents if content is not None}


def _one_by_one(
    function: Callable[[Any], Any], missing: Sequence[tuple[int, Any]]
) -> Generator[Outcome, None, None]:
    for index, item in missing:
        yield attempt(function, index, item)


def _kept(outcome: Outcome, items: Sequence[Any], results: KeptResults | None) -> Outcome:
    """The outcome of an item, once its result is on disk; a failure if it cannot be kept there."""
    if results is None or outcome.failed is not None:
        return outcome
    item = items[outcome.index]
    try:
        results.keep(outcome.index, outcome.result, item)
    except ArgumentError as error:
        return Outcome(outcome.index, None, failure(outcome.index, item, error))
    return outcome
