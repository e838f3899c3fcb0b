"""Texts as tokens: strings, pairs, token numbers and what tokenizers return."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ArgumentError, UnitError
from ...core.summaries import counted
from ...core.tokenizers import encoded_by, without_second_start
from ...core.user_warnings import warn

OneText = str | tuple[str, str] | Tensor | np.ndarray | Sequence[int] | Mapping[str, Any]
Text = OneText | list[Any]

# What tokenizers return beside tokens, and no model takes.
_IGNORED = ("special_tokens_mask", "offset_mapping", "overflow_to_sample_mapping", "length", "labels")
_TAKEN = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, eq=False)
class Encoded:
    """One text as a model takes it.

    Attributes:
        tokens: (1, T).
        others: What else the tokenizer says of the tokens, each (1, T): token types, and an attention mask
            if it leaves tokens out.
        words: The text, if it was given as one.
    """

    tokens: Tensor
    others: dict[str, Tensor] = field(default_factory=dict)
    words: str = ""

    @property
    def ids(self) -> list[int]:
        """The tokens as numbers."""
        numbers: list[int] = self.tokens[0].tolist()
        return numbers

    def answerable(self) -> Tensor:
        """Returns which tokens may answer a question, (T,): those of the second text, all of a single one."""
        types = self.others.get("token_type_ids")
        return (types[0] == 1) if types is not None and (types == 1).any() else self.tokens[0] >= 0

    def to(self, device: torch.device) -> "Encoded":
        """Returns the text on a device."""
        others = {name: tensor.to(device) for name, tensor in self.others.items()}
        return replace(self, tokens=self.tokens.to(device), others=others)


def encode_all(tokenizer: Any, text: Text, causal: bool) -> list[Encoded]:
    """Returns the texts that were given.

    Args:
        tokenizer: A tokenizer of Hugging Face; None where texts are numbers.
        text: A text or a pair of texts, its tokens, what a tokenizer returned, or a list of these.
        causal: Whether a token that ends texts, which a tokenizer may add, is left out.

    Raises:
        ArgumentError: Something else, a text without tokens, or a string without a tokenizer.
    """
    if isinstance(text, list) and not are_numbers(text):
        if not text:
            raise ArgumentError("a list of texts must not be empty")
        return [one for each in text for one in encode_all(tokenizer, each, causal)]
    if isinstance(text, str) or (isinstance(text, tuple) and not are_numbers(text)):
        return [_from_words(tokenizer, text, causal)]
    if isinstance(text, Mapping):
        return _from_encoding(text)
    return _from_encoding({"input_ids": text})


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Returns the tokens of a target, without special ones.

    Raises:
        ArgumentError: No tokenizer, or a text without tokens.
        UnitError: The vocabulary does not have a word of it.
    """
    if tokenizer is None:
        raise ArgumentError(
            f"without a tokenizer, texts are tokens (1, tokens) and targets numbers: got {text!r}"
        )
    found: list[int] = list(encoded_by(tokenizer, text, add_special_tokens=False)["input_ids"])
    if not found:
        raise ArgumentError(f"{text!r} has no token")
    if _unknown(tokenizer, found, text):
        raise UnitError(
            f"{text!r} is not in the vocabulary of the tokenizer: it is read as "
            f"{[decoded(tokenizer, token) for token in found]}"
        )
    return found


def following_ids(tokenizer: Any, encoded: Encoded, text: str) -> list[int]:
    """Returns the tokens of a string that follows a text, without special ones.

    A space in front of it is read together with the text: some tokenizers have it in the token of the next
    word, and others put one there anyway.

    Raises:
        ArgumentError: No tokenizer, or a text without tokens.
        UnitError: The vocabulary does not have a word of it.
    """
    alone = token_ids(tokenizer, text)
    if not encoded.words or not text[:1].isspace():
        return alone
    before, both = (
        list(encoded_by(tokenizer, words, add_special_tokens=False)["input_ids"])
        for words in (encoded.words, encoded.words + text)
    )
    return both[len(before) :] if both[: len(before)] == before and len(both) > len(before) else alone


def token_id(tokenizer: Any, given: str | int, count: int) -> int:
    """Returns one token, given by its string or its index.

    Raises:
        ArgumentError: A string of several tokens.
        UnitError: A token that there is not.
    """
    if isinstance(given, str):
        found = token_ids(tokenizer, given)
        if len(found) != 1:
            shown = [decoded(tokenizer, token) for token in found]
            raise ArgumentError(f"expected one token, {given!r} is {len(found)}: {shown}")
        return found[0]
    return checked_index(given, count, "token")


def checked_index(given: Any, count: int, what: str) -> int:
    """Returns an index from 0 to count - 1.

    Raises:
        UnitError: Something else.
    """
    try:
        number = -1 if isinstance(given, bool) else index(given)
    except TypeError:
        number = -1
    if not 0 <= number < count:
        raise UnitError(f"no {what} {given!r}: there are {count}, 0 to {count - 1}")
    return number


def places_of(tokenizer: Any, encoded: Encoded, words: str, allowed: Tensor | None = None) -> tuple[int, int]:
    """Returns the first and the last token of the only place in a text where some words stand.

    Args:
        tokenizer: The tokenizer of the text.
        encoded: The text.
        words: The words, as they are written in it.
        allowed: (T,) where they may stand, everywhere by default.

    Raises:
        UnitError: They stand nowhere, or at several places.
    """
    ids, found = encoded.ids, set()
    for spelled in dict.fromkeys((words, f" {words.strip()}", words.strip())):
        wanted = token_ids(tokenizer, spelled)
        for first in range(len(ids) - len(wanted) + 1):
            last = first + len(wanted) - 1
            if ids[first : last + 1] == wanted and (allowed is None or allowed[first : last + 1].all()):
                found.add((first, last))
    if len(found) != 1:
        shown = [decoded(tokenizer, token) for token in ids]
        where = f"at {counted(len(found), 'place')}, {sorted(found)}," if found else "nowhere"
        raise UnitError(f"{words!r} stands {where} in the tokens {shown}: give the number of a token")
    return found.pop()


def decoded(tokenizer: Any, token: int) -> str:
    """Returns the text of a token, or its number without a tokenizer."""
    return str(token) if tokenizer is None else str(tokenizer.decode([token])).replace("\n", "\\n")


def are_numbers(given: Sequence[Any]) -> bool:
    """Returns whether a sequence holds the numbers of tokens."""
    return len(given) > 0 and all(isinstance(one, int | np.integer) for one in given)


def _from_words(tokenizer: Any, text: str | tuple[Any, ...], causal: bool) -> Encoded:
    words = (text,) if isinstance(text, str) else text
    if not 0 < len(words) <= 2 or not all(isinstance(one, str) for one in words):
        raise ArgumentError(f"expected a text, a pair of texts or a list of them, got {text!r}")
    if tokenizer is None:
        raise ArgumentError(
            f"without a tokenizer, texts are tokens (1, tokens) and targets numbers: got {text!r}"
        )
    read = encoded_by(tokenizer, *words, return_tensors="pt", return_special_tokens_mask=True)
    (encoded,) = _from_encoding(read)
    special = read["special_tokens_mask"][0].tolist() if "special_tokens_mask" in read else []
    if again := without_second_start(tokenizer, encoded.ids, special):
        others = {name: tensor[:, again:] for name, tensor in encoded.others.items()}
        encoded = replace(encoded, tokens=encoded.tokens[:, again:], others=others)
    _warn_of_unknown(tokenizer, encoded, " ".join(words))
    encoded = replace(encoded, words=words[0]) if len(words) == 1 else encoded
    ends = {getattr(tokenizer, name, None) for name in ("eos_token_id", "sep_token_id")} - {None}
    if causal and len(encoded.ids) > 1 and encoded.ids[-1] in ends:
        if words[-1].rstrip().endswith(decoded(tokenizer, encoded.ids[-1]).strip()):
            return encoded
        others = {name: tensor[:, :-1] for name, tensor in encoded.others.items()}
        return replace(encoded, tokens=encoded.tokens[:, :-1], others=others)
    return encoded


def _warn_of_unknown(tokenizer: Any, encoded: Encoded, words: str) -> None:
    if count := _unknown(tokenizer, encoded.ids, words):
        warn(
            f"the vocabulary lacks {count} of {counted(len(encoded.ids), 'token')} of the text: the model "
            f"reads {tokenizer.unk_token!r} instead"
        )


def _unknown(tokenizer: Any, ids: Sequence[int], words: str) -> int:
    """How many tokens stand for words that the vocabulary does not have."""
    name = getattr(tokenizer, "unk_token", None)
    return 0 if name is None or name in words else list(ids).count(tokenizer.unk_token_id)


def _from_encoding(given: Mapping[str, Any]) -> list[Encoded]:
    """The texts of what a tokenizer returned, without the padding after them."""
    extra = [name for name in given if name not in _TAKEN and name not in _IGNORED]
    if "input_ids" not in given or extra:
        raise ArgumentError(
            f"expected a text, tokens, or what a tokenizer returns for texts, {', '.join(_TAKEN)}; got "
            f"{', '.join(map(str, given)) or 'nothing'}"
        )
    named = {name: _whole(name, given[name]) for name in _TAKEN if name in given}
    tokens = named["input_ids"]
    for name, tensor in named.items():
        if tensor.shape != tokens.shape:
            raise ArgumentError(f"{name} is {tuple(tensor.shape)} for tokens {tuple(tokens.shape)}")
    mask = named.get("attention_mask", torch.ones_like(tokens))
    encoded = []
    for row in range(len(tokens)):
        kept = mask[row].nonzero()[:, 0]
        if not len(kept):
            raise ArgumentError("expected texts with at least one token each, got one that is all padding")
        ends = slice(row, row + 1), slice(0, int(kept[-1]) + 1)
        others = {name: named[name][ends] for name in _TAKEN[1:] if name in named}
        if "attention_mask" in others and others["attention_mask"].all():
            del others["attention_mask"]
        encoded.append(Encoded(tokens[ends], others))
    return encoded


def _whole(name: str, given: Any) -> Tensor:
    """Whole numbers (N, T)."""
    try:
        tensor = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(
            f"{name} is no tensor (texts, tokens), got {type(given).__name__}: texts of different lengths "
            f"are given as a list, or padded"
        ) from None
    tensor = tensor[None] if tensor.dim() == 1 else tensor
    if tensor.dim() != 2 or not tensor.numel() or tensor.is_floating_point():
        raise ArgumentError(
            f"expected texts with at least one token, as whole numbers (texts, tokens), got {name} "
            f"{tuple(tensor.shape)} of {tensor.dtype}"
        )
    return tensor.long()
