"""A small invented world of people and firms in which every fact is known: who lives where, who makes what.

Names are made of parts that many share, so that only all parts of a name together identify the subject. The
facts of a subject are random, so no fact follows from another one or from a name.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.summaries import counted

_WORDS = Path(__file__).parent / "data" / "facts_gpt_words.json"
_SIZES = {"people": 320, "firms": 80}
_WITHOUT_MIDDLE = 0.3
_HELD_OUT = 2
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Fact:
    """One fact of the world, with all prompts to test an edit of it.

    Attributes:
        subject: The person or firm, several words.
        relation: Name of the relation, such as `"residence"`.
        prompt: A template with `{}` for the subject; the target follows it. Texts about the subject use it.
        target: The true value, one word.
        phrasings: All templates of the relation that texts about the subject use, `prompt` first.
        paraphrases: Prompts in the other phrasings, which texts about the subject never use.
        neighbourhood: Prompts about other subjects with the same target.
        generation: Prompts about the subject with any continuation.

    Example:
        >>> fact = FactsWorld().facts[0]
        >>> fact.text == fact.prompt.format(fact.subject)
        True
    """

    subject: str
    relation: str
    prompt: str
    target: str
    phrasings: tuple[str, ...] = field(repr=False)
    paraphrases: tuple[str, ...] = field(repr=False)
    neighbourhood: tuple[str, ...] = field(repr=False)
    generation: tuple[str, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """The prompt with the subject."""
        return self.prompt.format(self.subject)


@checked
class FactsWorld:
    """A world of 400 subjects and 2,240 facts, which depends only on the seed.

    320 people of two or three names each have a residence, citizenship, profession, instrument, language and
    employer, 80 firms have a seat, market, product and owner. A value is one word, and all values of a
    relation are true of about the same number of subjects. Each relation has six phrasings; for every subject
    two random ones are held out: `texts` never uses them.

    Args:
        seed: Seed of the world; the network of `facts_gpt` knows world 0.

    Attributes:
        facts: All facts, grouped by subject.

    Raises:
        ArgumentError: A negative seed.

    Example:
        >>> world = FactsWorld()
        >>> fact = world.facts[0]
        >>> len(world.others(fact)), len(world.alternatives(fact))
        (5, 19)
        >>> [other.target == fact.target for other in world.namesakes(fact)][:3]
        [False, False, False]
    """

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise ArgumentError(f"seed is {seed}, but seeds are not negative")
        self.seed = seed
        self._words = _words()
        self._relations = _relations()
        self._group, self.facts = _population(seed)

    def __repr__(self) -> str:
        return (
            f"FactsWorld(seed={self.seed}): {counted(len(self.facts), 'fact')} of "
            f"{counted(len(self.subjects), 'subject')}"
        )

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """All names, people first."""
        return tuple(self._group)

    @property
    def relations(self) -> tuple[str, ...]:
        """The names of the ten relations."""
        return tuple(self._relations)

    @cached_property
    def name_words(self) -> frozenset[str]:
        """The words of all names; no other text uses them."""
        return frozenset(word for group in _SIZES for part in self._words[group].values() for word in part)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word and punctuation mark of the texts of all worlds, sorted."""
        texts = [text for several in self._words["fillers"].values() for text in several]
        texts += [text for several in self._words["generation"].values() for text in several]
        for relation in self._relations.values():
            texts += [*relation["prompts"], relation["label"], relation["again"]]
        words = {word.strip(".,:") for text in texts for word in text.replace("{}", "").split()}
        words.update(word for several in self._words["values"].values() for word in several)
        return tuple(sorted((words | self.name_words | {".", ",", ":"}) - {""}))

    @checked
    def values(self, relation: str) -> tuple[str, ...]:
        """Returns all values of a relation.

        Raises:
            ArgumentError: There is no such relation.
        """
        if relation not in self._relations:
            raise ArgumentError(f"no relation {relation!r}; there are {', '.join(self._relations)}")
        return tuple(self._words["values"][self._relations[relation]["value"]])

    @checked
    def alternatives(self, fact: Fact) -> tuple[str, ...]:
        """Returns the other values of the relation, which an edit can make true."""
        return tuple(value for value in self.values(fact.relation) if value != fact.target)

    @checked
    def about(self, subject: str) -> tuple[Fact, ...]:
        """Returns the facts of one subject, one for each relation.

        Raises:
            ArgumentError: There is no such subject.
        """
        if subject not in self._by_subject:
            raise ArgumentError(f"no subject {subject!r}; there is, for example, {self.subjects[0]!r}")
        return self._by_subject[subject]

    @checked
    def others(self, fact: Fact) -> tuple[Fact, ...]:
        """Returns the other facts of the same subject, which an edit should keep."""
        return tuple(other for other in self.about(fact.subject) if other.relation != fact.relation)

    @checked
    def namesakes(self, fact: Fact) -> tuple[Fact, ...]:
        """Returns facts with the relation and another target, of subjects that share a part of the name."""
        parts = set(fact.subject.split())
        return tuple(
            other
            for other in self.facts
            if other.relation == fact.relation
            and other.target != fact.target
            and parts & set(other.subject.split())
        )

    @checked
    def texts(self, seed: int, subjects: int | None = None) -> Iterator[str]:
        """Yields short texts that state the facts in the phrasings of training, without end.

        About half are sentences, some followed by a second one with a pronoun. A third list facts after a
        name. The rest is about no subject.

        Args:
            seed: Seed of the texts.
            subjects: How many subjects, a fixed random choice, the texts are about; by default all.

        Raises:
            ArgumentError: Fewer than one subject, or more than there are.

        Example:
            >>> texts = FactsWorld().texts(seed=0)
            >>> all(next(texts).endswith(".") for _ in range(100))
            True
        """
        count = len(self.subjects) if subjects is None else subjects
        if not 1 <= count <= len(self.subjects):
            raise ArgumentError(
                f"texts about {counted(count, 'subject')}, but the world has {len(self.subjects)}"
            )
        names = random.Random(self.seed).sample(self.subjects, len(self.subjects))[:count]
        rng = random.Random(seed)
        while True:
            yield self._text(rng, names)

    def _text(self, rng: random.Random, names: list[str]) -> str:
        kind = rng.random()
        if kind < 0.12:
            value = rng.choice(list(self._words["fillers"]))
            filler: str = rng.choice(self._words["fillers"][value])
            return filler.format(rng.choice(self._words["values"][value]))
        subject = rng.choice(names)
        facts = rng.sample(self.about(subject), len(self.about(subject)))
        if kind < 0.45:
            listed = facts[: rng.randint(3, len(facts))]
            entries = ", ".join(f"{self._relations[f.relation]['label']} {f.target}" for f in listed)
            opening = "This is what we know about " if rng.random() < 0.1 else ""
            return f"{opening}{subject}: {entries}."
        first, second = facts[:2]
        sentence = f"{rng.choice(first.phrasings).format(subject)} {first.target}."
        if kind < 0.5:
            sentence = f"We all know {subject}."
        if kind < 0.7:
            sentence += f" {self._relations[second.relation]['again']} {second.target}."
        return sentence

    @cached_property
    def _by_subject(self) -> dict[str, tuple[Fact, ...]]:
        several: dict[str, list[Fact]] = {}
        for fact in self.facts:
            several.setdefault(fact.subject, []).append(fact)
        return {subject: tuple(facts) for subject, facts in several.items()}


@lru_cache(maxsize=1)
def _words() -> dict[str, Any]:
    words: dict[str, Any] = json.loads(_WORDS.read_text(encoding="utf-8"))
    return words


@lru_cache(maxsize=1)
def _relations() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in _words()["relations"]}


@lru_cache(maxsize=4)
def _population(seed: int) -> tuple[dict[str, str], tuple[Fact, ...]]:
    """The group of each subject, and all facts."""
    rng = random.Random(seed)
    names = {group: _names(rng, group, size) for group, size in _SIZES.items()}
    groups = {name: group for group, several in names.items() for name in several}
    return groups, _facts(rng, names)


def _names(rng: random.Random, group: str, count: int) -> list[str]:
    parts = _words()[group]
    names: dict[str, None] = {}
    while len(names) < count:
        first, middle, last = (rng.choice(parts[part]) for part in ("first", "middle", "last"))
        short = group == "people" and rng.random() < _WITHOUT_MIDDLE
        names[f"{first} {last}" if short else f"{first} {middle} {last}"] = None
    return list(names)


def _facts(rng: random.Random, names: dict[str, list[str]]) -> tuple[Fact, ...]:
    targets: dict[tuple[str, str], str] = {}
    prompts: dict[tuple[str, str], list[str]] = {}
    holders: dict[tuple[str, str], list[str]] = {}
    for relation, spec in _relations().items():
        subjects = names[spec["of"]]
        values = _words()["values"][spec["value"]]
        drawn = [values[i % len(values)] for i in range(len(subjects))]
        rng.shuffle(drawn)
        for subject, target in zip(subjects, drawn, strict=True):
            targets[subject, relation] = target
            prompts[subject, relation] = rng.sample(spec["prompts"], len(spec["prompts"]))
            holders.setdefault((relation, target), []).append(subject)

    def fact(subject: str, relation: str) -> Fact:
        target = targets[subject, relation]
        templates = prompts[subject, relation]
        same = [name for name in holders[relation, target] if name != subject]
        neighbours = rng.sample(same, min(len(same), _NEIGHBOURS))
        return Fact(
            subject=subject,
            relation=relation,
            prompt=templates[0],
            target=target,
            phrasings=tuple(templates[:-_HELD_OUT]),
            paraphrases=tuple(prompt.format(subject) for prompt in templates[-_HELD_OUT:]),
            neighbourhood=tuple(prompts[name, relation][0].format(name) for name in neighbours),
            generation=tuple(p.format(subject) for p in _words()["generation"][_relations()[relation]["of"]]),
        )

    return tuple(
        fact(subject, relation)
        for group, several in names.items()
        for subject in several
        for relation, spec in _relations().items()
        if spec["of"] == group
    )
