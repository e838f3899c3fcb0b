"""Facts as a list of prompts, and the work on one of them in a sweep over many."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ....core.errors import ArgumentError
from ...model.tokens import filled
from .averages import by_role

if TYPE_CHECKING:
    from .tracer import CausalTracer


_ANSWERS = ("answer", "target", "attribute")


@dataclass(frozen=True)
class Fact:
    """A prompt that asks for a fact about a subject.

    Attributes:
        prompt: The text whose next token is the answer; a ``{}`` in it stands for the subject.
        subject: The subject in it.
        answer: The true answer, or None where the model's prediction is taken for it.
    """

    prompt: str
    subject: str
    answer: str | None = None


def read_facts(facts: Iterable[Any]) -> list[Fact]:
    """Returns facts from any of the forms in which they come.

    Args:
        facts: Each a tuple (prompt, subject) or (prompt, subject, answer); a mapping with ``"prompt"``,
            ``"subject"`` and maybe ``"answer"``, ``"target"`` or ``"attribute"``, as in the file
            known_1000.json of the paper; or an object with these attributes, as in `FactsWorld`. A ``{}`` in
            a prompt stands for the subject.

    Raises:
        ArgumentError: There are none, or one has another form.

    Example:
        >>> read_facts([("{} lives in", "Ann", "Rome")])
        [Fact(prompt='{} lives in', subject='Ann', answer='Rome')]
    """
    found = [_read_fact(fact) for fact in facts]
    if not found:
        raise ArgumentError("expected at least one fact, got none")
    return found


def _read_fact(fact: Any) -> Fact:
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
    return Fact(named["prompt"], named["subject"], answer)


@dataclass(frozen=True)
class Item:
    """A fact of a sweep, with all that its result depends on: what is kept on disk is known by its `repr`."""

    fact: Fact
    settings: str


@dataclass(frozen=True)
class FactTask:
    """Traces one fact: what a sweep over many facts calls."""

    tracer: "CausalTracer"
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, item: Item) -> dict[str, Any] | None:
        """Returns the effects by role, low and high; None if the model predicts another answer."""
        fact = item.fact
        text, _ = filled(fact.prompt, fact.subject)
        if fact.answer is not None and not self.tracer.knows(text, fact.answer):
            return None
        trace = self.tracer.trace(fact.prompt, fact.subject, **self.options)
        return {"effects": by_role(trace), "low": trace.low, "high": trace.high}
