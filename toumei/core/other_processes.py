"""The outcomes of a sweep in other processes, through the backend of joblib that the user has chosen."""

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from .failed_items import Outcome, attempt_elsewhere
from .optional import require
from .sent_functions import active_backend, sent

_SECONDS = 5.0  # of a round of items on a backend that hands over nothing before all are done


def outcomes_elsewhere(
    function: Callable[[Any], Any], items: Sequence[tuple[int, Any]], jobs: int
) -> Generator[Outcome, None, None]:
    """Yields the outcomes of a function as they arrive, in any order.

    Args:
        function: The function, which is sent once to each process.
        items: Items, each with its index.
        jobs: How many run at once; -1 for one a core.

    Raises:
        ArgumentError: The function cannot be pickled.
    """
    joblib = require("joblib", "a sweep")
    backend = active_backend()
    streams = getattr(backend, "supports_return_generator", False)  # Ray's and others hand over a list
    form = "generator_unordered" if streams else "list"
    _outlive_warnings()
    with (
        sent(function, backend) as function_there,
        joblib.Parallel(n_jobs=min(jobs, len(items)), return_as=form) as parallel,
    ):
        calls = (joblib.delayed(attempt_elsewhere)(function_there, *pair) for pair in items)
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
