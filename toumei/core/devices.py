"""Devices that users name."""

from typing import Any

import torch

from .errors import ArgumentError
from .kinds import shown


def as_device(given: Any) -> torch.device:
    """Returns a device on which there can be tensors.

    Args:
        given: A device or its name.

    Raises:
        ArgumentError: There is no such device here.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    try:
        torch.empty(0, device=given)
        return torch.device(given)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise ArgumentError(f"there is no device {shown(given)}: {_why(given, error)}") from error


def _why(given: Any, error: Exception) -> str:
    """The devices of this machine, and what torch says of a kind of device that it knows."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = f"this machine has {' and '.join(['cpu', *(name for name, found in has.items() if found)])}"
    try:
        torch.device(given)
    except (RuntimeError, TypeError, ValueError):
        return there
    return f"{there}. {error}"
