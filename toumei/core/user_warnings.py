"""Warnings that point at the line of the user that led to them. Nothing else in the package warns."""

import sys
import warnings
from types import FrameType

_PACKAGE = __name__.rpartition(".core.")[0]
# What may stand between functions of the package in a stack: torch calls hooks, joblib calls workers.
_BETWEEN = frozenset(("concurrent", "contextlib", "functools", "joblib", "threading", "torch", "tqdm"))


def warn(message: str) -> None:
    """Warns, and names as the place the innermost line that is not of this package.

    Args:
        message: What is wrong, and what helps.

    Example:
        >>> with warnings.catch_warnings(record=True) as found:
        ...     warnings.simplefilter("always")
        ...     warn("the gap is 0.5")
        >>> print(found[0].message)
        the gap is 0.5
    """
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _is_inside(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_inside(frame: FrameType) -> bool:
    """Whether a line is of the package, or of a library that the package calls.

    The name of the module tells, not the file: methods that dataclasses make are in none.
    """
    name = str(frame.f_globals.get("__name__"))
    return f"{name}.".startswith(f"{_PACKAGE}.") or name.partition(".")[0] in _BETWEEN
