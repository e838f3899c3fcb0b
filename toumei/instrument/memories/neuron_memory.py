"""One neuron as a memory: the texts that trigger it, and the tokens that its value promotes."""

from dataclasses import dataclass
from typing import Any

from ...core.notebooks import escaped
from ...core.summaries import listed, shortened

_BEFORE, _AFTER = 60, 30  # characters that are shown around a trigger


@dataclass(frozen=True)
class Trigger:
    """The prefix of a text at which a neuron has its highest, or lowest, coefficient in the text.

    Attributes:
        text: The whole text.
        number: Its number in the corpus.
        position: The last token of the prefix, counted from 0.
        value: The coefficient there.
        z: How many standard deviations that is above the neuron's mean over all prefixes.
        prefix: The text up to and with that token.
        token: That token.
        next_token: The token after it, None at the end of the text.

    Example:
        >>> trigger = Trigger("the cat sat", 0, 1, 2.5, 3.0, "the cat", "cat", "sat")
        >>> trigger.prefix, trigger.next_token
        ('the cat', 'sat')
    """

    text: str
    number: int
    position: int
    value: float
    z: float
    prefix: str
    token: str
    next_token: str | None

    @classmethod
    def at(cls, text: str, number: int, *, span: tuple[int, int], token: str, **fields: Any) -> "Trigger":
        """Returns the trigger whose prefix ends with the characters `span` of a text.

        Args:
            text: The text.
            number: Its number in the corpus.
            span: Where the last token of the prefix starts and ends.
            token: What to call that token where it has no characters, as special tokens.
            **fields: The other attributes.
        """
        start, end = span
        return cls(text, number, prefix=text[:end], token=text[start:end] or token, **fields)

    @property
    def marked(self) -> str:
        """The text with the last token of the prefix in brackets.

        Example:
            >>> Trigger("Ann lives here", 0, 1, 2.0, 3.0, "Ann lives", " lives", " here").marked
            'Ann [lives] here'
        """
        before, token, after = self.parts()
        return f"{before}[{token}]{after}"

    def parts(self) -> tuple[str, str, str]:
        """Returns the text before the last token of the prefix, that token stripped, and the rest."""
        word = self.token.strip() or self.token  # some tokens are a space
        start = len(self.prefix) - len(word)
        if not word or self.prefix[start:] != word:  # a special token, or part of a character
            return self.prefix, word, self.text[len(self.prefix) :]
        return self.prefix[:start], word, self.text[len(self.prefix) :]


@dataclass(frozen=True, repr=False)
class NeuronMemory:
    """A neuron as a memory.

    Attributes:
        layer: The name of its layer.
        index: Its number in the layer.
        triggers: The prefixes with the highest coefficients, the highest first, at most one of a text.
        lowest: Those with the lowest, the lowest first; empty where a layer is not gated.
        promoted: The likeliest tokens under the value, with their probabilities.
        lowered: The likeliest under the negative value, of gated layers.
        mean: The mean coefficient over all prefixes.
        deviation: The standard deviation.

    Example:
        >>> trigger = Trigger("the cat sat", 0, 1, 2.5, 3.0, "the cat", "cat", "sat")
        >>> NeuronMemory("mlp", 7, (trigger,), (), (("sat", 0.5),), (), 0.1, 0.2)
        NeuronMemory(mlp:7: 'the [cat] sat' -> sat)
    """

    layer: str
    index: int
    triggers: tuple[Trigger, ...]
    lowest: tuple[Trigger, ...]
    promoted: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]
    mean: float
    deviation: float

    def __repr__(self) -> str:
        first = f": {shortened(self.triggers[0].marked, 60)!r}" if self.triggers else ""
        words = listed((word.strip() for word, _ in self.promoted), 3)
        return f"NeuronMemory({shortened(self.layer, 40)}:{self.index}{first} -> {words})"

    def __str__(self) -> str:
        lines = [f"{self.layer}:{self.index}, coefficient {self.mean:.3f} +- {self.deviation:.3f}"]
        for name, words in (("promotes", self.promoted), ("lowers", self.lowered)):
            if words:
                lines.append(f"{name} " + ", ".join(f"{word.strip()} {share:.2%}" for word, share in words))
        for trigger in (*self.triggers, *self.lowest):
            lines.append(f"{trigger.value:9.3f} (z {trigger.z:+.1f})  {_around(trigger)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{trigger.value:.3f}</td><td>{trigger.z:+.1f}</td><td>{escaped(before)}"
            f"<b>{escaped(token)}</b>{escaped(after)}</td></tr>"
            for trigger in (*self.triggers, *self.lowest)
            for before, token, after in (_cut(trigger),)
        ]
        words = ", ".join(f"{word.strip()} {share:.2%}" for word, share in self.promoted)
        return (
            f"<p>{escaped(self.layer)}:{self.index} promotes {escaped(words)}</p>"
            f"<table><tr><th>coefficient</th><th>z</th><th>trigger</th></tr>{''.join(rows)}</table>"
        )


def _around(trigger: Trigger) -> str:
    before, token, after = _cut(trigger)
    return " ".join(f"{before}[{token}]{after}".split())


def _cut(trigger: Trigger) -> tuple[str, str, str]:
    before, token, after = trigger.parts()
    start = "..." if len(before) > _BEFORE else ""
    end = "..." if len(after) > _AFTER else ""
    return start + before[-_BEFORE:], token, after[:_AFTER] + end
