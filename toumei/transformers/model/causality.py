"""Whether a model predicts each next token from those before it, as a next-token loss takes for granted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArchitectureError


@torch.no_grad()
def check_next_token_logits(name: str, logits_of: Callable[[Tensor], Any], ids: Tensor) -> None:
    """Raises an error for a model that has no logits for each token, or whose tokens see those after them.

    Args:
        name: What the model is called in the message.
        logits_of: Runs the model on tokens (2, T).
        ids: Two tokens or more, (1, T). The last one is exchanged, which must not matter for the others.

    Raises:
        ArchitectureError: The logits of the other tokens change, or there are none.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model = facts_gpt()[0]
        >>> check_next_token_logits("facts", lambda ids: model(ids).logits, torch.tensor([[3, 4, 5]]))
    """
    other = ids.clone()
    other[0, -1] = ids[0, 0] if ids[0, 0] != ids[0, -1] else (ids[0, -1] + 1) % 2
    logits = logits_of(torch.cat([ids, other]))
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 3 or shape[:2] != (2, ids.shape[1]):
        raise ArchitectureError(
            f"{name} has no logits for each token, (2, {ids.shape[1]}, tokens) for two texts: it gives "
            f"{shape}, as a classifier does, and has no next-token loss"
        )
    first, second = logits[:, :-1]
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ArchitectureError(f"{name} sees the tokens that come next, it has no next-token loss")
