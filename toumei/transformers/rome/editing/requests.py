"""What an edit is asked for: a prompt with a place for the subject, the subject, and the new target."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....core.errors import ArgumentError
from ...model.tokens import continuation, filled, tokenize


@dataclass(frozen=True)
class Request:
    """A fact to write into a model.

    Attributes:
        prompt: A template with one ``{}`` for the subject, which the target continues.
        subject: Whom or what the fact is about.
        target: What is to be true.

    Raises:
        ArgumentError: The template has no ``{}`` or several, or the subject or the target is empty.

    Example:
        >>> Request("{} is located in the country of", "Karlsruhe Institute of Technology", "France").text
        'Karlsruhe Institute of Technology is located in the country of'
    """

    prompt: str
    subject: str
    target: str

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or self.prompt.count("{}") != 1:
            raise ArgumentError(
                f"expected a prompt with one {{}} for the subject {self.subject!r}, got {self.prompt!r}"
            )
        for name, given in (("subject", self.subject), ("target", self.target)):
            if not isinstance(given, str) or not given.strip():
                raise ArgumentError(f"expected a {name} with words, got {given!r}")

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        return fill(self.prompt, self.subject)[0]

    @classmethod
    def of(cls, given: Any) -> "Request":
        """Returns a request from a tuple, a mapping or an object that has prompt, subject and target.

        Raises:
            ArgumentError: One of the three is missing.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, tuple) and len(given) == 3:
            return cls(*given)
        if isinstance(given, Mapping):
            missing = [name for name in ("prompt", "subject", "target") if name not in given]
            values = dict(given)
        else:
            missing = [name for name in ("prompt", "subject", "target") if not hasattr(given, name)]
            values = {name: getattr(given, name, None) for name in ("prompt", "subject", "target")}
        if missing:
            raise ArgumentError(
                f"expected prompt, subject and target, {', '.join(missing)} missing in {given!r}"
            )
        return cls(values["prompt"], values["subject"], values["target"])


@dataclass(frozen=True)
class Row:
    """A text as the model reads it, with the token at which the subject is complete.

    Attributes:
        ids: The tokens of the text and of the target, if there is one.
        subject: The place of the subject's last token.
        target: How many of the tokens are the target's.
    """

    ids: tuple[int, ...]
    subject: int
    target: int = 0


def fill(template: str, subject: str) -> tuple[str, int]:
    """Returns a template with the subject in the place of ``{}``, and the character behind the subject."""
    text, start = filled(template, subject)
    assert start is not None
    return text, start + len(subject.strip())


def row(tokenizer: Any, template: str, subject: str, target: str | None = None) -> Row:
    """Returns the tokens of a filled template, and of its target.

    Args:
        tokenizer: A Hugging Face tokenizer with offsets.
        template: A text with one ``{}``.
        subject: What to put there.
        target: What continues the text; its tokens are appended.

    Raises:
        ArgumentError: The tokenizer has no token for the subject or for the target.
    """
    text, end = fill(template, subject)
    tokens = tokenize(tokenizer, text)
    inside = [index for index, (first, last) in enumerate(tokens.spans) if first < end <= last]
    if not inside:
        raise ArgumentError(
            f"no token of {text!r} holds the end of the subject {subject!r}: it has {list(tokens.texts)}"
        )
    added = continuation(tokenizer, text, target) if target is not None else ()
    return Row((*tokens.ids, *added), inside[-1], len(added))


def padded(rows: Iterable[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns tokens (rows, longest), filled up by each row's last one, and the mask of the others."""
    rows = list(rows)
    longest = max(len(ids) for ids in rows)
    tokens = torch.tensor([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in rows], device=device)
    lengths = torch.tensor([len(ids) for ids in rows], device=device)
    return tokens, (torch.arange(longest, device=device) < lengths[:, None]).long()
