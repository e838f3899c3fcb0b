"""The texts that activate features most, from one pass over a corpus."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .token_batches import TokenBatch

NO_TOKEN = -1  # where a window goes beyond its piece of text


@dataclass(eq=False)
class TopTexts:
    """The strongest activations of each feature so far, with the tokens around them; one of a piece of text.

    Args:
        features: How many features there are.
        top: How many texts are kept.
        before: How many tokens before the strongest one are kept.
        after: How many after it.

    Attributes:
        values: The largest activations, (features, top), sorted; 0 where there is none.
        tokens: The tokens around them, (features, top, window).
        activations: The activations of the feature at these tokens, (features, top, window).
        counts: In how many tokens each feature is active, (features,).
        seen: How many tokens were read.
    """

    features: int
    top: int
    before: int
    after: int

    def __post_init__(self) -> None:
        shape = self.features, self.top
        window = self.before + 1 + self.after
        self.values = torch.zeros(shape)
        self.tokens = torch.full((*shape, window), NO_TOKEN)
        self.activations = torch.zeros(*shape, window)
        self.counts = torch.zeros(self.features, dtype=torch.float64)
        self.seen = 0

    def add(self, active: Tensor, batch: TokenBatch) -> None:
        """Adds a batch.

        Args:
            active: The activations (pieces, positions, features); 0 at tokens that do not count.
            batch: The batch.
        """
        self.seen += int(batch.counted.sum())
        self.counts += (active > 0).sum((0, 1)).double()
        best, at = active.max(1)  # (pieces, features)
        window = torch.arange(-self.before, self.after + 1)
        places = at.T[:, :, None] + window  # (features, pieces, window)
        inside = (places >= 0) & (places < active.shape[1])
        places = places.clamp(0, active.shape[1] - 1)
        pieces = torch.arange(len(active))[None, :, None].expand_as(places)
        inside &= batch.real[pieces, places]
        tokens = batch.ids[pieces, places].masked_fill(~inside, NO_TOKEN)
        which = torch.arange(self.features)[:, None, None].expand_as(places)
        around = active[pieces, places, which] * inside
        values = torch.cat([self.values, best.T], 1)
        self.values, order = values.topk(self.top, dim=1)
        wide = order[:, :, None].expand(-1, -1, len(window))
        self.tokens = torch.cat([self.tokens, tokens], 1).gather(1, wide)
        self.activations = torch.cat([self.activations, around], 1).gather(1, wide)
