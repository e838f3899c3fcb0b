"""Checks that numbers are neither NaN nor infinite, so that a result never hides that they are."""

from cmath import isfinite

import torch
from torch import Tensor

from .errors import NonFiniteError
from .summaries import counted

_SHOWN = 8


def check_finite(tensor: Tensor, what: str, why: str = "", numbers: Tensor | None = None) -> None:
    """Raises an error where a tensor holds NaN or infinite numbers; the message names the rows.

    Args:
        tensor: Anything; whole numbers are finite.
        what: What it is, as the beginning of a sentence.
        why: What may be the reason, or what to do.
        numbers: (N,) the numbers of the rows, by default from 0 on.

    Raises:
        NonFiniteError: It does.

    Example:
        >>> check_finite(torch.ones(2), "the scores")
        >>> check_finite(torch.tensor([1.0, torch.nan]), "the scores")
        Traceback (most recent call last):
            ...
        toumei.core.errors.NonFiniteError: the scores are not finite in 1 of 2 rows, [1], first nan
    """
    rows = infinite_rows(tensor if tensor.dim() else tensor[None])
    if not len(rows):
        return
    first = tensor[rows[0]].flatten() if tensor.dim() else tensor.flatten()
    number = float(first[~first.isfinite()][0].real)
    shown = shown_rows(rows if numbers is None else numbers.cpu()[rows])
    where = f" in {len(rows)} of {counted(len(tensor), 'row')}, {shown}, first" if tensor.dim() else ":"
    reason = f": {why}" if why else ""
    raise NonFiniteError(f"{what} are not finite{where} {number}{reason}")


def infinite_rows(tensor: Tensor) -> Tensor:
    """Returns the rows of a tensor (N, ...) that hold NaN or infinite numbers, on the CPU.

    Example:
        >>> infinite_rows(torch.tensor([[1.0, 2.0], [torch.inf, 0.0]]))
        tensor([1])
    """
    # a sum is finite if all of its terms are, unless they are huge: one number to look at
    if not (tensor.is_floating_point() or tensor.is_complex()) or isfinite(tensor.detach().sum().item()):
        return torch.zeros(0, dtype=torch.long)
    finite = tensor.detach().isfinite()
    return (~finite.flatten(1).all(1) if tensor.dim() > 1 else ~finite).nonzero()[:, 0].cpu()


def shown_rows(rows: Tensor) -> str:
    """Returns the first few of many row numbers as text.

    Example:
        >>> shown_rows(torch.arange(20))
        '[0, 1, 2, 3, 4, 5, 6, 7, ...]'
    """
    listed = ", ".join(map(str, rows[:_SHOWN].tolist()))
    return f"[{listed}, ...]" if len(rows) > _SHOWN else f"[{listed}]"
