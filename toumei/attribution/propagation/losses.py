"""Losses and distances written with sums, products and elementwise functions, as in `decompositions`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .calls import NotDecomposed


def _reduced(values: Tensor, reduction: str, *deprecated: Any) -> Tensor:
    if any(option is not None for option in deprecated) or reduction not in ("none", "mean", "sum"):
        raise NotDecomposed
    return values if reduction == "none" else values.sum() if reduction == "sum" else values.mean()


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Squared differences."""
    squares = (input - target).square()
    return _reduced(squares if weight is None else squares * weight, reduction, size_average, reduce)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Absolute differences."""
    sizes = (input - target).abs()
    return _reduced(sizes if weight is None else sizes * weight, reduction, size_average, reduce)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Squares near zero, absolute differences elsewhere."""
    apart = (input - target).abs()
    near = apart.clamp(max=beta)
    values = apart if beta == 0 else near.square() / (2 * beta) + (apart - near)
    return _reduced(values, reduction, size_average, reduce)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """The same, times its border."""
    apart = (input - target).abs()
    near = apart.clamp(max=delta)
    values = near.square() / 2 + delta * (apart - near)
    return _reduced(values if weight is None else values * weight, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The log-softmax of classes, by their index or weighted by their probabilities."""
    if size_average is not None or reduce is not None:
        raise NotDecomposed
    axis = 0 if input.dim() == 1 else 1
    logs, classes = F.log_softmax(input, axis), input.shape[axis]
    if not target.is_floating_point():
        hard = nll_loss(logs, target, weight, None, ignore_index, None, reduction)
        if not label_smoothing:
            return hard
        kept = (target != ignore_index).to(logs)
        weighted = logs if weight is None else logs * _along(weight, logs, axis)
        smooth = -weighted.sum(axis) * kept
        if reduction == "sum":
            smooth = smooth.sum()
        elif reduction == "mean":
            smooth = smooth.sum() / _weights(target, kept, weight).sum()
        return (1 - label_smoothing) * hard + label_smoothing / classes * smooth
    shares = target * (1 - label_smoothing) + label_smoothing / classes
    weighted = logs if weight is None else logs * _along(weight, logs, axis)
    values = -(shares * weighted).sum(axis)
    if reduction == "mean":
        return values.sum() / max(1, input.numel() // classes)
    return _reduced(values, reduction)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the entries of the classes that are given by their index."""
    if size_average is not None or reduce is not None:
        raise NotDecomposed
    axis = 0 if input.dim() == 1 else 1
    kept = (target != ignore_index).to(input)
    weights = _weights(target, kept, weight)
    chosen = target.where(target != ignore_index, torch.zeros_like(target))
    values = -input.gather(axis, chosen.unsqueeze(axis)).squeeze(axis) * weights
    return values.sum() / weights.sum() if reduction == "mean" else _reduced(values, reduction)


def _weights(target: Tensor, kept: Tensor, weight: Tensor | None) -> Tensor:
    return kept if weight is None else weight[target.where(kept.bool(), torch.zeros_like(target))] * kept


def _along(weight: Tensor, tensor: Tensor, axis: int) -> Tensor:
    return weight.reshape(-1, *(1,) * (tensor.dim() - axis - 1))


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The log-probabilities of two classes, at least -100 as in torch."""
    values = -(target * input.log().clamp(min=-100) + (1 - target) * (1 - input).log().clamp(min=-100))
    return _reduced(values if weight is None else values * weight, reduction, size_average, reduce)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """The same of a sigmoid."""
    positive = target if pos_weight is None else target * pos_weight
    values = positive * F.softplus(-input) + (1 - target) * F.softplus(input)
    return _reduced(values if weight is None else values * weight, reduction, size_average, reduce)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """The Kullback-Leibler divergence from logarithms of probabilities."""
    logs = target if log_target else target.clamp(min=torch.finfo(target.dtype).tiny).log()
    values = (target.exp() if log_target else target) * (logs - input)
    if reduction == "batchmean":
        return values.sum() / len(input)
    return _reduced(values, reduction, size_average, reduce)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """The logistic loss of signs."""
    return _reduced(F.softplus(-target * input), reduction, size_average, reduce)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """What is near for 1, what is nearer than the margin for -1."""
    values = (target == 1).to(input) * input + (target == -1).to(input) * torch.relu(margin - input)
    return _reduced(values, reduction, size_average, reduce)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """By how much the order of two scores is missed."""
    values = torch.relu(margin - target * (input1 - input2))
    return _reduced(values, reduction, size_average, reduce)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The cosine distance for 1, the cosine above the margin for -1."""
    cosine = F.cosine_similarity(input1, input2, -1)
    alike, other = (target == 1).to(cosine), (target == -1).to(cosine)
    values = alike * (1 - cosine) + other * torch.relu(cosine - margin)
    return _reduced(values, reduction, size_average, reduce)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """By how much a positive example is not nearer than a negative one."""
    near, far = (F.pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
    if swap:
        far = torch.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    return _reduced(torch.relu(margin + near - far), reduction, size_average, reduce)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: None = None,
    eps: float = 1e-8,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of counts, but for the approximation of their factorials."""
    if full:
        raise NotDecomposed
    values = input.exp() - target * input if log_input else input - target * (input + eps).log()
    return _reduced(values, reduction, size_average, reduce)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of a normal distribution."""
    if not isinstance(var, Tensor):
        var = torch.full_like(target, var)
    if var.shape != input.shape and var.dim() < input.dim():
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    values = (var.log() + (input - target).square() / var) / 2
    return _reduced(values + math.log(2 * math.pi) / 2 if full else values, reduction)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The distances of vectors."""
    result: Tensor = torch.norm(x1 - x2 + eps, p, -1, keepdim)
    return result


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    """The distances (..., P, R) of all vectors (..., P, M) from all others (..., R, M)."""
    result: Tensor = torch.norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)
    return result


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The distances of all pairs of rows."""
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device).unbind(0)
    result: Tensor = torch.norm(input[first] - input[second], p, -1)
    return result


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The norm of a difference."""
    result: Tensor = torch.norm(input - other, p)
    return result


LOSSES: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(mse_loss, l1_loss, smooth_l1_loss, huber_loss, cross_entropy, nll_loss, binary_cross_entropy),
        *(binary_cross_entropy_with_logits, kl_div, soft_margin_loss, hinge_embedding_loss),
        *(margin_ranking_loss, cosine_embedding_loss, triplet_margin_loss, poisson_nll_loss),
        *(gaussian_nll_loss, pairwise_distance, cdist, pdist, dist),
    )
}
