"""Records of data sets of edits in their layouts: CounterFact's and zsRE's, nested or flat."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ....core.errors import ArgumentError
from ..editing.requests import EditRequest

_PARAPHRASES = ("paraphrase_prompts", "rephrase_prompt", "rephrase")
_LISTS = (list, tuple)


def fields_of(record: Any, number: int) -> dict[str, Any]:
    """Returns the fields of an `EditCase` that a record holds, in any of the layouts.

    Args:
        record: A mapping.
        number: Its number, for messages.

    Raises:
        ArgumentError: It has none of the layouts, or a part of it has another form.

    Example:
        >>> flat = {"prompt": "Ann lives in", "subject": "Ann", "target_new": "Rome", "ground_truth": "Paris"}
        >>> fields_of(flat, 0)["request"].prompt
        '{} lives in'
    """
    try:
        if "requested_rewrite" in record:
            return _of_counterfact(record)
        if "src" in record and "alt" in record:
            return _of_zsre(record)
        if "prompt" in record and "target_new" in record:
            return _flat(record)
        raise KeyError("requested_rewrite")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        found = (
            f"it has {', '.join(map(str, record))}" if isinstance(record, Mapping) else f"it is {record!r}"
        )
        raise ArgumentError(f"record {number} is not CounterFact's, {error} is missing: {found}") from None
    except ArgumentError as error:
        raise ArgumentError(f"record {number}: {error}") from None


def _of_counterfact(record: Mapping[str, Any]) -> dict[str, Any]:
    """Neighbours have the true answer, or, as zsRE in this layout, each its own."""
    rewrite = record["requested_rewrite"]
    truth = _text(rewrite["target_true"])
    return {
        "request": EditRequest(rewrite["prompt"], rewrite["subject"], _text(rewrite["target_new"])),
        "truth": truth,
        "paraphrases": _texts(record.get("paraphrase_prompts")),
        "neighbours": tuple(_pairs(record.get("neighborhood_prompts"), truth)),
        "generation": _texts(record.get("generation_prompts")),
    }


def _of_zsre(record: Mapping[str, Any]) -> dict[str, Any]:
    """The questions of zsRE (Mitchell et al., 2022)."""
    return {
        "request": _request(record["src"], record["subject"], record["alt"]),
        "truth": _text(record["answers"]),
        "paraphrases": _texts(record.get("rephrase")),
        "neighbours": tuple(_pairs(record.get("loc"), _text(record["loc_ans"]) if "loc" in record else "")),
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """The layout of EasyEdit; other prompts stand beside the edit or under ``locality``."""
    truth = _text(record["ground_truth"] if "ground_truth" in record else record["target_true"])
    neighbours = list(_pairs(record.get("locality_prompt"), record.get("locality_ground_truth", truth)))
    for group in (record.get("locality") or {}).values():
        for one in group if isinstance(group, _LISTS) else [group]:
            neighbours += _pairs(one["prompt"], one["ground_truth"])
    paraphrases = next((record[name] for name in _PARAPHRASES if record.get(name)), ())
    return {
        "request": _request(record["prompt"], record["subject"], record["target_new"]),
        "truth": truth,
        "paraphrases": _texts(paraphrases),
        "neighbours": tuple(neighbours),
    }


def _request(prompt: str, subject: str, target: Any) -> EditRequest:
    """The request of a whole prompt, in which ``{}`` takes the place of the subject."""
    if "{}" not in prompt:
        subject = subject.strip()
        found = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt) or re.search(
            re.escape(subject), prompt
        )
        if not subject or found is None:
            raise ArgumentError(f"the subject {subject!r} is not in the prompt {prompt!r}")
        prompt = f"{prompt[: found.start()]}{{}}{prompt[found.end() :]}"
    return EditRequest(prompt, subject, _text(target))


def _text(given: Any) -> str:
    """A text that may be in a mapping as ``str``, or the first of a list."""
    if isinstance(given, Mapping):
        return _text(given["str"])
    if isinstance(given, _LISTS):
        return _text(given[0])
    if not isinstance(given, str):
        raise ArgumentError(f"expected a text, got {given!r}")
    return given


def _texts(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    return tuple(map(_text, given)) if isinstance(given, _LISTS) else (_text(given),)


def _pairs(prompts: Any, answers: Any) -> Iterator[tuple[str, str]]:
    """Prompts with their answers: one for all, one for each, or in mappings with the prompts."""
    listed: Iterable[Any] = prompts if isinstance(prompts, _LISTS) else [] if prompts is None else [prompts]
    for number, prompt in enumerate(listed):
        if isinstance(prompt, Mapping):
            answer = prompt["target"] if "target" in prompt else prompt["ground_truth"]
            yield _text(prompt["prompt"]), _text(answer)
        elif isinstance(answers, _LISTS) and isinstance(prompts, _LISTS):
            yield _text(prompt), _text(answers[number])
        else:
            yield _text(prompt), _text(answers)
