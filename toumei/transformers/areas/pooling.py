"""One vector for each text: the state of its first or last token, or the mean over its tokens."""

from typing import Literal

import torch
from torch import Tensor

from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted
from ...core.tensors import whole

Pooling = Literal["last", "mean", "first"]


def pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Returns one vector for each text, (texts, width).

    Args:
        states: (texts, tokens, width); or (texts, width), which is returned as it is.
        mask: (texts, tokens), bool: which are tokens and no padding, which may be on either side.
        pooling: ``"last"`` and ``"first"`` take the state of one token, ``"mean"`` the mean over all.

    Raises:
        ShapeError: The states are no vectors for each token of each text.
        ArgumentError: A text has no tokens.

    Example:
        >>> states = torch.tensor([[[1.0], [2.0], [9.0]], [[9.0], [3.0], [5.0]]])
        >>> mask = torch.tensor([[True, True, False], [False, True, True]])
        >>> pooled(states, mask, "last").T, pooled(states, mask, "mean").T
        (tensor([[2., 5.]]), tensor([[1.5000, 4.0000]]))
    """
    states, mask = whole(states), mask.bool().to(states.device)
    texts, tokens = mask.shape
    if states.shape[:1] == (texts,) and states.dim() == 2:
        return states
    if states.shape[:-1] == (texts * tokens,):  # some models lay the tokens of all texts in a row
        states = states.unflatten(0, (texts, tokens))
    if states.dim() != 3 or states.shape[:2] != mask.shape:
        raise ShapeError(
            f"expected (texts, tokens, width) for {counted(texts, 'text')} of {counted(tokens, 'token')}, "
            f"got {tuple(states.shape)}"
        )
    if not bool(mask.any(1).all()):
        raise ArgumentError(f"text {int(mask.any(1).long().argmin())} has no tokens")
    if pooling == "mean":
        total = torch.where(mask[..., None], states, 0).sum(1, dtype=torch.float32)
        return total / mask.sum(1, keepdim=True)
    order = torch.arange(tokens, device=mask.device)
    place = torch.where(mask, order, -1).amax(1) if pooling == "last" else mask.long().argmax(1)
    return states[torch.arange(texts, device=mask.device), place]
