"""How differences from a baseline pass through operations, so that contributions add up exactly.

Each function returns what its operation returns, with a graph whose gradient is the multiplier: for inputs
x and x' (those of the baseline) the multipliers m fulfil ``y - y' = sum(m * (x - x'))``. Elementwise
functions follow the rescale rule, products the symmetric rule (Shrikumar et al., 2017; Lundberg and Lee,
2017).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Multiplied(torch.autograd.Function):
    """A value whose gradient to one input is a given multiplier.

    It comes in a tuple, so that it counts as made here and may be overwritten later; without one the input
    itself holds the value, which was written into it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, made: tuple[Tensor | None, Tensor]) -> Tensor:
        value, multiplier = made
        ctx.save_for_backward(multiplier)
        if value is None:
            ctx.mark_dirty(x)
            return x
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (multiplier,) = ctx.saved_tensors
        return gradients[0] * multiplier, None


class _Valued(torch.autograd.Function):
    """Another value with the gradients of what it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, made: tuple[Tensor]) -> Tensor:
        return made[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def rescale(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    x0: Tensor,
    in_place: bool = False,
    sharp: bool = False,
    alike: bool = True,
) -> Tensor:
    """Returns an elementwise function of x; the multiplier is the slope of the chord from x0 to x.

    Where rounding blurs that slope, since x and x0 agree in most digits or both values do, it is the
    derivative.

    Args:
        function: The function.
        x: Its input.
        x0: The input at the baseline.
        in_place: Whether the function overwrites what it is given; it overwrites x and x0 then.
        sharp: Whether rounding blurs no slope, as where all are -1, 0 or 1, unless x and x0 agree.
        alike: Whether the function is the same at all positions, so that it can be asked about some.

    Example:
        >>> x = torch.tensor([2.0, -1.0], requires_grad=True)
        >>> rescale(torch.relu, x, torch.tensor([-2.0, -3.0])).sum().backward()
        >>> x.grad
        tensor([0.5000, 0.0000])
    """
    at_x0 = None if in_place else function(x0).detach()
    if at_x0 is not None:
        x, x0 = x.expand_as(at_x0), x0.expand_as(at_x0)
    at_x, small = x.detach(), 0.0 if sharp else _small(x.dtype)
    difference = at_x - x0
    near = _near(difference, at_x, small, alike)
    if near is not None:
        there, there0 = at_x[near].clone(), x0[near].clone()
    torch.sub(at_x, x0, out=difference)
    multiplier = function(x0) if at_x0 is None else at_x0
    value = function(at_x).detach()
    torch.sub(value, multiplier, out=multiplier).div_(difference)
    if near is not None:
        multiplier[near] = _unblurred(function, there, there0, multiplier[near], small)
    result: Tensor = _Multiplied.apply(x, (None if in_place else value, multiplier))
    return result


def _small(dtype: torch.dtype) -> float:
    """The share of a number, or of 1; a difference below it may be hardly more than rounding."""
    return max(8 * torch.finfo(dtype).eps, 1e-8)


def _near(difference: Tensor, x: Tensor, small: float, alike: bool) -> Any:
    """Where some differences, which are overwritten, are small beside x or 1; None if there are none."""
    apart, limit = difference.abs_(), 0.0
    if small:
        apart, limit = apart.square_().addcmul_(x, x, value=-(small**2)), small**2
    # the smallest is found far faster than where it is, and rows faster than elements; nan is looked at too
    if not apart.numel() or apart.amin() > limit:
        return None
    return (~(apart.amin(-1) > limit)).nonzero(as_tuple=True) if alike and apart.dim() > 1 else ...


def _unblurred(
    function: Callable[[Tensor], Tensor], x: Tensor, x0: Tensor, chord: Tensor, small: float
) -> Tensor:
    """The derivative where x0 is near and rounding hides what it leaves; elsewhere the chord."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        made = function(leaf.clone())
    # an infinite slope is none along which anything changes
    slope = torch.autograd.grad(made.sum(), leaf)[0].nan_to_num_(0, 0, 0)
    apart, value = x - x0, made.detach()
    left = (slope * apart - (value - function(x0))).abs()
    apart, size = apart.abs(), x.abs()
    hidden = left <= 4 * torch.finfo(x.dtype).eps * (value.abs() + slope.abs() * size)
    chosen = ~(apart > 0) | (hidden & (apart <= small * size.clamp(min=1)))
    return torch.where(chosen, slope, chord)


def product(
    operation: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, a0: Tensor, b0: Tensor
) -> Tensor:
    """Returns a bilinear operation of two tensors; each gets half of what both change together.

    Example:
        >>> a, b = torch.tensor(3.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
        >>> product(torch.mul, a, b, torch.tensor(1.0), torch.tensor(1.0)).backward()
        >>> a.grad * 2 + b.grad * 4 == 15 - 1
        tensor(True)
    """
    at_a, at_b = a.detach(), b.detach()
    halves = operation(a, torch.lerp(b0, at_b, 0.5)) + operation(torch.lerp(a0, at_a, 0.5), b)
    result: Tensor = _Valued.apply(halves, (operation(at_a, at_b),))
    return result


def logarithmic_mean(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Returns (a - b) / (log a - log b) of positive numbers given by their logarithms; a where they agree.

    Example:
        >>> logarithmic_mean(torch.tensor([0.0, 1.0, -1e4]), torch.tensor([0.0, 0.0, 0.0]))
        tensor([1.0000e+00, 1.7183e+00, 1.0000e-04])
    """
    below = (log_a - log_b).abs_().neg_()
    share = torch.expm1(below).div_(below)
    return torch.maximum(log_a, log_b).exp_().mul_(torch.where(below < 0, share, 1))


class _SoftMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(logarithmic_mean(x.log_softmax(axis), x0.log_softmax(axis)))
        ctx.axis = axis
        return x.softmax(axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        weighted = gradients[0] * weight
        shares = weight / weight.sum(ctx.axis, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        return weighted - shares * weighted.sum(ctx.axis, keepdim=True), None, None


def softmax(x: Tensor, x0: Tensor, axis: int) -> Tensor:
    """Returns the softmax of x.

    With L the logarithmic means of the two softmaxes, ``p - p' = L * (dx - d)`` where d, the difference of
    the log-normalizers, is the mean of dx weighted by L, since probabilities sum to 1. Nothing overflows.
    """
    result: Tensor = _SoftMax.apply(x, x0, axis)
    return result


def log_softmax(x: Tensor, x0: Tensor, axis: int) -> Tensor:
    """Returns the log-softmax of x, by the same decomposition as `softmax`."""
    return x - logsumexp(x, x0, axis, keepdim=True)


def logsumexp(x: Tensor, x0: Tensor, axis: int, keepdim: bool = False) -> Tensor:
    """Returns log(sum(exp(x))) along an axis; multipliers are the logarithmic means, summing to 1."""
    weight = logarithmic_mean(x.detach().log_softmax(axis), x0.log_softmax(axis))
    weight = weight / weight.sum(axis, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    middle = (x * weight).sum(axis, keepdim=True)
    value: Tensor = _Valued.apply(middle, (x.detach().logsumexp(axis, keepdim=True),))
    return value if keepdim else value.squeeze(axis)


class _Standardized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, axes: int, eps: float) -> Tensor:
        shape = x.shape[x.dim() - axes :]
        kind, wide = x.dtype, torch.promote_types(x.dtype, torch.float32)
        x, x0 = x.to(wide), x0.to(wide)  # where half precision would overflow
        (value, mean, inverse), (_, mean0, inverse0) = (
            torch.native_layer_norm(tensor, shape, None, None, eps) for tensor in (x, x0)
        )
        both = inverse + inverse0
        # the chord of the inverse root, from one variance to the other
        chord = (inverse * inverse0).square_().div_(both).neg_()
        ctx.save_for_backward(torch.lerp(x0 - mean0, x - mean, 0.5), both / 2, chord)
        ctx.axes = tuple(range(-axes, 0))
        return value.to(kind)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (centred, inverse, chord) = gradients, ctx.saved_tensors
        spread = (gradient * centred).mean(ctx.axes, keepdim=True) * 2 * chord
        result = gradient * inverse + centred * spread
        return (result - result.mean(ctx.axes, keepdim=True)).to(gradient.dtype), None, None, None


def standardized(x: Tensor, x0: Tensor, axes: int, eps: float) -> Tensor:
    """Returns x less its mean, over its standard deviation, along so many last axes.

    The quotient is a product of the centred input c and r = 1 / sqrt(variance + eps), by the symmetric rule;
    with r r' = 1 / sqrt(v v') the chord of r from v' to v is ``-(r r')^2 / (r + r')``, and the variance is
    the mean of products of c with itself.
    """
    result: Tensor = _Standardized.apply(x, x0, axes, eps)
    return result


def attention(
    now: tuple[Tensor, Tensor, Tensor, Tensor | None],
    before: tuple[Tensor, Tensor, Tensor, Tensor | None],
    scale: float | None,
) -> Tensor:
    """Returns scaled dot-product attention, as two products and the softmax between them.

    Args:
        now: Queries, keys and values, and what is added to the scores or a boolean mask of what takes part.
        before: The same at the baseline.
        scale: Of the scores; one over the root of the length of a query by default.
    """
    scale = now[0].shape[-1] ** -0.5 if scale is None else scale
    (query, key, value, mask), (query0, key0, value0, mask0) = now, before
    query, query0 = query * scale, query0 * scale
    scores, scores0 = product(torch.matmul, query, key.mT, query0, key0.mT), query0 @ key0.mT
    if mask is None or mask0 is None:
        return product(torch.matmul, softmax(scores, scores0, -1), value, scores0.softmax(-1), value0)
    (scores, idle), (scores0, idle0) = _masked(scores, mask), _masked(scores0, mask0)
    shares, shares0 = softmax(scores, scores0, -1), scores0.softmax(-1)
    shares, shares0 = shares.masked_fill(idle, 0), shares0.masked_fill(idle0, 0)
    return product(torch.matmul, shares, value, shares0, value0)


def _masked(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The scores, and which queries have nothing to attend to, so that they get nothing, as in torch."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min), ~mask.any(-1, keepdim=True)
    idle = mask.isneginf().all(-1, keepdim=True)
    return (scores + mask).masked_fill(idle, 0), idle


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, made: tuple[Tensor], owed: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(owed, share)
        ctx.shape = x.shape
        return made[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        owed, share = ctx.saved_tensors
        # out of place, and in shapes that batched passes know
        zeros = gradients[0].new_zeros((*ctx.shape[:2], math.prod(ctx.shape[2:])))
        parts = (gradients[0] * share).reshape(owed.shape)
        return zeros.scatter_add(2, owed, parts).reshape(ctx.shape), None, None, None


def max_pool(pool: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, x0: Tensor) -> Tensor:
    """Returns a max-pooling of x (N, C, ...); windows may overlap.

    A window that rises owes it to the position of its maximum in x, one that falls to that in x0: whatever
    the rest of the window does, the maximum has not changed by it. No maximum moves by more than the value
    at that position, so the multiplier is a share between 0 and 1.

    Args:
        pool: Returns values and the indices of the maxima among the flattened positions of a channel.
        x: The input.
        x0: The input at the baseline.
    """
    at_x = x.detach()
    (value, index), (value0, index0) = pool(at_x), pool(x0)
    owed = torch.where(value >= value0, index, index0).flatten(2)
    moved = at_x.flatten(2).gather(2, owed) - x0.flatten(2).gather(2, owed)
    # where the value at its position stays as it is, so does the maximum, which follows it then
    share = torch.where(moved == 0, 1, (value - value0).flatten(2) / moved)
    result: Tensor = _MaxPool.apply(x, (value,), owed, share.reshape(value.shape))
    return result


def ordered(value: Tensor, value0: Tensor, x: Tensor, x0: Tensor) -> Tensor:
    """Returns values (..., K) that were picked from x (..., M) by their rank.

    Where a value rises, some numbers rose past it from below: there are not fewer numbers than its rank at or
    below it before, and fewer after. They share its change in equal parts, and none of them changed by less.
    The same holds where it falls.

    Args:
        value: Picked from x.
        value0: Picked from x0 by the same ranks.
        x: The input.
        x0: The input at the baseline.
    """
    now, before = x.detach()[..., None, :], x0[..., None, :]
    high, low = torch.maximum(value, value0)[..., None], torch.minimum(value, value0)[..., None]
    rose = (value > value0)[..., None]
    past = torch.where(rose, (before <= low) & (now >= high), (now <= low) & (before >= high))
    moved = now - before
    share = (value - value0)[..., None] / torch.where(past & (moved != 0), moved, 1)
    share = torch.where(past & (moved != 0), share, 0) / past.sum(-1, keepdim=True).clamp(min=1)
    # a value that stays follows the number that it is, if that stays too
    stays = (value == value0)[..., None] & (moved == 0) & (now == value[..., None])
    share = torch.where(stays, 1 / stays.sum(-1, keepdim=True).clamp(min=1), share).to(x.dtype)
    result: Tensor = _Valued.apply((share * x[..., None, :]).sum(-1), (value,))
    return result
