"""The test prompts of edits, from CounterFact and from the invented world."""

import json

import pytest

from toumei.core.errors import ArgumentError
from toumei.models.facts_world import FactsWorld
from toumei.transformers.rome.editing.requests import EditRequest
from toumei.transformers.rome.evaluation import (
    counterfact_cases,
    world_cases,
)


def test_records_in_counterfacts_format(tmp_path):
    record = {
        "case_id": 0,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "subject": "Danielle Darrieux",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "relation_id": "P103",
        },
        "paraphrase_prompts": ["Danielle Darrieux spoke the language"],
        "neighborhood_prompts": ["The mother tongue of Leon Blum is"],
        "generation_prompts": ["Danielle Darrieux was born in"],
    }
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([record]), encoding="utf-8")
    (case,) = counterfact_cases(path)
    assert case == counterfact_cases([record])[0]
    assert case.request == EditRequest("The mother tongue of {} is", "Danielle Darrieux", "English")
    assert case.neighbours == (("The mother tongue of Leon Blum is", "French"),) and case.truth == "French"
    snippets = [{"relation_id": "P103", "target_id": "Q1860", "samples": [{"text": "He speaks English."}]}]
    assert counterfact_cases(path, snippets)[0].references == ("He speaks English.",)
    with pytest.raises(ArgumentError, match="record 0"):
        counterfact_cases([{"prompt": "x"}])
    with pytest.raises(ArgumentError, match="record 0.*it is 'x'"):
        counterfact_cases(["x"])
    path.write_text(path.read_text()[:40])
    with pytest.raises(ArgumentError, match="cut short"):
        counterfact_cases(path)
    with pytest.raises(ArgumentError, match="got none"):
        counterfact_cases([])


def test_cases_of_the_world_are_fit_to_test_edits():
    world = FactsWorld()
    cases = world_cases(world, 20)
    assert cases == world_cases(world, 20) != world_cases(world, 20, seed=1)
    assert len({case.request.subject for case in cases}) == 20
    for case in cases:
        facts = {fact.relation: fact for fact in world.about(case.request.subject)}
        (fact,) = [fact for fact in facts.values() if fact.prompt == case.request.prompt]
        assert case.truth == fact.target != case.request.target
        assert case.request.target in world.alternatives(fact) and len(case.others) == len(facts) - 1
        assert case.request.text not in case.paraphrases
    with pytest.raises(ArgumentError, match="1 to 400"):
        world_cases(world, 401)
