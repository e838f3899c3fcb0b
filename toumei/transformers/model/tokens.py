"""The tokens of prompts, subjects and continuations, and the role of each token.

Everything is read from one tokenization of the whole prompt with character offsets. So it does not matter
that a tokenizer adds tokens at the beginning, merges words, or needs several tokens for one character.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.conversions import has_values
from ...core.errors import ArgumentError
from ...core.tokenizers import encoded_by, without_second_start
from .spaces import space_between

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
    """The tokens of a prompt.

    Attributes:
        ids: The token ids. Special tokens at the beginning are included, an end token is not.
        texts: The text of each token.
        spans: The characters (start, end) of the prompt that each token covers; (0, 0) for special tokens.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)


@checked
def tokenize(tokenizer: Any, prompt: Any) -> Tokens:
    """Returns a prompt's tokens with the characters that they cover.

    Args:
        tokenizer: A Hugging Face tokenizer that knows character offsets (`is_fast`).
        prompt: The text, or the ids of its tokens.

    Raises:
        ArgumentError: The prompt is empty, or the tokenizer has no offsets.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"?": 0, "Ann": 1, "lives": 2, "here": 3}, "?"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenize(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"), "Ann lives here").spans
        ((0, 3), (4, 9), (10, 14))
    """
    if not isinstance(prompt, str):
        prompt = as_prompt(tokenizer, prompt)
    if isinstance(prompt, PromptOfIds):
        return prompt.tokens
    if not prompt.strip():
        raise ArgumentError(f"expected a prompt with words, got {prompt!r}")
    try:
        encoded = encoded_by(tokenizer, prompt, return_offsets_mapping=True, return_special_tokens_mask=True)
    except NotImplementedError:
        raise ArgumentError(
            f"{type(tokenizer).__name__} does not know which characters a token covers: use a fast tokenizer"
        ) from None
    special = encoded["special_tokens_mask"]
    kept = _without_added(tokenizer, encoded["input_ids"], special)
    ids = encoded["input_ids"][kept]
    spans = _spans(encoded["offset_mapping"][kept], special[kept], len(prompt))
    return Tokens(tuple(ids), tuple(tokenizer.decode([index]) for index in ids), tuple(spans))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Returns the token ids of a text that begins a document, without an end token.

    A text that begins with the token that begins documents, as those of chat templates do, gets no second.

    Args:
        tokenizer: A Hugging Face tokenizer.
        text: The text.
    """
    encoded = encoded_by(tokenizer, text, return_special_tokens_mask=True)
    ids: list[int] = encoded["input_ids"]
    return ids[_without_added(tokenizer, ids, encoded["special_tokens_mask"])]


class PromptOfIds(str):
    """The text of a prompt that was given as token ids, and is read with exactly these tokens."""

    tokens: Tokens


def as_prompt(tokenizer: Any, given: Any) -> str:
    """Returns a prompt that was given as text or as token ids, (tokens,) or (1, tokens).

    Args:
        tokenizer: A Hugging Face tokenizer.
        given: Text, a sequence or tensor of ids, or what the tokenizer returned for one text.

    Raises:
        ArgumentError: It is neither, or holds no ids of the tokenizer.
    """
    if isinstance(given, str):
        return given
    ids = given["input_ids"] if isinstance(given, Mapping) and "input_ids" in given else given
    dense = not isinstance(ids, torch.Tensor) or has_values(ids)
    ids = ids.tolist() if dense and hasattr(ids, "tolist") else ids
    if isinstance(ids, (list, tuple)) and len(ids) == 1 and isinstance(ids[0], (list, tuple)):
        ids = ids[0]
    whole = isinstance(ids, (list, tuple)) and all(type(index) is int for index in ids)
    known = len(tokenizer) if hasattr(tokenizer, "__len__") else 0  # a function that reads texts knows no ids
    if not known:
        raise ArgumentError(f"expected a prompt with words, since the tokenizer has no ids, got {given!r}")
    if not whole or not ids or not all(0 <= index < known for index in ids):
        raise ArgumentError(
            f"expected a prompt with words, or ids from 0 to {known - 1} of the tokens of one text, got "
            f"{given!r}"
        )
    texts = [tokenizer.decode(ids[:count]) for count in range(1, len(ids) + 1)]
    ends = [_common(text, texts[-1]) for text in texts]
    spans = _spans(list(zip([0, *ends[:-1]], ends, strict=True)), [False] * len(ids), ends[-1])
    prompt = PromptOfIds(texts[-1])
    prompt.tokens = Tokens(tuple(ids), tuple(tokenizer.decode([index]) for index in ids), tuple(spans))
    return prompt


def fill_subject(prompt: str, subject: str) -> tuple[str, int | None]:
    """Returns a prompt in which the subject replaces ``{}``, and the character at which the subject begins.

    A prompt without ``{}`` is returned as it is, with None.

    Example:
        >>> fill_subject("{} lives in", "Ann"), fill_subject("Ann lives in", "Ann")
        (('Ann lives in', 0), ('Ann lives in', None))
    """
    if not isinstance(prompt, str) or not isinstance(subject, str) or prompt.count("{}") != 1:
        return prompt, None
    return prompt.replace("{}", subject.strip()), prompt.index("{}")


@checked
def subject_range(tokens: Tokens, prompt: str, subject: str, start: int | None = None) -> tuple[int, int]:
    """Returns the range [first, end) of the tokens that a subject is part of.

    Args:
        tokens: The prompt's tokens, from `tokenize`.
        prompt: The text.
        subject: The words to find in it.
        start: The character at which it begins. By default it is searched for: first as whole words, then
            inside of words.

    Raises:
        ArgumentError: The subject is empty, or not in the prompt; the message shows both and the tokens.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> subject_range(tokenize(tokenizer, fact.text), fact.text, fact.subject)
        (3, 5)
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


@checked
def token_roles(count: int, subject: tuple[int, int]) -> tuple[str, ...]:
    """Returns the role of each token of a prompt, one of `ROLES`.

    A subject of one token has only a last one. The last token of the prompt is "last token", unless the
    subject ends the prompt.

    Args:
        count: How many tokens the prompt has.
        subject: The range [first, end) of the subject.

    Example:
        >>> token_roles(6, (1, 3))[1:]
        ('first subject token', 'last subject token', 'first token after', 'further tokens', 'last token')
    """
    first, end = subject
    named = {first: ROLES[1], end: ROLES[4], count - 1: ROLES[6], end - 1: ROLES[3]}  # the last entry wins
    return tuple(
        named.get(index, ROLES[0] if index < first else ROLES[2] if index < end else ROLES[5])
        for index in range(count)
    )


@checked
def continuation(tokenizer: Any, prompt: Any, text: str) -> tuple[int, ...]:
    """Returns the ids of the tokens of a text that continues a prompt.

    A space is put between prompt and text where `space_between` puts one, and where the tokenizer has a token
    for it.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prompt: The prompt, as text or as token ids.
        text: The text that follows it.

    Raises:
        ArgumentError: The text is empty, or the tokenizer knows none of its tokens.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> tokenizer.decode(continuation(tokenizer, fact.text, fact.target)) == fact.target
        True
    """
    if not isinstance(text, str) or not text.strip():
        raise ArgumentError(f"expected words to continue the prompt {prompt!r} with, got {text!r}")
    prompt = as_prompt(tokenizer, prompt)
    if not hasattr(tokenizer, "unk_token_id"):
        raise ArgumentError(f"expected a tokenizer of Hugging Face, got {type(tokenizer).__name__}")
    unknown = tokenizer.unk_token_id
    ids = _following(tokenizer, prompt, space_between(prompt, text) + text)
    if unknown in ids and unknown not in (glued := _following(tokenizer, prompt, text)):
        ids = glued
    if not ids or all(index == unknown for index in ids):
        raise ArgumentError(f"the tokenizer has no tokens for {text!r}")
    return tuple(ids)


def padded(rows: Iterable[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns rows of token ids as a tensor (rows, longest), and the mask (rows, longest) of real tokens.

    Shorter rows are padded on the right with their last token. A causal model does not see the padding.

    Example:
        >>> padded([[1, 2, 3], [4]], torch.device("cpu"))[0]
        tensor([[1, 2, 3],
                [4, 4, 4]])
    """
    rows = list(rows)
    longest = max(len(ids) for ids in rows)
    tokens = torch.tensor([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in rows], device=device)
    lengths = torch.tensor([len(ids) for ids in rows], device=device)
    return tokens, (torch.arange(longest, device=device) < lengths[:, None]).long()


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _following(tokenizer: Any, prompt: str, text: str) -> list[int]:
    """The tokens of a text after a prompt; where a token reaches across the boundary, those of the text."""
    before = (
        list(tokenize(tokenizer, prompt).ids)
        if isinstance(prompt, PromptOfIds)
        else encode(tokenizer, prompt)
    )
    for start, known in ((prompt, before), ("\n", encode(tokenizer, "\n"))):
        whole = encode(tokenizer, start + text)
        if known and whole[: len(known)] == known:
            return whole[len(known) :]
    ids: list[int] = encoded_by(tokenizer, text, add_special_tokens=False)["input_ids"]
    return ids


def _without_added(tokenizer: Any, ids: Sequence[int], special: Sequence[int]) -> slice:
    """Which tokens of a text count: none that was added at its end, and only one beginning."""
    end = max((index + 1 for index, is_special in enumerate(special) if not is_special), default=1)
    return slice(without_second_start(tokenizer, ids, special), end)


def _spans(offsets: Any, special: Any, length: int) -> list[tuple[int, int]]:
    """The offsets; an empty one is extended to the start of the next token."""
    spans: list[tuple[int, int]] = []
    following = length
    for (start, end), is_special in zip(reversed(offsets), reversed(special), strict=True):
        if is_special:
            spans.append((0, 0))
            continue
        spans.append((start, end if end > start else following))
        following = start
    return spans[::-1]
