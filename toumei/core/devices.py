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
        raise ArgumentError(f"there is no device {shown(given)}: {error}") from error
