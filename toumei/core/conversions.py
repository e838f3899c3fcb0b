"""Values that are converted without loss, such as arrays to tensors; what does not fit becomes `MISFIT`."""

from operator import index
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

MISFIT = object()


def as_tensor(value: Any) -> Any:
    """Returns a tensor as it is, numbers in an array, in lists or in a table of pandas as a tensor.

    A tensor that was made in inference mode, which cannot be used where gradients are, is copied. Strings,
    ragged lists and lists of tensors misfit, and so do tensors of quantized numbers, and arrays of
    which a mask hides numbers.

    Example:
        >>> as_tensor([[1, 2], [3, 4]])
        tensor([[1, 2],
                [3, 4]])
    """
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized:
            return MISFIT
        if not value.is_inference() or torch.is_inference_mode_enabled():
            return value
        return value.clone()
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, list | tuple):
        if not _of_numbers(value):
            return MISFIT
        try:
            return torch.tensor(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            return MISFIT
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or np.ma.is_masked(value):
        return MISFIT
    try:
        # torch takes no reversed axes, such as those of an image whose colours are turned from BGR to RGB
        return torch.tensor(np.ascontiguousarray(value, value.dtype.newbyteorder("=")).reshape(value.shape))
    except (TypeError, ValueError):  # a dtype that torch does not have, such as float128
        return MISFIT


def has_values(value: Any) -> bool:
    """Returns whether a tensor holds numbers that can be read: not a sparse, a quantized or a meta tensor.

    Example:
        >>> has_values(torch.ones(2)), has_values(torch.ones(2, device="meta"))
        (True, False)
    """
    return isinstance(value, Tensor) and as_tensor(value) is not MISFIT and not value.is_meta


def _of_numbers(value: Any) -> bool:
    """Whether nested lists hold nothing but numbers; looks at the first of each list."""
    while isinstance(value, list | tuple):
        if not value:
            return True
        value = value[0]
    return isinstance(value, int | float | np.number) and not isinstance(value, str)


def as_whole(value: Any) -> Any:
    """Returns a whole number, also of numpy or in a tensor, as an int."""
    if type(value) is int:
        return value
    if isinstance(value, bool | np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        return MISFIT
    try:
        return index(value)
    except (TypeError, ValueError, RuntimeError):
        return MISFIT


def as_number(value: Any) -> Any:
    """Returns a real number that is not NaN, also of numpy or in a tensor, as an int or a float."""
    if isinstance(value, bool | np.bool_ | str | bytes):
        return MISFIT
    if not isinstance(value, int | float | np.number | np.ndarray | Tensor):
        return MISFIT
    if isinstance(value, Tensor | np.ndarray) and tuple(value.shape) != ():
        return MISFIT
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return MISFIT
    if number != number:
        return MISFIT
    return value if isinstance(value, int | float) else number


def as_truth(value: Any) -> Any:
    """Returns True or False, also of numpy, as a bool."""
    return bool(value) if isinstance(value, bool | np.bool_) else MISFIT


def as_text(value: Any) -> Any:
    """Returns a string."""
    return value if isinstance(value, str) else MISFIT


def as_path(value: Any) -> Any:
    """Returns a path that is no string."""
    return value if isinstance(value, PathLike) else MISFIT


def as_none(value: Any) -> Any:
    """Returns None."""
    return value if value is None else MISFIT
