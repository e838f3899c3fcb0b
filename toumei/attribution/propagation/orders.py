"""Products and extremes along an axis, and what is picked by its rank: sort, topk, kthvalue, median."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.summaries import counted
from .calls import Call, NotDecomposed
from .rules import ordered

_LARGEST = 2**26  # pairs of what is picked and what it is picked from


def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """The product of all numbers, or of those along an axis."""
    input = input if dtype is None else input.to(dtype)
    factors = list(input.flatten().unbind(0) if dim is None else input.unbind(dim))
    while len(factors) > 1:
        pairs = zip(factors[::2], factors[1::2], strict=False)
        factors = [a * b for a, b in pairs] + (factors[-1:] if len(factors) % 2 else [])
    if not factors:
        raise NotDecomposed
    return factors[0].unsqueeze(dim) if keepdim and dim is not None else factors[0]


def cumprod(input: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """The products of the first numbers along an axis."""
    parts = list((input if dtype is None else input.to(dtype)).unbind(dim))
    for index in range(1, len(parts)):
        parts[index] = parts[index - 1] * parts[index]
    if not parts:
        raise NotDecomposed
    return torch.stack(parts, dim)


def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The smallest number along axes."""
    return -torch.amax(-input, dim, keepdim)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest number along an axis, and the largest."""
    axes: Any = () if dim is None else dim
    return torch.return_types.aminmax((torch.amin(input, axes, keepdim), torch.amax(input, axes, keepdim)))


def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The smallest number, with its index along an axis, or the smaller of two tensors."""
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return torch.minimum(input, other)
    if dim is None:
        return -(-input).max()
    values, indices = (-input).max(dim, keepdim)
    return torch.return_types.min((-values, indices))


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials of two tensors."""
    return torch.stack(torch.broadcast_tensors(input, other)).logsumexp(0)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """The same of powers of two."""
    return logaddexp(input * math.log(2), other * math.log(2)) / math.log(2)


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """The length of a pair of numbers."""
    return (input.square() + other.square()).sqrt()


ORDERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (prod, cumprod, amin, aminmax, min, logaddexp, logaddexp2, hypot)
}


def picked(call: Call) -> Any:
    """What is picked by its rank along an axis; with the indices of what the function picks."""
    output, noted, x = call.run(), call.noted(), call.get(0, "input")
    if noted is None or not x.requires_grad:
        return output
    alone = isinstance(output, Tensor)  # the values without indices
    place = 0 if call.args else "input"
    before, again = noted[place], call.run({place: noted[place]})
    values, values0 = (output, again) if alone else (output[0], again[0])
    picked_along, keepdim = _axis(call)
    flat, axis = picked_along is None, picked_along or 0
    if flat:
        x, before = x.flatten(), before.flatten()
    lifted = flat or (call.name in ("kthvalue", "median") and not keepdim)
    if lifted:
        values, values0 = values.unsqueeze(axis), values0.unsqueeze(axis)
    if values.shape[axis] * x.numel() > _LARGEST:
        return call.unknown(f" of {counted(x.shape[axis], 'number')}, which compares all pairs of them")
    last = [part.movedim(axis, -1) for part in (values.detach(), values0, x, before)]
    found = ordered(last[0], last[1], last[2], last[3]).movedim(-1, axis)
    found = found.squeeze(axis) if lifted else found
    return found if alone else type(output)((found, *output[1:]))


def _axis(call: Call) -> tuple[int | None, bool]:
    """The axis along which something is picked, None for all numbers, and whether it is kept."""
    if call.name == "msort":
        return 0, True
    if call.name == "sort":
        stable = bool(call.args[1:]) and isinstance(call.args[1], bool)
        axis = call.kwargs.get("dim", -1) if stable else call.get(1, "dim", -1)
        return axis, True
    if call.name in ("topk", "kthvalue"):
        return call.get(2, "dim", -1), bool(call.get(3, "keepdim", False)) or call.name == "topk"
    return call.get(1, "dim"), bool(call.get(2, "keepdim", False))


PICKED = ("sort", "msort", "topk", "kthvalue", "median")
