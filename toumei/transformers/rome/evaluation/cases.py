"""The test prompts of an edit: paraphrases, neighbours that must not change, the subject's other facts."""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.checks import checked
from ....core.errors import ArgumentError
from ..editing.requests import EditRequest

if TYPE_CHECKING:
    from ....models.facts_world import FactsWorld

Questions = tuple[tuple[str, str], ...]  # (prompt, answer)


@dataclass(frozen=True)
class EditCase:
    """An edit and its test prompts. All prompts are whole texts, without ``{}``.

    Attributes:
        request: The edit.
        truth: The answer that is true before the edit.
        paraphrases: Other prompts that ask for the same fact.
        neighbours: Prompts about other subjects with the same true answer: (prompt, answer).
        namesakes: Prompts about subjects whose name shares a part with the subject's: (prompt, answer).
        others: Other facts of the same subject: (prompt, answer).
        generation: Prompts about the subject that can be continued freely.
        references: Texts about subjects for which the new target is true.

    Example:
        >>> EditCase(EditRequest("{} lives in", "Ann", "Rome"), truth="Paris").request.text
        'Ann lives in'
    """

    request: EditRequest
    truth: str
    paraphrases: tuple[str, ...] = ()
    neighbours: Questions = ()
    namesakes: Questions = ()
    others: Questions = ()
    generation: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def counterfact_cases(
    records: str | Path | Iterable[Mapping[str, Any]],
    snippets: str | Path | Iterable[Mapping[str, Any]] = (),
) -> list[EditCase]:
    """Returns the cases of a CounterFact file (Meng et al., 2022), or of records in its format.

    Args:
        records: The path of a JSON list, or the list. Each record needs `requested_rewrite`; the prompts may
            be missing.
        snippets: The texts for the reference score, as in the paper's attribute_snippets.json: a path of a
            JSON list, or the list, of mappings with `relation_id`, `target_id` and `samples`.

    Raises:
        ArgumentError: A file is no JSON, a record has no complete `requested_rewrite`, or there are none.
    """
    about = {
        (snippet["relation_id"], snippet["target_id"]): tuple(sample["text"] for sample in snippet["samples"])
        for snippet in _json(snippets)
    }
    cases = []
    for number, record in enumerate(_json(records)):
        try:
            rewrite = record["requested_rewrite"]
            new = rewrite["target_new"]
            request = EditRequest(rewrite["prompt"], rewrite["subject"], new["str"])
            truth = rewrite["target_true"]["str"]
        except (KeyError, TypeError) as error:
            found = f"it has {', '.join(record)}" if isinstance(record, Mapping) else f"it is {record!r}"
            raise ArgumentError(
                f"record {number} is not CounterFact's, {error} is missing: {found}"
            ) from None
        neighbours = tuple((prompt, truth) for prompt in record.get("neighborhood_prompts", ()))
        cases.append(
            EditCase(
                request=request,
                truth=truth,
                paraphrases=tuple(record.get("paraphrase_prompts", ())),
                neighbours=neighbours,
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


@checked
def world_cases(world: "FactsWorld", count: int, seed: int = 0) -> list[EditCase]:
    """Returns edits of facts of the invented world to other values of the same kind, one for each subject.

    Args:
        world: The world that the network of `toumei.models.facts_model` knows.
        count: How many cases.
        seed: Seed of the choice.

    Raises:
        ArgumentError: There are fewer subjects.

    Example:
        >>> from toumei.models.facts_world import FactsWorld
        >>> cases = world_cases(FactsWorld(), 3)
        >>> len(cases), len(cases[0].paraphrases)
        (3, 2)
    """
    if not hasattr(world, "subjects"):
        raise ArgumentError(f"expected a FactsWorld, got {type(world).__name__}")
    if not 0 < count <= len(world.subjects):
        raise ArgumentError(f"expected 1 to {len(world.subjects)} cases, got {count}")
    draw = random.Random(seed)
    cases = []
    for subject in draw.sample(world.subjects, count):
        fact = draw.choice(world.about(subject))
        target = draw.choice(world.alternatives(fact))
        namesakes = world.namesakes(fact)
        chosen = draw.sample(namesakes, min(10, len(namesakes)))
        # The prompt of each other fact is a phrasing in which the model saw the subject.
        others = tuple((other.text, other.target) for other in world.others(fact))
        alike = (other for other in world.facts if other.relation == fact.relation and other.target == target)
        cases.append(
            EditCase(
                request=EditRequest(fact.prompt, subject, target),
                truth=fact.target,
                paraphrases=fact.paraphrases,
                neighbours=tuple((prompt, fact.target) for prompt in fact.neighbourhood),
                namesakes=tuple((other.text, other.target) for other in chosen),
                others=others,
                generation=fact.generation,
                references=tuple(f"{other.text} {other.target}." for other in alike),
            )
        )
    return cases
