"""What the workbench, surgery, probes and dictionaries took for what it is not, such as NaN and encoders."""

import copy

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2ForSequenceClassification

from toumei.core.errors import ArchitectureError, ArgumentError, NonFiniteError
from toumei.instrument import instrument
from toumei.models import facts_gpt
from toumei.transformers import DictionarySettings, HookedModel
from toumei.transformers.features import SparseAutoencoder
from toumei.transformers.heads import copying_scores
from toumei.transformers.knowledge import KnowledgeProber, steering_vector
from toumei.transformers.patching import head_ablation
from toumei.transformers.surgery import perplexity_by_layer

PART = {"length": 8, "max_tokens": 16, "batch_size": 1, "verbose": False}


@pytest.fixture
def facts():
    model, tokenizer, world = facts_gpt()
    return model, tokenizer, [fact.text for fact in world.facts[:8]]


def with_nan(model, weight):
    model = copy.deepcopy(model)
    model.get_parameter(weight).data[0, -1] = torch.nan
    return model


MLP, HEADS = "transformer.h.2.mlp.c_proj.weight", "transformer.h.0.attn.c_attn.weight"
READERS = {
    "ablation": (
        MLP,
        lambda model, tokenizer, texts: head_ablation(HookedModel(model, tokenizer), texts[:1]),
    ),
    "perplexities": (
        MLP,
        lambda model, tokenizer, texts: perplexity_by_layer(model, tokenizer, texts, **PART, layers=[4]),
    ),
    "probe": (
        MLP,
        lambda model, tokenizer, texts: KnowledgeProber(HookedModel(model, tokenizer), splits=2)(
            texts, [0, 1] * 4, names=[("resid_post", 3)], random_baseline=False, verbose=False
        ),
    ),
    "heads": (HEADS, lambda model, tokenizer, texts: copying_scores(HookedModel(model, tokenizer))),
}


@pytest.mark.parametrize("name", READERS)
def test_a_model_with_nan_in_its_weights_is_named(name, facts):
    weight, read = READERS[name]
    model, tokenizer, texts = facts
    with pytest.raises(NonFiniteError, match="NaN"):
        read(with_nan(model, weight), tokenizer, texts)


def test_only_models_that_predict_the_next_token_have_a_next_token_loss(facts):
    _, tokenizer, texts = facts
    sizes = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    gpt = GPT2Config(n_embd=16, n_layer=2, n_head=2, num_labels=3, **sizes)
    bert = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **sizes
    )
    torch.manual_seed(0)
    others = {
        "no logits for each token": GPT2ForSequenceClassification(gpt).eval(),
        "sees the tokens that come next": BertForMaskedLM(bert).eval(),
    }
    for reason, model in others.items():
        with pytest.raises(ArchitectureError, match=f"{reason}|no layer 'lm_head'"):
            perplexity_by_layer(model, tokenizer, texts, **PART)
        with pytest.raises(ArchitectureError, match=reason):
            head_ablation(HookedModel(model, tokenizer), texts[:1])


def test_a_learning_rate_of_0_is_no_missing_one():
    with pytest.raises(ArgumentError, match="learning_rate is a number above 0"):
        DictionarySettings(features=8, k=2, learning_rate=0.0)
    assert DictionarySettings(features=8, k=2).rate == 2e-4 / (8 / 2**14) ** 0.5


def test_directions_of_whole_numbers_make_a_dictionary_of_floats():
    dictionary = SparseAutoencoder.of_directions(torch.eye(3, dtype=torch.int64))
    assert torch.equal(dictionary.encode(torch.eye(3) * 2.5), torch.eye(3) * 2.5)


def test_modules_are_tracked_as_their_names_are(facts):
    model, tokenizer, texts = facts
    ids = tokenizer(texts[0], return_tensors="pt").input_ids
    for only in (model.transformer.h[1], [model.transformer.h[1]]):
        with instrument(model) as probe, probe.track(only) as tracker:
            model(ids)
        assert list(tracker.build_map()) == ["transformer.h.1"]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_positions_of_texts_may_be_arrays_and_others_are_named(facts, kind):
    model, tokenizer, texts = facts
    hooked = HookedModel(model, tokenizer)
    prober = KnowledgeProber(hooked, splits=2)
    settings = {"names": [("resid_post", 0)], "random_baseline": False, "verbose": False}
    found = prober(texts, [0, 1] * 4, position=kind([1] * 8), **settings)
    assert torch.equal(found.correct, prober(texts, [0, 1] * 4, position=1, **settings).correct)
    with pytest.raises(ArgumentError, match="position is"):
        steering_vector(hooked, texts[:2], texts[2:4], ("resid_post", 1), position=kind([0.5, 2.0]))
