"""What an edit is tested on: paraphrases, neighbours that it must spare, and the subject's other facts."""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import ArgumentError
from ..editing.requests import Request

if TYPE_CHECKING:
    from ....models.facts_world import FactsWorld

Asked = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """An edit and what it is tested on. All prompts are whole texts.

    Attributes:
        request: The edit.
        truth: What is true before the edit.
        paraphrases: Other ways to ask for the same fact.
        neighbours: Prompts about other subjects of which the same is true: (prompt, answer).
        namesakes: The same about subjects that share a part of the name: (prompt, answer).
        others: Other facts of the same subject: (prompt, answer).
        generation: Prompts about the subject that leave open what comes next.
        references: Texts about subjects for which the new target is true.
    """

    request: Request
    truth: str
    paraphrases: tuple[str, ...] = ()
    neighbours: Asked = ()
    namesakes: Asked = ()
    others: Asked = ()
    generation: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def counterfact_cases(
    records: str | Path | Iterable[Mapping[str, Any]],
    snippets: str | Path | Iterable[Mapping[str, Any]] = (),
) -> list[Case]:
    """Returns the cases of a CounterFact file (Meng et al., 2022), or of records in its format.

    Args:
        records: A path of a JSON list, or the list. Of each record `requested_rewrite` is needed, the prompts
            may be missing.
        snippets: The texts for the reference score, as in the paper's attribute_snippets.json: a path of a
            JSON list, or the list, of mappings with `relation_id`, `target_id` and `samples`.

    Raises:
        ArgumentError: A file is no JSON, a record has no complete `requested_rewrite`, or there are none.
    """
    about = {
        (own["relation_id"], own["target_id"]): tuple(sample["text"] for sample in own["samples"])
        for own in _json(snippets)
    }
    cases = []
    for number, record in enumerate(_json(records)):
        try:
            rewrite = record["requested_rewrite"]
            new = rewrite["target_new"]
            request = Request(rewrite["prompt"], rewrite["subject"], new["str"])
            truth = rewrite["target_true"]["str"]
        except (KeyError, TypeError) as error:
            had = f"it has {', '.join(record)}" if isinstance(record, Mapping) else f"it is {record!r}"
            raise ArgumentError(f"record {number} is not CounterFact's, {error} is missing: {had}") from None
        neighbours = tuple((prompt, truth) for prompt in record.get("neighborhood_prompts", ()))
        cases.append(
            Case(
                request,
                truth,
                tuple(record.get("paraphrase_prompts", ())),
                neighbours,
                generation=tuple(record.get("generation_prompts", ())),
                references=about.get((rewrite.get("relation_id"), new.get("id")), ()),
            )
        )
    if not cases:
        raise ArgumentError("expected CounterFact records, got none")
    return cases


def _json(given: str | Path | Iterable[Any]) -> Iterable[Any]:
    if not isinstance(given, (str, Path)):
        return given
    try:
        return list(json.loads(Path(given).read_text("utf-8")))
    except json.JSONDecodeError as error:
        raise ArgumentError(f"{given} is no JSON, or cut short: {error}") from None


def world_cases(world: "FactsWorld", count: int, seed: int = 0) -> list[Case]:
    """Returns edits of facts of the invented world to other values of the same kind, one for each subject.

    Args:
        world: The world that the network of `toumei.models.facts_model` knows.
        count: How many.
        seed: Which.

    Raises:
        ArgumentError: There are fewer subjects.

    Example:
        >>> from toumei.models.facts_world import FactsWorld
        >>> cases = world_cases(FactsWorld(), 3)
        >>> len(cases), len(cases[0].paraphrases)
        (3, 2)
    """
    if not 0 < count <= len(world.subjects):
        raise ArgumentError(f"expected 1 to {len(world.subjects)} cases, got {count}")
    draw = random.Random(seed)
    cases = []
    for subject in draw.sample(world.subjects, count):
        fact = draw.choice(world.about(subject))
        target = draw.choice(world.alternatives(fact))
        namesakes = world.namesakes(fact)
        chosen = draw.sample(namesakes, min(10, len(namesakes)))
        # Each other fact is asked for in a phrasing that the subject was seen with.
        others = tuple((other.text, other.target) for other in world.others(fact))
        alike = (other for other in world.facts if other.relation == fact.relation and other.target == target)
        cases.append(
            Case(
                Request(fact.prompt, subject, target),
                fact.target,
                fact.paraphrases,
                tuple((prompt, fact.target) for prompt in fact.neighbourhood),
                tuple((other.text, other.target) for other in chosen),
                others,
                fact.generation,
                tuple(f"{other.text} {other.target}." for other in alike),
            )
        )
    return cases
