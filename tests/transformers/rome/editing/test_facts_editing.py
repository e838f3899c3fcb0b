"""Edits of the network that knows facts: they are written, in all phrasings, and little else changes."""

import random
from itertools import islice

import pytest

from toumei.models import facts_gpt
from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.evaluation import evaluate_edits, world_cases
from toumei.transformers.rome.statistics import collect_statistics
from toumei.transformers.rome.tracing import CausalTracer

HELD = {"hold": 20, "steps": 40, "prefixes": ((3, 5),), "hold_weight": 5.0}


@pytest.fixture(scope="module")
def network():
    return facts_gpt()


@pytest.fixture(scope="module")
def editor(network):
    model, tokenizer, world = network
    texts = islice(world.texts(seed=1), 300)
    return RankOneEditor(model, tokenizer, collect_statistics(model, tokenizer, texts, [2], verbose=False))


@pytest.fixture(scope="module")
def cases(network):
    return world_cases(network[2], 4, seed=2)


@pytest.fixture(scope="module")
def plain(editor, cases):
    """What edits with the settings of the editor do, one after the other."""
    return evaluate_edits(editor, cases, verbose=False)


def test_single_edits_reach_their_facts_and_spare_their_neighbours(plain):
    assert plain.mean("efficacy") == 1 and plain.mean("paraphrase") >= 0.95
    assert plain.mean("neighbourhood") >= 0.95 and plain.mean("namesakes") >= 0.9


def test_the_subjects_other_facts_stay_where_its_continuations_are_held(editor, cases, plain):
    held = evaluate_edits(editor, cases[:2], verbose=False, **HELD)
    for metric in ("efficacy", "paraphrase", "neighbourhood"):
        assert held.mean(metric) >= 0.95, metric
    assert held.mean("others") >= 0.85 and held.mean("others") > plain.mean("others") + 0.25


def test_many_facts_are_written_at_once(network, editor):
    cases = world_cases(network[2], 12, seed=4)
    found = evaluate_edits(editor, cases, together=True, method="memit", verbose=False)
    assert found.mean("efficacy") >= 0.95
    assert found.mean("paraphrase") >= 0.9 and found.mean("neighbourhood") >= 0.9


def test_traces_point_at_the_mlp_in_the_middle(network):
    model, tokenizer, world = network
    facts = random.Random(5).sample(world.facts, 4)
    average = CausalTracer(model, tokenizer).trace_many(facts, kind="mlp", window=1, samples=3)
    at_the_name = average.mean[3]  # at its last token
    assert int(at_the_name.argmax()) == 2 and at_the_name[2] > 2 * at_the_name[[0, 1, 3, 4, 5]].max()
