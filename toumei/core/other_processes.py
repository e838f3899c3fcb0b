"""The outcomes of a sweep in other processes, through the backend of joblib that the user has chosen."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any

from .errors import SweepError
from .failed_items import Outcome, attempt_elsewhere, failure
from .optional import require
from .sent_functions import active_backend, sent

_TRIES = 2  # deaths of processes that had an item, before it runs alone, and then before it has failed
_SECONDS = 5.0  # of a round of items on a backend that hands over nothing before all are done


def outcomes_elsewhere(
    function: Callable[[Any], Any], items: Sequence[tuple[int, Any]], jobs: int
) -> Generator[Outcome, None, None]:
    """Yields the outcomes of a function as they arrive, in any order.

    Where a process dies, what is left is given to others. Items that may have been the reason twice run alone
    at the end, and have failed if they kill two more.

    Args:
        function: The function, which is sent once to each process.
        items: Items, each with its index.
        jobs: How many run at once; -1 for one a core.

    Raises:
        ArgumentError: The function cannot be pickled.
    """
    backend = active_backend()
    died, left, deaths = _deaths(backend), dict(items), Counter[int]()
    in_hand = 2 * require("joblib", "a sweep").effective_n_jobs(jobs)
    with sent(function, backend) as function_there:
        while left:
            together = sorted((index for index in left if deaths[index] < _TRIES), key=deaths.__getitem__)
            batch = together or [next(iter(left))]  # alone
            workers = min(jobs, max(len(batch), 2 if deaths else 1))  # one would be this process
            try:
                for outcome in _outcomes(
                    function_there, {index: left[index] for index in batch}, workers, backend
                ):
                    del left[outcome.index]
                    yield outcome
            except died as error:
                deaths.update(islice((index for index in batch if index in left), in_hand))
                first = batch[0]
                if not together and deaths[first] >= 2 * _TRIES:
                    yield Outcome(first, None, failure(first, left.pop(first), _killed(error)))


def _outcomes(
    function: Callable[[Any], Any], items: Mapping[int, Any], jobs: int, backend: Any
) -> Iterator[Outcome]:
    joblib = require("joblib", "a sweep")
    streams = getattr(backend, "supports_return_generator", False)  # Ray's and others hand over a list
    form = "generator_unordered" if streams else "list"
    _outlive_warnings()
    with joblib.Parallel(n_jobs=jobs, return_as=form) as parallel:
        calls = (joblib.delayed(attempt_elsewhere)(function, *pair) for pair in items.items())
        if streams:
            with _ended(parallel(calls)) as outcomes:
                for outcome in outcomes:  # noqa: UP028, `yield from` would close them outside of `_ended`
                    yield outcome
        else:
            yield from _in_rounds(parallel, calls, 4 * joblib.effective_n_jobs(jobs))


def _outlive_warnings() -> None:
    """Keeps one warning of joblib from being an error, whatever the user's filters say.

    joblib starts a worker anew that has become 300 MB larger. It warns in the thread that starts workers: an
    error there would end the thread, and the sweep would wait for ever.
    """
    warnings.filterwarnings("default", "A worker stopped while some jobs were given", module="joblib")


def _deaths(backend: Any) -> tuple[type[Exception], ...]:
    """The errors of a backend that say that a process has died."""
    found: list[tuple[str, str]] = {
        "LokyBackend": [("joblib.externals.loky.process_executor", "TerminatedWorkerError")],
        "DaskDistributedBackend": [("distributed.scheduler", "KilledWorker")],
        "RayBackend": [("ray.exceptions", "RayActorError"), ("ray.exceptions", "WorkerCrashedError")],
    }.get(type(backend).__name__, [])
    return tuple(getattr(import_module(module), name) for module, name in found)


def _killed(error: Exception) -> SweepError:
    reason = " ".join(str(error).split())
    return SweepError(
        f"its process died {_TRIES} times while it ran alone, as from too little memory "
        f"({type(error).__name__}: {reason[:200]})"
    )


def _in_rounds(parallel: Any, calls: Iterator[Any], size: int) -> Iterator[Outcome]:
    """Runs some items at a time, so that not everything is lost if the sweep is killed.

    Rounds grow until one takes a few seconds: at the end of each, workers wait for the last one.
    """
    while some := list(islice(calls, size)):
        start = time.monotonic()
        yield from parallel(some)
        if time.monotonic() - start < _SECONDS:
            size *= 2


@contextmanager
def _ended(outcomes: Any) -> Iterator[Any]:
    """Ends what is still running when the block ends, without joblib's warning that it was not needed."""
    try:
        yield outcomes
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="joblib")
            outcomes.close()
