"""The test prompts of an edit: paraphrases, neighbours that must not change, the subject's other facts."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.checks import checked
from ....core.errors import ArgumentError
from ....core.files import check_regular
from ....core.json_files import from_json
from ....core.summaries import counted
from ..editing.requests import EditRequest
from .records import fields_of

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

    Records of zsRE (Mitchell et al., 2022) are read as well, in CounterFact's layout or their own, and flat
    ones as EasyEdit has them, with ``prompt``, ``subject``, ``target_new`` and ``ground_truth``.

    Args:
        records: The path of a JSON list, or the list. Prompts other than that of the edit may be missing.
        snippets: The texts for the reference score, as in the paper's attribute_snippets.json: a path of a
            JSON list, or the list, of mappings with `relation_id`, `target_id` and `samples`.

    Raises:
        ArgumentError: A file is no JSON, a record has none of the layouts, or there are none.

    Example:
        >>> record = {
        ...     "requested_rewrite": {
        ...         "prompt": "{} lives in",
        ...         "subject": "Ann",
        ...         "target_new": {"str": "Rome"},
        ...         "target_true": {"str": "Paris"},
        ...     },
        ...     "paraphrase_prompts": ["Ann's home is"],
        ...     "neighborhood_prompts": ["Bob lives in"],
        ...     "generation_prompts": [],
        ... }
        >>> counterfact_cases([record])[0].paraphrases
        ("Ann's home is",)
    """
    try:
        about = {
            (one["relation_id"], one["target_id"]): tuple(sample["text"] for sample in one["samples"])
            for one in _json(snippets)
        }
    except (KeyError, TypeError) as error:
        raise ArgumentError(f"snippets have relation_id, target_id and samples: {error} is missing") from None
    cases = []
    for number, record in enumerate(_json(records)):
        fields = fields_of(record, number)
        rewrite = record.get("requested_rewrite", {})
        key = rewrite.get("relation_id"), (rewrite.get("target_new") or {}).get("id")
        cases.append(EditCase(**fields, references=about.get(key, ())))
    if not cases:
        raise ArgumentError("expected CounterFact records, got none")
    return cases


def _json(given: str | Path | Iterable[Any]) -> Iterable[Any]:
    if not isinstance(given, (str, Path)):
        return given
    check_regular(given, "read")
    try:
        read = from_json(Path(given).read_text("utf-8"))
    except ValueError as error:
        raise ArgumentError(f"{given} is no JSON, or cut short: {error}") from None
    if not isinstance(read, list):
        raise ArgumentError(f"expected a JSON list in {given}, got {type(read).__name__}")
    return read


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
        raise ArgumentError(f"expected 1 to {counted(len(world.subjects), 'case')}, got {count}")
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
