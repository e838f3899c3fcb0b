"""Items of a sweep whose function raises an error: what is known of them, also in another process."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from traceback import format_exception
from typing import Any

from .errors import SweepError
from .kinds import shown


@dataclass(frozen=True, repr=False)
class FailedItem:
    """An item of a sweep that failed.

    Attributes:
        index: The place of the item among all items, counted from 0.
        item: The item, shortened.
        error: What was raised; a `SweepError` with the same words if it cannot be sent between processes.
        traceback: Where it was raised.

    Example:
        >>> from toumei.core import sweep
        >>> sweep(float, ["1.5", "one"], errors="collect", verbose=False)
        [1.5, FailedItem(1, 'one': ValueError: could not convert string to float: 'one')]
    """

    index: int
    item: str
    error: Exception
    traceback: str

    def __repr__(self) -> str:
        words = " ".join(str(self.error).split())
        words = words if len(words) <= 80 else f"{words[:77]}..."
        return f"FailedItem({self.index}, {self.item}: {type(self.error).__name__}: {words})"

    def __str__(self) -> str:
        return f"item {self.index}, {self.item}:\n{self.traceback}"


@dataclass(frozen=True)
class Outcome:
    """The result of the item with this index, or its failure."""

    index: int
    result: Any
    failed: FailedItem | None


def attempt(function: Callable[[Any], Any], index: int, item: Any) -> Outcome:
    """Returns the outcome of a function for the item with this index."""
    try:
        return Outcome(index, function(item), None)
    except Exception as error:
        return Outcome(index, None, failure(index, item, error))


def attempt_elsewhere(function: Callable[[Any], Any], index: int, item: Any) -> Outcome:
    """Returns the same as `attempt`, with an error that can be sent to the process of the sweep."""
    outcome = attempt(function, index, item)
    if outcome.failed is None:
        return outcome
    return replace(outcome, failed=replace(outcome.failed, error=_sendable(outcome.failed.error)))


def failure(index: int, item: Any, error: Exception) -> FailedItem:
    """Returns what is known of an item that failed."""
    return FailedItem(index, shown(item), error, "".join(format_exception(error)))


def named(failed: FailedItem, elsewhere: bool) -> Exception:
    """Returns the error of an item with a note that names the item.

    Args:
        failed: The item.
        elsewhere: Whether it was raised in another process; the note then says where in the code.
    """
    note = str(failed) if elsewhere else f"item {failed.index}, {failed.item}"
    error: Any = failed.error
    error.__notes__ = [*getattr(error, "__notes__", []), note]  # which Python 3.11 shows
    return failed.error


def without_frames(failed: FailedItem) -> FailedItem:
    """Returns a failed item whose error does not hold the variables of the functions that it came through."""
    error: BaseException | None = failed.error
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    return failed


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the classes of users raise
        return SweepError(f"{type(error).__name__}: {error}")
    return error
