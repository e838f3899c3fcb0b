"""A subject's tokens in a prompt, what role each token plays, and the tokens that continue a prompt.

Everything is read from one tokenization of the whole prompt with character offsets, so tokens added at the
beginning, merges across words and characters of several tokens do not matter.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from ...core.errors import ArgumentError

ROLES = (
    "before the subject",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model reads it.

    Attributes:
        ids: The token ids, with special tokens that the tokenizer adds in front, but without an end token.
        texts: What each token says.
        spans: The characters (start, end) of the prompt that each token covers; (0, 0) for special tokens.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)


def tokenize(tokenizer: Any, prompt: str) -> Tokens:
    """Returns a prompt's tokens with the characters that they cover.

    Args:
        tokenizer: A Hugging Face tokenizer that knows character offsets (`is_fast`).
        prompt: The text.

    Raises:
        ArgumentError: The prompt is empty, or the tokenizer cannot tell offsets.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"?": 0, "Ann": 1, "lives": 2, "here": 3}, "?"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenize(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"), "Ann lives here").spans
        ((0, 3), (4, 9), (10, 14))
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ArgumentError(f"expected a prompt with words, got {prompt!r}")
    try:
        encoded = tokenizer(prompt, return_offsets_mapping=True, return_special_tokens_mask=True)
    except NotImplementedError:
        raise ArgumentError(
            f"{type(tokenizer).__name__} does not know which characters a token covers: use a fast tokenizer"
        ) from None
    special = encoded["special_tokens_mask"]
    count = _without_end(special)
    ids = encoded["input_ids"][:count]
    spans = _spans(encoded["offset_mapping"][:count], special[:count], len(prompt))
    return Tokens(tuple(ids), tuple(tokenizer.decode([index]) for index in ids), tuple(spans))


def filled(prompt: str, subject: str) -> tuple[str, int | None]:
    """Returns a prompt with the subject in the place of ``{}``, and the character at which it begins.

    A prompt without ``{}`` is returned as it is, with None.

    Example:
        >>> filled("{} lives in", "Ann"), filled("Ann lives in", "Ann")
        (('Ann lives in', 0), ('Ann lives in', None))
    """
    if not isinstance(prompt, str) or not isinstance(subject, str) or prompt.count("{}") != 1:
        return prompt, None
    return prompt.replace("{}", subject.strip()), prompt.index("{}")


def subject_range(tokens: Tokens, prompt: str, subject: str, start: int | None = None) -> tuple[int, int]:
    """Returns the range [first, end) of the tokens that a subject is part of.

    Args:
        tokens: The prompt's tokens, from `tokenize`.
        prompt: The text.
        subject: The words to find in it.
        start: The character at which it begins; by default the first place counts where the subject stands as
            whole words, else the first at all.

    Raises:
        ArgumentError: The subject is empty, or not in the prompt; the message shows both and the tokens.
    """
    subject = subject.strip() if isinstance(subject, str) else ""
    if start is None:
        whole = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)
        start = whole.start() if whole else prompt.find(subject)
    end = start + len(subject)
    inside = [index for index, (first, last) in enumerate(tokens.spans) if first < end and last > start]
    if not subject or start < 0 or not inside:
        raise ArgumentError(
            f"the subject {subject!r} is not in the prompt {prompt!r}, whose tokens are {list(tokens.texts)}"
        )
    return inside[0], inside[-1] + 1


def roles(count: int, subject: tuple[int, int]) -> tuple[str, ...]:
    """Returns the role of each token of a prompt, one of `ROLES`.

    A subject of one token has only a last one. The last token of the prompt is "last token", unless the
    subject ends the prompt.

    Args:
        count: How many tokens the prompt has.
        subject: The range [first, end) of the subject.

    Example:
        >>> roles(6, (1, 3))[1:]
        ('first subject token', 'last subject token', 'first token after', 'further tokens', 'last token')
    """
    first, end = subject
    named = {first: ROLES[1], end: ROLES[4], count - 1: ROLES[6], end - 1: ROLES[3]}  # the later wins
    return tuple(
        named.get(index, ROLES[0] if index < first else ROLES[2] if index < end else ROLES[5])
        for index in range(count)
    )


def continuation(tokenizer: Any, prompt: str, text: str) -> tuple[int, ...]:
    """Returns the ids of the tokens that follow when a text continues a prompt.

    A space is put between them where words need one: not if the prompt ends or the text begins with a space,
    and not between characters of scripts that are written without spaces.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prompt: The text so far.
        text: What comes next.

    Raises:
        ArgumentError: There is nothing to continue with, or the tokenizer does not know any of it.
    """
    if not isinstance(text, str) or not text.strip():
        raise ArgumentError(f"expected words to continue the prompt {prompt!r} with, got {text!r}")
    glued = prompt[-1:].isspace() or text[0].isspace() or _unspaced(prompt[-1:]) or _unspaced(text[0])
    joined = text if glued else f" {text}"
    encoded = tokenizer(prompt, return_special_tokens_mask=True)
    before = encoded["input_ids"][: _without_end(encoded["special_tokens_mask"])]
    whole = tokenizer(prompt + joined)["input_ids"]
    if whole[: len(before)] == before:
        ids = [index for index in whole[len(before) :] if index not in _added(tokenizer)]
    else:  # the boundary was merged away: the text alone is what the model would have to say
        ids = tokenizer(joined, add_special_tokens=False)["input_ids"]
    if not ids or all(index == tokenizer.unk_token_id for index in ids):
        raise ArgumentError(f"the tokenizer has no tokens for {text!r}")
    return tuple(ids)


def _without_end(special: Any) -> int:
    """How many tokens there are without special ones at the end, where a model is to go on."""
    return max((index + 1 for index, is_special in enumerate(special) if not is_special), default=1)


def _spans(offsets: Any, special: Any, length: int) -> list[tuple[int, int]]:
    """Offsets whose ends reach to the next token where a tokenizer gives an empty span."""
    spans: list[tuple[int, int]] = []
    following = length
    for (start, end), is_special in zip(reversed(offsets), reversed(special), strict=True):
        if is_special:
            spans.append((0, 0))
            continue
        spans.append((start, end if end > start else following))
        following = start
    return spans[::-1]


def _added(tokenizer: Any) -> set[int]:
    return {index for index in (tokenizer.bos_token_id, tokenizer.eos_token_id) if index is not None}


def _unspaced(character: str) -> bool:
    return bool(character) and unicodedata.east_asian_width(character) in "WF"
