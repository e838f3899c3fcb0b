"""Facts of the world that a small model knows are read out of it, and counted right."""

import pytest
import torch
from matplotlib import pyplot

from toumei.core.errors import ArgumentError
from toumei.models import facts_gpt
from toumei.transformers import HookedModel
from toumei.transformers.heads import head_weights
from toumei.transformers.heads.vocabulary_weights import unembedding_weights
from toumei.transformers.knowledge import (
    GraphComparison,
    HeadRelations,
    KnowledgeGraph,
    KnowledgeGraphExtractor,
)
from toumei.transformers.model import continuation

FACTS = (("Ann", "job", "judge"), ("Bob", "job", "baker"), ("Bob", "city", "Rome"))


@pytest.fixture(scope="module")
def facts():
    return facts_gpt()


@pytest.fixture
def extractor(facts, watched):
    return KnowledgeGraphExtractor(HookedModel(watched(facts[0]), facts[1]))


def some(world, relation, count=24):
    return [fact for fact in world.facts if fact.relation == relation][:count]


def test_facts_that_a_model_knows_are_read_from_prompts(extractor, facts):
    chosen = {relation: some(facts[2], relation) for relation in ("residence", "owner")}
    subjects = {relation: [fact.subject for fact in several] for relation, several in chosen.items()}
    templates = {relation: several[0].phrasings[:2] for relation, several in chosen.items()}
    known = [(fact.subject, fact.relation, fact.target) for several in chosen.values() for fact in several]
    graph = extractor.from_prompts(subjects, templates)
    compared = graph.compared(known)
    assert compared.precision > 0.95 and compared.recall == compared.precision
    prompt = templates["owner"][0].format(subjects["owner"][0])
    alone = extractor.from_prompts({"owner": subjects["owner"][:1]}, {"owner": templates["owner"][0]})
    with torch.no_grad():
        logits = facts[0](**facts[1](prompt, return_tensors="pt")).logits[0, -1].softmax(-1)
    assert float(alone.scores[0]) == pytest.approx(float(logits.max()), rel=1e-4)
    wrong = extractor.from_prompts(
        subjects, {"residence": templates["owner"], "owner": templates["residence"]}
    )
    assert wrong.compared(known).precision < 0.1


def test_objects_are_chosen_among_those_given(extractor, facts):
    fact = some(facts[2], "residence", 1)[0]
    among = [value for value in facts[2].values("residence") if value != fact.target][:3]
    graph = extractor.from_prompts(
        {"residence": [fact.subject]}, {"residence": fact.prompt}, {"residence": among}
    )
    assert graph.facts[0][2] in among and graph.scores[0] < 0.5
    several = [f"{fact.target} {among[0]}", f"{fact.target} ."]  # which begin with the same token
    found = extractor.from_prompts(
        {"residence": [fact.subject]}, {"residence": fact.prompt}, {"residence": several}
    )
    assert found.facts[0][2] == several[1] and found.scores[0] > 0.9


def test_heads_are_chosen_on_other_subjects_than_those_in_the_graph(extractor, facts):
    known = [(fact.subject, fact.relation, fact.target) for fact in some(facts[2], "product", 80)]
    found = extractor.from_heads(known)
    best = float(found.accuracies.max())
    assert best > 3 * float(found.chance[0]) and found.comparison.precision > 2 * float(found.chance[0])
    assert len(found.graph) == 40 and set(found.known) <= set(known)
    layer, head = map(int, found.head_of("product").split("."))
    assert layer >= 3  # facts are recalled by the MLP of layer 2
    subject, _, target = found.graph.facts[0]
    objects = list(dict.fromkeys(fact[2] for fact in known))
    assert target == objects[int(written(extractor.model, known, layer, head)[subject].argmax())]
    embedding = extractor.from_heads(known, read="embedding")
    assert float(embedding.accuracies.max()) < best


def written(hooked, known, layer, head):
    """What a head adds to the logits of the objects when it attends to a subject, less the mean."""
    objects = list(dict.fromkeys(fact[2] for fact in known))
    tokens = [continuation(hooked.tokenizer, known[0][0], one)[0] for one in objects]
    W_O = head_weights(hooked, layer).W_O[head]
    rows = []
    for subject, *_ in known:
        value = hooked.run_with_cache(subject, [("v", layer)])[1]["v", layer][0, -1, head].detach()
        rows.append(value @ W_O @ unembedding_weights(hooked, fold_norm=True)[:, tokens])
    table = torch.stack(rows)
    return {fact[0]: row for fact, row in zip(known, table - table.mean(0), strict=True)}


def test_precision_and_recall_are_those_of_a_hand_count():
    graph = KnowledgeGraph(facts=FACTS, scores=torch.tensor([0.9, 0.2, 0.6]), source="prompts")
    known = [
        ("Ann", "job", "judge"),
        ("Bob", "job", "hunter"),
        ("Bob", "city", "Rome"),
        ("Eve", "city", "Oslo"),
    ]
    found = graph.compared(known)
    assert found.precision == pytest.approx(2 / 3) and found.recall == pytest.approx(2 / 4)
    assert found.relations == ("job", "city") and found.right.tolist() == [1, 1]
    assert found.average_precision == pytest.approx((1 / 1 + 2 / 2) / 4)
    assert graph.above(0.5).compared(known).precision == 1
    assert len(graph.about("Bob")) == 2 and graph.about(["judge"]).facts == FACTS[:1]


def test_the_graph_is_one_of_networkx():
    graph = KnowledgeGraph(facts=FACTS, scores=torch.tensor([0.9, 0.2, 0.6]), source="prompts").networkx()
    assert set(graph.successors("Bob")) == {"baker", "Rome"} and graph.number_of_edges() == 3
    assert graph.edges["Bob", "Rome", "city"]["score"] == pytest.approx(0.6)


def test_results_are_kept_and_drawn(extractor, facts, tmp_path):
    graph = KnowledgeGraph(facts=FACTS, scores=torch.tensor([0.9, 0.2, 0.6]), source="prompts")
    known = [(fact.subject, fact.relation, fact.target) for fact in some(facts[2], "seat", 40)]
    heads = extractor.from_heads(known)
    for result, kind in (
        (graph, KnowledgeGraph),
        (graph.compared(FACTS), GraphComparison),
        (heads, HeadRelations),
    ):
        result.save(tmp_path / "result.safetensors")
        assert str(kind.load(tmp_path / "result.safetensors")) == str(result)
        assert result.plot().figure is not None
    words = {text.get_text().strip() for text in graph.plot().texts}
    assert words == {"Ann", "Bob", "judge", "baker", "Rome"}
    pyplot.close("all")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: e.from_prompts({}, {}), "got none"),
        (lambda e: e.from_prompts({"job": ["Ann"]}, {}), "no template"),
        (lambda e: e.from_prompts({"job": ["Ann"]}, {"job": "works as"}), "one {}"),
        (lambda e: e.from_prompts({"job": []}, {"job": "{} works as"}), "no subjects"),
        (lambda e: e.from_prompts({"job": ["Ann"]}, {"job": "{} works"}, {}), "no objects"),
        (lambda e: e.from_heads([]), "got none"),
        (lambda e: e.from_heads([("a", "b")]), "triples"),
        (lambda e: e.from_heads([("Ann", "job", "judge")]), "two or more"),
        (lambda e: e.from_heads(FACTS, choose=1.0), "choose"),
        (lambda e: e.from_heads(FACTS, read="keys"), "read"),
        (lambda e: KnowledgeGraphExtractor(HookedModel(e.model.model)), "tokenizer"),
    ],
)
def test_bad_input(extractor, make, message):
    with pytest.raises(ArgumentError, match=message):
        make(extractor)


def test_what_the_graph_does_not_have():
    graph = KnowledgeGraph(facts=FACTS, scores=torch.ones(3), source="prompts")
    with pytest.raises(ArgumentError, match="Eve"):
        graph.about("Eve")
    with pytest.raises(ArgumentError, match="got none"):
        graph.compared([])
