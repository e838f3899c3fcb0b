"""Gradients of several scores with respect to the same tensors."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

_AT_ONCE = 16  # targets that share a backward pass, which takes so many times the memory


def differentiate(scores: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns the gradients, each (T, B, ...), of scores (B, T); zeros where there is no dependence.

    Example:
        >>> leaf = torch.ones(2, 3, requires_grad=True)
        >>> differentiate(torch.stack([leaf.sum(1), leaf[:, 0]], 1), [leaf])[0][1]
        tensor([[1., 0., 0.],
                [1., 0., 0.]])
    """
    count = scores.shape[1]
    if not scores.requires_grad:
        return tuple(leaf.new_zeros(count, *leaf.shape) for leaf in leaves)
    totals = scores.sum(0)
    pieces = [
        _backward(piece, leaves, keep=start + _AT_ONCE < count)
        for start, piece in zip(range(0, count, _AT_ONCE), totals.split(_AT_ONCE), strict=True)
    ]
    return tuple(torch.cat(grads) for grads in zip(*pieces, strict=True))


def _backward(scores: Tensor, leaves: Sequence[Tensor], keep: bool) -> tuple[Tensor, ...]:
    """The gradients, each (T, B, ...), of T numbers: by one batched backward pass, or by T passes."""
    count = len(scores)
    grads: Sequence[Tensor | None]
    if count > 1:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                grads = torch.autograd.grad(
                    scores,
                    leaves,
                    torch.eye(count, dtype=scores.dtype, device=scores.device),
                    retain_graph=True,
                    is_grads_batched=True,
                    allow_unused=True,
                )
        except RuntimeError:
            pass  # torch cannot batch every operation; other errors are raised again below
        else:
            return tuple(
                leaf.new_zeros(count, *leaf.shape) if grad is None else grad
                for leaf, grad in zip(leaves, grads, strict=True)
            )
    single = [
        torch.autograd.grad(score, leaves, retain_graph=keep or index + 1 < count, allow_unused=True)
        for index, score in enumerate(scores)
    ]
    return tuple(
        torch.stack([torch.zeros_like(leaf) if grad is None else grad for grad in of_leaf])
        for leaf, of_leaf in zip(leaves, zip(*single, strict=True), strict=True)
    )
