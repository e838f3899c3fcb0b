"""What attention heads attend to on average, and the labels that follow from it (Clark et al. 2019)."""

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.checks import checked
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs

LABELS = ("next", "previous", "broad", "first", "separator", "punctuation")
"""All labels; of a head with several the last one counts, as in the paper's figure 6."""

OTHER = "other"
"""The label of a head without one of these."""

_NUMBERS = Spec("heads", finite=True)


@dataclass(frozen=True, eq=False, repr=False)
class HeadBehaviours:
    """Where the attention of each head goes, as means over the query rows. Tensors (heads,) on the CPU.

    Attributes:
        next: Share of the attention that goes to the next token; rows without a next token count as 0.
        previous: To the previous token.
        same: To the token itself.
        first: To the first token, such as [CLS].
        separator: To separators, such as [SEP]; None where they are not known.
        punctuation: To punctuation; None where it is not known.
        entropy: Entropy of a row in nats; log n for n keys with the same weight.
        distance: How many tokens the keys are away from the query.

    Example:
        >>> quarter = torch.tensor([0.25])
        >>> HeadBehaviours(3 * quarter, *[quarter] * 3, None, None, quarter, quarter).labels()
        ('next',)
    """

    next: Tensor
    previous: Tensor
    same: Tensor
    first: Tensor
    separator: Tensor | None
    punctuation: Tensor | None
    entropy: Tensor
    distance: Tensor

    _specs = specs(
        next=_NUMBERS,
        previous=_NUMBERS,
        same=_NUMBERS,
        first=_NUMBERS,
        separator=_NUMBERS,
        punctuation=_NUMBERS,
        entropy=_NUMBERS,
        distance=_NUMBERS,
    )

    @checked
    def labels(self, position: float = 0.5, special: float = 0.6, broad: float = 3.8) -> tuple[str, ...]:
        """Returns a label for each head: one of `LABELS`, or ``"other"``.

        Args:
            position: Above this share, a head attends to the next or to the previous token.
            special: Above this share, it attends to the first token, to separators or to punctuation.
            broad: Above this entropy in nats, it attends broadly. Texts of fewer than e^3.8 = 45 tokens
                cannot reach the default.
        """
        least = dict(zip(LABELS, (position, position, broad, special, special, special), strict=True))
        found = [OTHER] * len(self.next)
        for label, threshold in least.items():
            values = self.entropy if label == "broad" else getattr(self, label)
            for head, value in enumerate([] if values is None else values.tolist()):
                found[head] = label if value > threshold else found[head]
        return tuple(found)

    def __repr__(self) -> str:
        known = [name for name, values in vars(self).items() if values is not None]
        return f"HeadBehaviours({counted(len(self.next), 'head')}: {', '.join(known)})"


def behaviours_of_text(
    weights: Tensor, separators: Tensor | None = None, punctuation: Tensor | None = None
) -> dict[str, Tensor]:
    """Returns the numbers of `HeadBehaviours` summed over the rows of one text, float64 on the CPU.

    Args:
        weights: (heads, tokens, tokens), rows of numbers from 0 on whose sum is 1.
        separators: (tokens,) bool.
        punctuation: (tokens,) bool.
    """
    tokens = weights.shape[-1]
    received = weights.sum(1)
    places = torch.arange(tokens, device=weights.device)
    distances = (places[:, None] - places).abs().flatten().to(weights)
    sums = {
        "next": weights.diagonal(1, 1, 2).sum(1),
        "previous": weights.diagonal(-1, 1, 2).sum(1),
        "same": weights.diagonal(0, 1, 2).sum(1),
        "first": received[:, 0],
        "entropy": _entropies(weights.flatten(1)),
        "distance": weights.flatten(1) @ distances,
    }
    for name, mask in (("separator", separators), ("punctuation", punctuation)):
        if mask is not None:
            sums[name] = received @ mask.to(received)
    return {name: values.cpu().double() for name, values in sums.items()}


def _entropies(weights: Tensor) -> Tensor:
    """The sums of -p ln p of each head, 0 for p = 0; by NumPy on the CPU, for the speed of its log2."""
    positive = weights.clamp_min(torch.finfo(weights.dtype).tiny)
    if weights.device.type == "cpu":
        logs: Any = np.log2(positive.numpy())
        return -log(2) * torch.from_numpy(np.matmul(weights.numpy()[:, None], logs[..., None])[:, 0, 0])
    return -log(2) * (weights * positive.log2()).sum(1)
