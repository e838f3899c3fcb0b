"""The facts to write: prompt, subject and new target, and their tokens."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ....core.checks import checked
from ....core.errors import ArgumentError
from ....core.summaries import line_of
from ...model.tokens import continuation, fill_subject, tokenize


@checked
@dataclass(frozen=True)
class EditRequest:
    """A fact to write into a model.

    Attributes:
        prompt: A template with one ``{}`` for the subject, which the target continues.
        subject: The person or thing that the fact is about.
        target: The new object of the fact, which the model is to predict after the prompt.

    Raises:
        ArgumentError: The template has no ``{}`` or several, or the subject or the target is empty.

    Example:
        >>> EditRequest("{} is located in the country of", "Karlsruhe Institute of Technology", "France").text
        'Karlsruhe Institute of Technology is located in the country of'
    """

    prompt: str
    subject: str
    target: str

    __repr__ = line_of

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
        """The prompt with the subject in place of ``{}``."""
        return fill_subject(self.prompt, self.subject)[0]

    @classmethod
    @checked
    def of(cls, given: Any) -> "EditRequest":
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


def distinct(given: Iterable[Any]) -> list[EditRequest]:
    """Returns requests, each once; see `EditRequest.of`.

    Raises:
        ArgumentError: There are none, or two contradict each other.
    """
    known: dict[tuple[str, str], EditRequest] = {}
    for request in map(EditRequest.of, given):
        same = known.setdefault((request.prompt, request.subject), request)
        if same != request:
            raise ArgumentError(f"{request.text!r} cannot be {same.target!r} and {request.target!r} at once")
    if not known:
        raise ArgumentError("expected facts to write, got none")
    return list(known.values())


@dataclass(frozen=True)
class SubjectText:
    """The tokens of a text about a subject.

    Attributes:
        ids: The tokens of the text and of the target, if there is one.
        subject: The position of the subject's last token.
        target: The number of tokens of the target.
    """

    ids: tuple[int, ...]
    subject: int
    target: int = 0


def subject_text(tokenizer: Any, template: str, subject: str, target: str | None = None) -> SubjectText:
    """Returns the tokens of a template with the subject in place of ``{}``, and of its target.

    Args:
        tokenizer: A Hugging Face tokenizer with offsets.
        template: A text with one ``{}``.
        subject: The subject.
        target: The continuation of the text; its tokens are appended.

    Raises:
        ArgumentError: The tokenizer has no token for the subject or for the target.
    """
    text, start = fill_subject(template, subject)
    assert start is not None
    end = start + len(subject.strip())
    tokens = tokenize(tokenizer, text)
    inside = [index for index, (first, last) in enumerate(tokens.spans) if first < end <= last]
    if not inside:
        raise ArgumentError(
            f"no token of {text!r} holds the end of the subject {subject!r}: it has {list(tokens.texts)}"
        )
    added = continuation(tokenizer, text, target) if target is not None else ()
    return SubjectText(ids=(*tokens.ids, *added), subject=inside[-1], target=len(added))
