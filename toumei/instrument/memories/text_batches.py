"""Texts as batches of tokens with little padding, and where each token stands in its text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.tokenizers import encoded_by, positions_in_table, without_second_start

_WINDOW = 512  # texts that are sorted by length together: the order does not depend on the size of batches


@dataclass(frozen=True)
class TokenizedText:
    """A text and its tokens.

    Attributes:
        number: Its number in the corpus, from 0 on.
        text: The text.
        ids: The ids of its tokens.
        ends: The character of the text at which each token ends.
    """

    number: int
    text: str
    ids: Sequence[int]
    ends: Sequence[int]


class TextBatches:
    """The tokens of a corpus in batches of texts of about the same length.

    The order of texts is fixed: those of each 512 are sorted by length. How many are in a batch does not
    change it.

    Args:
        tokenizer: A tokenizer of Hugging Face.
        texts: The texts.
        batch_size: Most texts in a batch.
        most_tokens: Most tokens in a batch of several texts, padding included.
        limit: The number of tokens at which longer texts are cut off.

    Attributes:
        read: How many texts were read so far.
        cut: How many of them were cut off.
    """

    def __init__(
        self, tokenizer: Any, texts: Iterable[str], *, batch_size: int, most_tokens: int, limit: int | None
    ) -> None:
        if isinstance(texts, str):
            raise ArgumentError(f"expected an iterable of texts, got the text {shown(texts)}: give [text]")
        self._tokenizer, self._texts, self._limit = tokenizer, iter(texts), limit
        self._batch_size, self._most_tokens = batch_size, most_tokens
        self.read = self.cut = 0

    def __iter__(self) -> Iterator[list[TokenizedText]]:
        while window := list(islice(self._texts, _WINDOW)):
            tokenized = [text for text in self._tokenized(window) if text.ids]
            batch: list[TokenizedText] = []
            for text in sorted(tokenized, key=lambda one: len(one.ids)):
                full = len(batch) == self._batch_size or len(batch) >= self._most_tokens // len(text.ids)
                if batch and full:
                    yield batch
                    batch = []
                batch.append(text)
            if batch:
                yield batch

    def _tokenized(self, texts: list[str]) -> list[TokenizedText]:
        for text in texts:
            if not isinstance(text, str):
                raise ArgumentError(f"expected texts, got {shown(text)} among them")
        encoded = self._encoded(texts)
        found = []
        for index, text in enumerate(texts):
            ids, offsets = self._read_row(encoded, index)
            if self._limit is not None and len(ids) > self._limit:
                shorter = self._encoded([text], truncation=True, max_length=self._limit)
                ids, offsets = self._read_row(shorter, 0)
                self.cut += 1
            found.append(TokenizedText(self.read, text, ids, self._ends(text, ids, offsets)))
            self.read += 1
        return found

    def _encoded(self, texts: list[str], **options: Any) -> Any:
        offsets = bool(getattr(self._tokenizer, "is_fast", False))
        options |= {"return_offsets_mapping": offsets, "return_special_tokens_mask": True}
        return encoded_by(self._tokenizer, texts, padding=False, verbose=False, **options)

    def _read_row(self, encoded: Any, row: int) -> tuple[list[int], list[tuple[int, int]] | None]:
        """The tokens of a text and their characters, without a second token that begins texts."""
        ids = encoded["input_ids"][row]
        offsets = encoded["offset_mapping"][row] if "offset_mapping" in encoded else None
        special = encoded["special_tokens_mask"][row] if "special_tokens_mask" in encoded else []
        again = without_second_start(self._tokenizer, ids, special)
        return ids[again:], offsets if offsets is None else offsets[again:]

    def _ends(self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]] | None) -> list[int]:
        """Where each token ends; special tokens end where the token before them does."""
        if offsets is None:  # of tokenizers that do not say it
            texts = (self._tokenizer.decode(ids[: count + 1]) for count in range(len(ids)))
            offsets = [(0, min(len(decoded), len(text))) for decoded in texts]
        ends, last = [], 0
        for _, end in offsets:
            last = max(last, end)
            ends.append(last)
        return ends


def padded_ids(texts: Sequence[TokenizedText], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns ids (texts, longest) and the mask of tokens, bool; shorter texts repeat their last token."""
    longest = max(len(text.ids) for text in texts)
    rows = [[*text.ids, *[text.ids[-1]] * (longest - len(text.ids))] for text in texts]
    lengths = torch.tensor([len(text.ids) for text in texts], device=device)
    mask = torch.arange(longest, device=device) < lengths[:, None]
    return torch.tensor(rows, device=device), mask


def token_texts(tokenizer: Any, tokens: Iterable[int]) -> tuple[str, ...]:
    """Returns the text of each token alone.

    Raises:
        ArgumentError: The tokenizer cannot decode tokens.
    """
    if not hasattr(tokenizer, "batch_decode"):
        raise ArgumentError(
            f"expected a tokenizer of Hugging Face, which decodes tokens, got {shown(tokenizer)}"
        )
    return tuple(tokenizer.batch_decode([[token] for token in tokens]))


def most_positions(model: nn.Module, tokenizer: Any) -> int | None:
    """Returns how many tokens a model and its tokenizer take, None if neither says it."""
    config = getattr(model, "config", None)
    told = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    told.append(positions_in_table(model))
    known = [number for number in told if isinstance(number, int) and 0 < number < 10**9]
    return min(known, default=None)
