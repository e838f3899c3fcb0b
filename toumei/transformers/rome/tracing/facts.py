"""Facts as a list of prompts, read from the forms in which users have them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ....core.checks import checked
from ....core.errors import ArgumentError

_ANSWERS = ("answer", "target", "attribute")


@dataclass(frozen=True)
class FactPrompt:
    """A prompt that asks for a fact about a subject.

    Attributes:
        prompt: The text whose next token is the answer; a ``{}`` in it stands for the subject.
        subject: The subject in it.
        answer: The true answer, or None to use the prediction of the model.

    Example:
        >>> FactPrompt("The Eiffel Tower is in", "The Eiffel Tower", "Paris").subject
        'The Eiffel Tower'
    """

    prompt: str
    subject: str
    answer: str | None = None


@checked
def read_facts(facts: Iterable[Any]) -> list[FactPrompt]:
    """Returns facts from any of the forms in which users have them.

    Args:
        facts: Each a tuple (prompt, subject) or (prompt, subject, answer); a mapping with ``"prompt"``,
            ``"subject"`` and maybe ``"answer"``, ``"target"`` or ``"attribute"``, as in the file
            known_1000.json of the paper; or an object with these attributes, as in `FactsWorld`. A ``{}`` in
            a prompt stands for the subject.

    Raises:
        ArgumentError: There are none, or one has another form.

    Example:
        >>> read_facts([("{} lives in", "Ann", "Rome")])
        [FactPrompt(prompt='{} lives in', subject='Ann', answer='Rome')]
    """
    found = [_read_fact(fact) for fact in facts]
    if not found:
        raise ArgumentError("expected at least one fact, got none")
    return found


def _read_fact(fact: Any) -> FactPrompt:
    if isinstance(fact, (tuple, list)):
        named = dict(zip(("prompt", "subject", "answer"), fact, strict=False))
    elif isinstance(fact, Mapping):
        named = dict(fact)
    else:
        named = {name: getattr(fact, name, None) for name in ("prompt", "subject", *_ANSWERS)}
    if not isinstance(named.get("prompt"), str) or not isinstance(named.get("subject"), str):
        raise ArgumentError(
            f"expected a fact as (prompt, subject), as (prompt, subject, answer) or with 'prompt' and "
            f"'subject' by name, got {fact!r}"
        )
    answer = next((named[name] for name in _ANSWERS if named.get(name) is not None), None)
    return FactPrompt(named["prompt"], named["subject"], answer)
