"""Help for units that a gray picture leaves dead: gradients through ReLUs and max-poolings that block them.

Both are contexts around the forward passes of any model. They catch modules, functions and methods, also
those in place, leave every value as it is, and change only what the backward pass makes of a gradient.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from itertools import count
from math import isfinite
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import ArgumentError
from ..core.functions import Function, replacing

Relaxation = Literal["l2", "average"]


@contextmanager
def redirected_relu(model: nn.Module, steps: int = 16) -> Iterator[None]:
    """Lets gradients through dead ReLUs in the first forward passes inside the block, as lucid does.

    Where the gradient of a ReLU is zero for a whole sample, that sample's gradient passes all the same,
    except where the input is negative and the gradient, of a loss that is minimized, would push it further
    down (for a ReLU6 likewise above 6). Samples for which anything passes keep their ordinary gradient, so a
    unit that is alive sees no difference.

    Args:
        model: The network. Only its own forward passes count, not those of its parts.
        steps: In how many of its forward passes with gradients; later ones cost nothing.

    Raises:
        ArgumentError: A negative number of steps.

    Example:
        >>> dead = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        >>> with redirected_relu(relu := nn.ReLU()):
        ...     (-relu(dead)).sum().backward()
        >>> dead.grad
        tensor([[-1., -1.]])
    """
    if steps < 0:
        raise ArgumentError(f"steps is a number of forward passes from 0 on, got {steps}")
    with _replaced(model, _RECTIFIERS, steps):
        yield


@contextmanager
def relaxed_max_pool(model: nn.Module, kind: Relaxation = "l2") -> Iterator[None]:
    """Spreads the gradients of max-poolings over their windows inside the block, as lucid does.

    The gradient is that of mean(x^2) / (0.01 + mean(|x|)) over the window for ``"l2"``, and of mean(x) for
    ``"average"``. Poolings with a dilation, with indices or of adaptive size keep their own.

    Args:
        model: The network. Only its own forward passes count, not those of its parts.
        kind: The relaxation.

    Raises:
        ArgumentError: An unknown relaxation.

    Example:
        >>> x = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
        >>> with relaxed_max_pool(pool := nn.MaxPool2d((1, 2)), "average"):
        ...     pool(x).sum().backward()
        >>> x.grad
        tensor([[[[0.5000, 0.5000]]]])
    """
    if kind not in get_args(Relaxation):
        raise ArgumentError(f"kind is one of {get_args(Relaxation)}, got {kind!r}")
    with _replaced(model, {function: _relaxed(function, mean, kind) for function, mean in _POOLINGS.items()}):
        yield


@contextmanager
def _replaced(
    model: nn.Module, replacements: Mapping[Function, Function], passes: int | None = None
) -> Iterator[None]:
    """Puts replacements to work in the first forward passes of a model that build a graph."""
    own, inner, counter = model.__dict__.get("forward"), model.forward, count()

    @wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or (passes is not None and next(counter) >= passes):
            return inner(*args, **kwargs)
        with replacing(replacements):
            return inner(*args, **kwargs)

    model.forward = forward
    try:
        yield
    finally:
        if own is None:
            del model.forward
        else:
            model.forward = own


# ---------------------------------------------------------------- redirected ReLU


class _Redirected(torch.autograd.Function):
    """min(max(x, 0), ceiling) with the gradient of `redirected_relu`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, inplace: bool) -> Tensor:
        low, high = x < 0, x > ceiling if isfinite(ceiling) else None
        result = x.clamp_(0, ceiling) if inplace else x.clamp(0, ceiling)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(result, low, high)
        ctx.ceiling = ceiling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        result, low, high = ctx.saved_tensors
        ordinary = torch.ops.aten.hardtanh_backward(gradient, result, 0.0, ctx.ceiling)
        samples = tuple(range(1, gradient.dim()))
        alive = torch.linalg.vector_norm(ordinary, 2, samples, keepdim=True) > 0
        if alive.device.type == "cpu" and alive.all():  # an accelerator would have to be waited for
            return ordinary, None, None
        away = low & (gradient > 0)
        if high is not None:
            away |= high & (gradient < 0)
        return torch.where(alive, ordinary, gradient.masked_fill(away, 0)), None, None


def _rectify(function: Function, x: Tensor, ceiling: float, inplace: bool) -> Tensor:
    if not x.requires_grad or x.dim() < 2:  # no gradient, or no samples to tell apart
        return function(x)
    result: Tensor = _Redirected.apply(x, ceiling, inplace)
    return result


def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    return _rectify(torch.relu_ if inplace else torch.relu, input, torch.inf, inplace)


def _relu6(input: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(input, 0.0, 6.0, inplace)


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    def plain(x: Tensor) -> Tensor:
        return F.hardtanh(x, min_val, max_val, inplace)

    return plain(input) if min_val != 0 else _rectify(plain, input, max_val, inplace)


def _relu_(input: Tensor) -> Tensor:
    return _relu(input, inplace=True)


_RECTIFIERS: dict[Function, Function] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), _relu_),
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
}


# ---------------------------------------------------------------- relaxed max-pooling

_POOLINGS: dict[Function, Function] = {
    F.max_pool1d: F.avg_pool1d,
    F.max_pool2d: F.avg_pool2d,
    F.max_pool3d: F.avg_pool3d,
    torch.max_pool1d: F.avg_pool1d,
    torch.max_pool2d: F.avg_pool2d,
    torch.max_pool3d: F.avg_pool3d,
}


def _relaxed(function: Function, mean: Function, kind: Relaxation) -> Function:
    """Returns a max-pooling with the gradient of a smooth one."""

    def pool(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        **options: Any,
    ) -> Any:
        window = (kernel_size, stride or kernel_size, padding)
        dilated = dilation not in (1, (1,), (1, 1), (1, 1, 1))
        if not input.requires_grad or dilated or options.get("return_indices"):
            return function(input, *window, dilation, ceil_mode, **options)

        def average(x: Tensor) -> Tensor:
            averaged: Tensor = mean(x, *window, ceil_mode, False)  # padding does not count, as in TensorFlow
            return averaged

        # Squares of half precision, or sums of their windows, would leave its range.
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        smooth = average(x)
        if kind == "l2":
            smooth = average(x.square()) / (1e-2 + average(x.abs()))
        maxima = function(input.detach(), *window, dilation, ceil_mode)
        return maxima + (smooth - smooth.detach()).to(maxima.dtype)  # which adds exactly zero

    return pool
