"""Functions of torch written with sums, products, roots and softmaxes, so that rules for those suffice.

Each takes the arguments of the function that it is named after, and raises `NotDecomposed` where it does not
cover them.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import multi_head_attention_forward
from .calls import NotDecomposed

Axes = int | Sequence[int] | None


def div(input: Tensor, other: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    """A quotient."""
    if rounding_mode is not None:
        raise NotDecomposed
    return input * (other.reciprocal() if isinstance(other, Tensor) else 1 / other)


def rdiv(input: Tensor, other: Tensor | float) -> Tensor:
    """A quotient with the first argument below."""
    return input.reciprocal() * other


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The greater of two tensors."""
    return input + torch.relu(other - input)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two tensors."""
    return input - torch.relu(input - other)


def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Some of the way from one tensor to another."""
    return input + (end - input) * weight


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """One half, gated by the other."""
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


def addmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """A matrix product and something to add to it, which is not looked at if beta is 0."""
    mixed = a @ b if alpha == 1 else alpha * (a @ b)
    return mixed if beta == 0 else mixed + (input if beta == 1 else beta * input)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """A product of numbers and something to add to it."""
    return input + value * (tensor1 * tensor2)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """A quotient of numbers and something to add to it."""
    return input + value * (tensor1 / tensor2)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """All products of a number of one tensor (..., I) and one of another (..., J), summed by (K, I, J)."""
    by_second = torch.einsum("...i,kij->...kj", input1, weight)
    return _shifted((by_second * input2.unsqueeze(-2)).sum(-1), bias)


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """The softmax of the negative."""
    return F.softmax(-input, dim, dtype=dtype)


def var(
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance."""
    return var_mean(input, dim, unbiased, keepdim, correction=correction)[0]


def std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The standard deviation."""
    return var(input, *args, **kwargs).sqrt()


def var_mean(
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""
    alone = isinstance(dim, bool)  # `unbiased` may be all that is given
    axes, unbiased = _axes(input, None if alone else dim), bool(dim) if alone else unbiased
    count = math.prod(input.shape[axis] for axis in axes)
    below = count - (int(unbiased) if correction is None else correction)
    mean = input.mean(axes, keepdim=True)
    variance = (input - mean).square().sum(axes, keepdim=keepdim) / below
    return variance, mean if keepdim else mean.reshape(variance.shape)


def std_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""
    variance, mean = var_mean(input, *args, **kwargs)
    return variance.sqrt(), mean


def norm(
    input: Tensor,
    p: float | str | None = 2,
    dim: Axes = None,
    keepdim: bool = False,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The root of a sum of powers, or the greatest size."""
    p = 2 if p in (None, "fro") else p
    if isinstance(p, str) or p is None or p <= 0:
        raise NotDecomposed
    input, axes = input if dtype is None else input.to(dtype), _axes(input, dim)
    if p == 2:
        return input.square().sum(axes, keepdim=keepdim).sqrt()
    if p == math.inf:
        return input.abs().amax(axes, keepdim=keepdim)
    return input.abs().pow(p).sum(axes, keepdim=keepdim).pow(1 / p)


def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: Axes = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The root of a sum of powers."""
    return norm(x, ord, dim, keepdim, dtype=dtype)


def linalg_norm(
    A: Tensor,
    ord: float | str | None = None,
    dim: Axes = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The norm of vectors, or that of matrices that is the root of a sum of squares."""
    if len(_axes(A, dim)) > 1 and ord not in (None, "fro"):
        raise NotDecomposed
    return norm(A, ord, dim, keepdim, dtype=dtype)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The product of vectors of length 1."""
    x1, x2 = torch.broadcast_tensors(x1, x2)
    return (normalize(x1, 2, dim, eps) * normalize(x2, 2, dim, eps)).sum(dim)


def normalize(
    input: Tensor,
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    out: None = None,
) -> Tensor:
    """Vectors of length 1."""
    return input / norm(input, p, dim, True).clamp(min=eps)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Root-mean-square normalization."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    axes = tuple(range(-len(normalized_shape), 0))
    normal = input * (input.square().mean(axes, keepdim=True) + eps).rsqrt()
    return _scaled(normal, weight, None)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Group normalization."""
    grouped = input.reshape(input.shape[0], num_groups, -1)
    shape = (-1, *(1,) * (input.dim() - 2))
    weight, bias = (part if part is None else part.reshape(shape) for part in (weight, bias))
    normal = F.layer_norm(grouped, grouped.shape[-1:], eps=eps)
    return _scaled(normal.reshape(input.shape), weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Instance normalization."""
    if use_input_stats:
        return group_norm(input, input.shape[1], weight, bias, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Numbers over a power of the mean square of the channels nearby."""
    squares = F.pad(input.square().flatten(2), (0, 0, size // 2, (size - 1) // 2))
    nearby = squares.unfold(1, size, 1).mean(-1).reshape(input.shape)
    return input / (alpha * nearby + k).pow(beta)


def _lp_pool(
    average: Callable[..., Tensor],
    axes: int,
    input: Tensor,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The roots of sums of powers in windows."""
    if not 0 < norm_type < math.inf:
        raise NotDecomposed
    size = kernel_size**axes if isinstance(kernel_size, int) else math.prod(kernel_size)
    return (average(input.pow(norm_type), kernel_size, stride, 0, ceil_mode) * size).pow(1 / norm_type)


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(div, rdiv, maximum, minimum, lerp, glu, addcmul, addcdiv, bilinear, softmin),
        *(var, std, var_mean, std_mean, norm, vector_norm, linalg_norm, normalize, cosine_similarity),
        *(rms_norm, group_norm, instance_norm, local_response_norm),
        multi_head_attention_forward,
    )
} | {f"lp_pool{axes}d": partial(_lp_pool, getattr(F, f"avg_pool{axes}d"), axes) for axes in (1, 2, 3)}


def _axes(tensor: Tensor, given: Axes) -> tuple[int, ...]:
    axes = (given,) if isinstance(given, int) else tuple(given or ())
    return axes or tuple(range(tensor.dim()))


def _scaled(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return _shifted(normal if weight is None else normal * weight, bias)


def _shifted(tensor: Tensor, bias: Tensor | None) -> Tensor:
    return tensor if bias is None else tensor + bias
