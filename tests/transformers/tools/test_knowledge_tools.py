"""The tools for surgery and knowledge: thin doors that give what the rooms give."""

import pytest
import torch

from toumei.core.errors import ArgumentError, LayerError
from toumei.models import InductionTransformer, facts_gpt
from toumei.transformers import HookedModel
from toumei.transformers.tools import KnowledgeGraphExtractor, KnowledgeProber, ModelSurgery

IDS = torch.tensor([[5, 9, 23, 41, 5, 17]])


@pytest.fixture
def hooked(language_model):
    return HookedModel(language_model("llama"))


def test_layers_are_deleted_moved_and_replaced_for_a_time(hooked):
    tool, before = ModelSurgery(hooked), hooked(IDS)
    with tool.delete_layers([1]) as smaller:
        assert smaller.layers == 2
    with tool.permute_layers([1, 0, 2]) as moved:
        assert not torch.allclose(moved(IDS), before, atol=1e-3)
    with tool.replace_layers({0: 2}) as changed:
        names = [("z", 0), ("z", 2)]
        assert changed.run_with_cache(IDS, names)[1]["z", 2].shape == (1, 6, 4, 8)
    assert torch.equal(hooked(IDS), before)
    with pytest.raises(ArgumentError), tool.delete_layers([9]):
        pass


def test_neurons_that_tell_statements_apart(watched):
    model, tokenizer, world = facts_gpt()
    prober = KnowledgeProber(HookedModel(watched(model), tokenizer))
    pairs = [(f"{name} lives in", f"{name} works as a") for name in world.subjects[:6]]
    found = [prober.knowledge_probe(pairs, (4, neuron)) for neuron in range(8)]
    one = found[0]
    larger = [(a > b) + (a == b) / 2 for a in one.true.tolist() for b in one.false.tolist()]
    assert one.auroc == pytest.approx(sum(larger) / len(larger))
    assert max(abs(each.auroc - 0.5) for each in found) > 0.4
    scores = prober.polysemantic_score(2, k=1)
    weights = torch.nn.functional.normalize(model.transformer.h[2].mlp.c_fc.weight.detach().T, dim=1)
    nearest = (weights[7] @ weights.T).topk(2).values[1]
    assert float(scores[7]) == pytest.approx(float(nearest), abs=1e-5)
    with pytest.raises(ArgumentError, match="neurons 0 to 511"):
        prober.knowledge_probe(pairs, (0, 512))
    with pytest.raises(LayerError, match="neurons"):
        prober.polysemantic_score(9)


def test_relations_in_the_circuits_of_heads(watched):
    model = HookedModel(watched(InductionTransformer(vocabulary=5, positions=8, sharpness=20)))
    tool = KnowledgeGraphExtractor(model)
    found = tool.extract_relational_subspaces(1, top_k=3)
    assert found.values.shape == (2, 3) and found.read.shape == found.written.shape == (2, 3, model.width)
    assert tool.project_token_embeddings(1, top_k=3).shape == (2, 3, 5)
    copied = tool.identify_relation_types(1, top_k=5, tokens=1)
    assert copied.rows == copied.columns
    with pytest.raises(LayerError):
        tool.extract_relational_subspaces(4)
