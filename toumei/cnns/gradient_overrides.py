"""Help for units that a gray picture leaves dead: gradients through ReLUs and max-poolings that block them.

Both are contexts around the forward passes of any model. They catch modules, functions and methods under any
name, also in place, leave every value as it is, and change only what the backward pass makes of a gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from math import isfinite
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.function_kinds import rectifier_ceiling
from ..core.functions import Function, Handler, canonical_name, intercepted, overwrites, returns_indices
from ..core.modules import eager, wrapped_forward

Relaxation = Literal["l2", "average"]


@checked
@contextmanager
def redirected_relu(model: nn.Module, steps: int = 16) -> Iterator[None]:
    """Lets gradients through dead ReLUs in the first forward passes inside the block, as lucid does.

    Where the gradient of a ReLU is zero for a whole sample, that sample's gradient passes all the same,
    except where the input is negative and the gradient, of a loss that is minimized, would push it further
    down (for a ReLU6 likewise above 6). Samples for which anything passes keep their ordinary gradient, so a
    unit that is alive sees no difference.

    Args:
        model: The network. Only forward passes of the whole count, not those of its parts.
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
    with _handled(model, _redirect, steps):
        yield


@checked
@contextmanager
def relaxed_max_pool(model: nn.Module, kind: Relaxation = "l2") -> Iterator[None]:
    """Spreads the gradients of max-poolings over their windows inside the block, as lucid does.

    The gradient is that of mean(x^2) / (0.01 + mean(|x|)) over the window for ``"l2"``, and of mean(x) for
    ``"average"``. Poolings with a dilation, with indices or of adaptive size keep their gradient.

    Args:
        model: The network. Only forward passes of the whole count, not those of its parts.
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
    with _handled(model, lambda function, args, kwargs: _relax(kind, function, args, kwargs)):
        yield


@contextmanager
def _handled(model: nn.Module, handler: Handler, passes: int | None = None) -> Iterator[None]:
    """Hands functions to a handler in the first forward passes of a model that build a graph.

    What `torch.compile` compiled of the model runs as it was written inside the block.
    """
    counter = count()

    def around(forward: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not torch.is_grad_enabled() or (passes is not None and next(counter) >= passes):
            return forward(*args, **kwargs)
        with intercepted(handler):
            return forward(*args, **kwargs)

    if passes == 0:
        yield
        return
    with eager(model), wrapped_forward(model, around):
        yield


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


def _redirect(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function; a rectifier that cuts at 0 gets the gradient of `redirected_relu`."""
    ceiling = rectifier_ceiling(canonical_name(function)[0], args, kwargs)
    if ceiling is None:
        return function(*args, **kwargs)
    x = args[0] if args else kwargs["input"]
    graded = x.requires_grad and torch.is_grad_enabled()
    if not graded or x.dim() < 2:  # no gradient, or no samples to tell apart
        return function(*args, **kwargs)
    return _Redirected.apply(x, ceiling, overwrites(function, kwargs))


# ---------------------------------------------------------------- relaxed max-pooling

_AVERAGES: dict[str, Function] = {
    "max_pool1d": F.avg_pool1d,
    "max_pool2d": F.avg_pool2d,
    "max_pool3d": F.avg_pool3d,
}


def _relax(kind: Relaxation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function; a max-pooling gets the gradient of a smooth one."""
    mean = _AVERAGES.get(canonical_name(function)[0])
    if mean is None or returns_indices(function, kwargs):
        return function(*args, **kwargs)
    return _relaxed(function, mean, kind, *args, **kwargs)


def _relaxed(
    function: Function,
    mean: Function,
    kind: Relaxation,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The maxima of windows, with the gradient of a smooth pooling."""
    maxima: Tensor
    window = (kernel_size, stride or kernel_size, padding)
    if not input.requires_grad or dilation not in (1, (1,), (1, 1), (1, 1, 1)):
        maxima = function(input, *window, dilation, ceil_mode)
        return maxima

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
