"""A corpus as batches of tokens with a mask: what is padding, and what is left out, does not count."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_counts
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.summaries import counted
from ..model.corpus import texts_in, token_rows
from ..model.hooked_model import HookedModel
from ..model.model_inputs import plain_rows

_SORTED_AT_ONCE = 16  # batches whose pieces are sorted by length together, so that there is little padding


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Pieces of texts that go through the model together.

    Attributes:
        ids: The tokens (pieces, positions); shorter pieces are padded on the right.
        real: Which of them are tokens of the text, (pieces, positions).
        counted: Which of these count: not the first ones of a piece where these are left out.
    """

    ids: Tensor
    real: Tensor
    counted: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of the model."""
        masked = {} if bool(self.real.all()) else {"attention_mask": self.real.long()}
        return {"input_ids": self.ids, **masked}


class TokenBatches:
    """The tokens of a corpus in batches; each iteration reads the corpus from its beginning.

    Texts longer than `length` tokens are cut into pieces, and nothing of them is left out.

    Args:
        model: The model, with its tokenizer where the corpus is one of texts.
        corpus: A list or an iterator of texts, a dataset or a table of pandas whose rows have a ``"text"``,
            the path of a file with a text on each line, or token ids (texts, positions), in lists also of
            several lengths.
        length: The most tokens of a piece.
        batch_size: Pieces in a forward pass.
        skip_first: How many tokens at the beginning of a piece are left out. The first one often has an
            activation that is a hundred times as long as all others, since heads attend to it when they have
            nothing to attend to.
        max_tokens: How many tokens are counted at most; by default all of the corpus.

    Raises:
        ArgumentError: A setting that is no count, or texts without a tokenizer.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:3]]
        >>> batches = TokenBatches(HookedModel(model, tokenizer), texts, batch_size=2)
        >>> [tuple(batch.ids.shape) for batch in batches]
        [(2, 8), (1, 8)]
    """

    def __init__(
        self,
        model: HookedModel,
        corpus: Any,
        *,
        length: int = 128,
        batch_size: int = 8,
        skip_first: int = 1,
        max_tokens: int | None = None,
    ) -> None:
        check_counts(1, batch_size=batch_size, max_tokens=max_tokens)
        check_counts(0, skip_first=skip_first)
        check_counts(skip_first + 1, length=length)
        self._rows = _rows_of_ids(corpus)
        if self._rows is not None:  # raises the errors of tokens that the model does not know
            model.inputs(torch.tensor([index for row in self._rows for index in row])[:, None])
        elif model.tokenizer is None:
            raise ArgumentError(
                "the model has no tokenizer: give HookedModel(model, tokenizer), or token ids"
            )
        self.model, self.corpus = model, corpus
        self.length, self.batch_size, self.skip_first = length, batch_size, skip_first
        self.max_tokens = max_tokens
        self._begun = False

    def __iter__(self) -> Iterator[TokenBatch]:
        """Yields the batches.

        Raises:
            ArgumentError: The corpus is an iterator and was read before, or nothing in it counts.
        """
        if self._begun and not self.can_repeat:
            raise ArgumentError(
                "the corpus is an iterator that was read before, and it is exhausted: give a list of texts, "
                "or the path of a file"
            )
        self._begun = True
        left = self.max_tokens or float("inf")
        tokens = 0
        pieces = self._pieces()
        while left > 0 and (read := list(islice(pieces, self.batch_size * _SORTED_AT_ONCE))):
            for batch in self._batches(sorted(read, key=len)):
                if left <= 0:
                    break
                batch = _at_most(batch, left)
                tokens += int(batch.counted.sum())
                left -= int(batch.counted.sum())
                yield batch
        if not tokens:
            raise ArgumentError(
                f"the corpus is empty: it has no text of more than {counted(self.skip_first, 'token')}, and "
                f"the first {self.skip_first} of each piece are left out"
            )

    @property
    def can_repeat(self) -> bool:
        """Whether the corpus can be read again."""
        return not isinstance(self.corpus, Iterator)

    def _pieces(self) -> Iterator[Sequence[int]]:
        """The tokens of texts, cut into pieces, without those that are too short to count."""
        for row in self._rows or token_rows(texts_in(self.corpus), self.model.tokenizer):
            for start in range(0, len(row), self.length):
                if len(piece := row[start : start + self.length]) > self.skip_first:
                    yield piece

    def _batches(self, pieces: list[Sequence[int]]) -> Iterator[TokenBatch]:
        for start in range(0, len(pieces), self.batch_size):
            rows = pieces[start : start + self.batch_size]
            longest = max(map(len, rows))
            ids = torch.full((len(rows), longest), self.model.inputs.padding)
            real = torch.zeros(len(rows), longest, dtype=torch.bool)
            for place, row in enumerate(rows):
                ids[place, : len(row)] = torch.tensor(row)
                real[place, : len(row)] = True
            counted = real.clone()
            counted[:, : self.skip_first] = False
            yield TokenBatch(ids, real, counted)


def _rows_of_ids(corpus: Any) -> list[list[int]] | None:
    """The token ids of each text; None for a corpus of texts."""
    if isinstance(corpus, Tensor) and (corpus.dim() != 2 or corpus.is_floating_point()):
        raise ArgumentError(
            f"expected token ids, whole numbers of shape (texts, positions), got {shown(corpus)}"
        )
    rows = plain_rows(corpus)
    if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple) for row in rows):
        return None
    if not any(rows) or not all(type(index) is int for row in rows for index in row):
        return None
    return [list(row) for row in rows]


def _at_most(batch: TokenBatch, most: float) -> TokenBatch:
    """The batch with no more than so many tokens that count."""
    places = batch.counted.flatten().cumsum(0).view_as(batch.counted)
    return TokenBatch(batch.ids, batch.real, batch.counted & (places <= most))
