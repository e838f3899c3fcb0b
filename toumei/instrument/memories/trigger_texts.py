"""The texts that trigger neurons: their tokens, and where in its text each trigger prefix ends."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.tensor_specs import Spec, specs
from .neuron_memory import Trigger
from .triggers import Triggers


class Places(NamedTuple):
    """Where triggers are in their texts, each (neurons, count); without a trigger the numbers mean nothing.

    Attributes:
        starts: The character at which the last token of the prefix starts.
        ends: The character at which it ends, and the prefix with it.
        tokens: The id of that token.
        following: The id of the token after it; -1 where the text ends, and where there is no trigger.
    """

    starts: Tensor
    ends: Tensor
    tokens: Tensor
    following: Tensor


@dataclass(frozen=True, repr=False, eq=False)
class TriggerTexts:
    """Texts with their tokens.

    Attributes:
        texts: The texts.
        numbers: Their numbers in the corpus, (texts,).
        starts: Where the tokens of each text begin in `ids`, and the end of the last, (texts + 1,).
        ids: The tokens of all texts one after another, (tokens,).
        ends: The character of its text at which each token ends, (tokens,).
        vocabulary: The text of each token.
    """

    texts: tuple[str, ...]
    numbers: Tensor
    starts: Tensor
    ids: Tensor
    ends: Tensor
    vocabulary: tuple[str, ...]

    _specs = specs(
        texts="texts",
        numbers=Spec("texts", "integer"),
        starts=Spec("_", "integer"),
        ids=Spec("tokens", "integer"),
        ends=Spec("tokens", "integer"),
    )

    def __len__(self) -> int:
        return len(self.texts)

    def places(self, triggers: Triggers) -> Places:
        """Returns where triggers are; their texts are rows of this table."""
        rows = triggers.texts.long().clamp(min=0)
        place = self.starts[rows] + triggers.positions.long()
        first, last = triggers.positions == 0, place + 1 == self.starts[rows + 1]
        following = self.ids[(place + 1).clamp(max=len(self.ids) - 1)].long()
        return Places(
            starts=torch.where(first, 0, self.ends[place - 1]),
            ends=self.ends[place],
            tokens=self.ids[place],
            following=torch.where(last | (triggers.texts < 0), -1, following),
        )

    def triggers(self, kept: Triggers, neuron: int, z: Tensor) -> tuple[Trigger, ...]:
        """Returns the triggers of one neuron; `z` are those of all neurons, (neurons, count)."""
        mine = Triggers(kept.values[neuron, None], kept.texts[neuron, None], kept.positions[neuron, None])
        columns = (mine.texts, mine.positions, mine.values, z[neuron, None], *self.places(mine))
        return tuple(
            Trigger.at(
                self.texts[row],
                int(self.numbers[row]),
                position=position,
                value=value,
                z=score,
                span=(start, end),
                token=self.vocabulary[token],
                next_token=None if after < 0 else self.vocabulary[after],
            )
            for row, position, value, score, start, end, token, after in zip(
                *(column[0].tolist() for column in columns), strict=True
            )
            if row >= 0
        )
