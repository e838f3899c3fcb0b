"""Gradients of several scores with respect to the same tensors."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import ArgumentError

_AT_ONCE = 16  # targets that share a backward pass, which takes so many times the memory


def leaves_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors to differentiate by.

    Raises:
        ArgumentError: Whole numbers, which have no gradient.
    """
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise ArgumentError(
                f"inputs of {tensor.dtype} have no gradient: give measurements as floats, attribute to the "
                f"layer that embeds tokens, as Method(model, layer=...), or hide parts (Occlusion, "
                f"KernelShap, Lime)"
            )
    return [tensor.detach().requires_grad_() for tensor in tensors]


def differentiate(
    scores: Tensor, leaves: Sequence[Tensor], reached: set[int] | None = None
) -> tuple[Tensor, ...]:
    """Returns the gradients, each (T, B, ...), of scores (B, T); zeros where there is no dependence.

    Args:
        scores: (B, T).
        leaves: Each (B, ...).
        reached: The numbers of leaves that a score depends on are added to it.

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
    found: list[Tensor] = []
    for number, (leaf, grads) in enumerate(zip(leaves, zip(*pieces, strict=True), strict=True)):
        if reached is not None and any(grad is not None for grad in grads):
            reached.add(number)
        parts = zip(grads, totals.split(_AT_ONCE), strict=True)
        found.append(
            torch.cat([leaf.new_zeros(len(of), *leaf.shape) if grad is None else grad for grad, of in parts])
        )
    return tuple(found)


def _backward(scores: Tensor, leaves: Sequence[Tensor], keep: bool) -> tuple[Tensor | None, ...]:
    """The gradients, each (T, B, ...), of T numbers: by one batched backward pass, or by T passes."""
    count = len(scores)
    if count > 1:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                batched: Sequence[Tensor | None] = torch.autograd.grad(
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
            return tuple(batched)
    single = [
        torch.autograd.grad(score, leaves, retain_graph=keep or index + 1 < count, allow_unused=True)
        for index, score in enumerate(scores)
    ]
    return tuple(
        _stacked(of_leaf, leaf) for leaf, of_leaf in zip(leaves, zip(*single, strict=True), strict=True)
    )


def _stacked(grads: Sequence[Tensor | None], leaf: Tensor) -> Tensor | None:
    """Gradients as one tensor, zeros where there is no dependence; None if there is none at all."""
    if all(grad is None for grad in grads):
        return None
    return torch.stack([torch.zeros_like(leaf) if grad is None else grad for grad in grads])
