"""Texts of any kind as rows of tokens, read one after the other."""

import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.errors import ArgumentError
from ...core.files import check_regular
from ...core.kinds import shown
from ...core.tokenizers import encoded_by, without_second_start

_TOKENIZED_AT_ONCE = 32


def texts_in(given: Any) -> Iterator[str]:
    """Yields the texts of a corpus that are not empty.

    Args:
        given: A list or an iterator of texts, a dataset or a table of pandas whose rows have a ``"text"``, or
            the path of a file with a text on each line.

    Raises:
        ArgumentError: It is something else.
        FileNotFoundError: There is no such file.

    Example:
        >>> list(texts_in([{"text": "a b"}, " ", "c"]))
        ['a b', 'c']
    """
    if isinstance(given, (str, Path)):
        if not os.path.lexists(given):
            raise FileNotFoundError(
                f"a corpus is a list of texts or the path of a file, and there is no file {shown(str(given))}"
            )
        check_regular(given, "read")
        try:
            with open(given, encoding="utf-8") as file:
                yield from (line.strip() for line in file if line.strip())
        except UnicodeDecodeError as error:
            raise ArgumentError(f"{given} is no text in UTF-8: {error}") from error
        return
    if isinstance(given, Mapping | Tensor) or not isinstance(given, Iterable):
        raise ArgumentError(
            f"expected texts, rows with a 'text', or the path of a file, got {type(given).__name__}"
            + (f" with {', '.join(map(str, given))}: give one of them" if isinstance(given, Mapping) else "")
        )
    for item in rows_of(given):
        text = item.get("text") if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            raise ArgumentError(f"expected texts, or rows with a 'text', got {shown(item)}")
        if text.strip():
            yield text


def rows_of(given: Any) -> Any:
    """Returns the rows of a table of pandas as dictionaries, anything else as it is.

    Example:
        >>> rows_of(["a", "b"])
        ['a', 'b']
    """
    is_table = type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns")
    return given.to_dict("records") if is_table else given


def token_rows(texts: Iterable[str], tokenizer: Any, max_length: int | None = None) -> Iterator[list[int]]:
    """Yields the token ids of texts, text by text.

    Args:
        texts: The texts.
        tokenizer: A Hugging Face tokenizer.
        max_length: The number of tokens at which longer texts are cut off.
    """
    texts = iter(texts)
    options: dict[str, Any] = (
        {"truncation": True, "max_length": max_length} if max_length else {"verbose": False}
    )
    while read := list(islice(texts, _TOKENIZED_AT_ONCE)):
        encoded = encoded_by(tokenizer, read, return_special_tokens_mask=True, padding=False, **options)
        for ids, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            yield ids[without_second_start(tokenizer, ids, special) :]


class TokenChunks:
    """The tokens of a corpus in chunks of one length: text follows text, an end token between them.

    Args:
        given: The corpus; see `texts_in`.
        tokenizer: A Hugging Face tokenizer.
        length: Tokens in a chunk; those that fill none at the end are left out.

    Attributes:
        tokens: How many tokens were read.
        bytes: How many bytes of UTF-8 their texts have.

    Example:
        >>> from toumei.models import facts_gpt
        >>> chunks = TokenChunks(["one two three", "four five"], facts_gpt()[1], 3)
        >>> [len(chunk) for chunk in chunks], chunks.bytes
        ([3, 3], 22)
    """

    def __init__(self, given: Any, tokenizer: Any, length: int) -> None:
        self._given, self._tokenizer, self._length = given, tokenizer, length
        self.tokens = self.bytes = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the chunks of one pass over the corpus."""
        waiting: list[int] = []
        end: Any = getattr(self._tokenizer, "eos_token_id", None)
        for row in token_rows(self._counted(), self._tokenizer):
            ended = end is None or row[-1:] == [end]
            row = row if ended else [*row, end]
            self.tokens += len(row)
            waiting += row
            while len(waiting) >= self._length:
                yield waiting[: self._length]
                del waiting[: self._length]

    def _counted(self) -> Iterator[str]:
        for text in texts_in(self._given):
            self.bytes += len(text.encode())
            yield text

    @property
    def can_repeat(self) -> bool:
        """Whether the corpus can be read again."""
        return not isinstance(self._given, Iterator)


def shuffled(chunks: Iterable[Sequence[int]], seed: int, room: int = 1024) -> Iterator[Sequence[int]]:
    """Yields chunks in a random order: each in turn takes the place of a random one among those in memory.

    Args:
        chunks: The chunks.
        seed: Of the order.
        room: How many are in memory at once.

    Example:
        >>> sorted(shuffled([[1], [2], [3]], seed=0, room=2))
        [[1], [2], [3]]
    """
    draw = random.Random(seed)
    kept: list[Sequence[int]] = []
    for chunk in chunks:
        if len(kept) < room:
            kept.append(chunk)
            continue
        place = draw.randrange(room)
        yield kept[place]
        kept[place] = chunk
    draw.shuffle(kept)
    yield from kept
