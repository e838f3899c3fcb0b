"""Models whose weights lie on several devices, or on a disk until they are needed, and in half precision."""

from copy import deepcopy
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from toumei.core.errors import ArchitectureError, EditError
from toumei.core.fingerprint import fingerprint_of
from toumei.instrument import instrument
from toumei.transformers import (
    CausalTracer,
    HookedModel,
    activation_patching,
    collect_statistics,
    direct_logit_attribution,
    head_ablation,
    head_weights,
    logit_difference,
    logit_lens,
)
from toumei.transformers.heads import embedding_weights, unembedding_weights
from toumei.transformers.tools import SparsityAnalyzer

WORDS = ["?", "Ann", "lives", "in", "Rome", "Bob", "works", "Oslo"]
TEXTS = ["Ann lives in Rome", "Bob works in Oslo", "Ann works in Oslo"]


def tokenizer():
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?")


def gpt2():
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 8,
        "n_embd": 16,
        "n_layer": 3,
        "n_head": 2,
        "n_positions": 16,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return GPT2LMHeadModel(GPT2Config(**sizes)).eval(), "transformer.h"


def llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval(), "model.layers"


def offloaded_to_memory(accelerate, model, blocks, folder):
    return accelerate.cpu_offload(model, execution_device="cpu")


def offloaded_to_disk(accelerate, model, blocks, folder):
    return accelerate.disk_offload(model, folder, execution_device="cpu")


def on_two_devices(accelerate, model, blocks, folder):
    """The CPU, and the disk from which the last block comes to it."""
    root = blocks.split(".")[0]
    names = [f"{root}.{name}" for name, _ in getattr(model, root).named_children()]
    places = {name: "cpu" for name in names if name != blocks} | {"lm_head": "cpu"}
    places |= {f"{blocks}.{number}": "cpu" for number in (0, 1)} | {f"{blocks}.2": "disk"}
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


PLACES = [offloaded_to_memory, offloaded_to_disk, on_two_devices]


def traced(model):
    """What tracing and statistics find."""
    words = tokenizer()
    trace = CausalTracer(model, words).trace("Ann lives in", "Ann", samples=2, answer="Rome")
    statistics = collect_statistics(model, words, TEXTS, [1, 2], verbose=False)
    yield trace.scores
    yield from (statistics[layer].total for layer in (1, 2))


def read(model):
    """What caches and ablations find."""
    hooked = HookedModel(model, tokenizer())
    logits, cache = hooked.run_with_cache(TEXTS)
    yield logits
    yield from (cache[name, layer] for name in ("resid_post", "pattern", "z") for layer in range(3))
    yield head_ablation(hooked, TEXTS).by_text
    yield head_ablation(hooked, TEXTS, "mean").by_text
    yield from (cache.decompose_resid()[0], cache["result", 1])


def interpreted(model):
    """What methods find that read weights or pass vectors through a part of the model."""
    hooked, text = HookedModel(model, tokenizer()), TEXTS[0]
    lens = logit_lens(hooked.model, hooked.tokenizer, text)
    yield from (lens.top_probabilities, lens.divergences)
    direct = direct_logit_attribution(hooked.model, hooked.tokenizer, text, "Oslo", heads=True, neurons=True)
    yield from (direct.contributions, direct.heads, direct.neurons)
    weights = head_weights(hooked, 1)
    yield from (weights.W_Q, weights.W_O, weights.b_V)
    yield from (embedding_weights(hooked), unembedding_weights(hooked, fold_norm=True))
    metric = logit_difference("Oslo", "Rome")
    yield activation_patching(hooked, text, "Ann lives in Oslo", metric, "z").raw


def everything(model):
    return [*traced(model), *read(model), *interpreted(model)]


@cache
def expected(make):
    return everything(make()[0])


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("make", [gpt2, llama])
def test_weights_that_are_elsewhere_give_the_same(make, place, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, blocks = make()
    moved = place(accelerate, deepcopy(model), blocks, str(tmp_path))
    elsewhere = [name for name, weight in moved.named_parameters() if weight.is_meta]
    assert elsewhere and fingerprint_of(moved) == fingerprint_of(model)
    for want, got in zip(expected(make), everything(moved), strict=True):
        assert got.device.type == "cpu" and torch.equal(got.nan_to_num(-7), want.nan_to_num(-7))
    assert elsewhere == [name for name, weight in moved.named_parameters() if weight.is_meta]
    assert all(weight.requires_grad for weight in moved.parameters())


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_model_that_is_dispatched_to_devices_gives_the_same(make):
    accelerate = pytest.importorskip("accelerate")
    model, blocks = make()
    root = blocks.split(".")[0]
    names = [f"{root}.{name}" for name, _ in getattr(model, root).named_children()]
    places = {name: "cpu" for name in names if name != blocks} | {"lm_head": "cpu"}
    places |= {f"{blocks}.{number}": "cpu" for number in range(3)}
    moved = accelerate.dispatch_model(deepcopy(model), places, main_device="cpu", force_hooks=True)
    assert any(hasattr(module, "_hf_hook") for module in moved.modules())
    for want, got in zip(expected(make), everything(moved), strict=True):
        assert torch.equal(got.nan_to_num(-7), want.nan_to_num(-7))


def test_offloaded_weights_are_not_pruned():
    accelerate = pytest.importorskip("accelerate")
    hooked = HookedModel(accelerate.cpu_offload(gpt2()[0], execution_device="cpu"), tokenizer())
    with pytest.raises(EditError, match="offloaded"), SparsityAnalyzer(hooked).prune_network(0.5):
        pass


def test_a_model_without_numbers_is_refused():
    with pytest.raises(ArchitectureError, match="without numbers"):
        HookedModel(gpt2()[0].to("meta"))


def test_a_weight_that_is_loaded_again_is_one_tensor_of_the_graph():
    """A module that runs twice has its weight loaded twice."""
    accelerate = pytest.importorskip("accelerate")
    model = nn.Sequential(nn.ReLU(), shared := nn.Linear(4, 4), nn.ReLU(), shared)
    given = torch.ones(1, 4)
    expected = model(given)
    accelerate.cpu_offload(model, execution_device="cpu")
    with instrument(model) as probe, probe.track([]) as tracker:
        model(given)
    graph = tracker.build_graph()
    assert [one.name for one in graph] == ["0/relu#0", "1/linear#0", "2/relu#0", "1/linear#1"]
    assert all(one.inputs[1].name == "1.weight" for one in graph if one.function == "linear")
    assert torch.equal(graph.replay(), expected)


def test_offloaded_models_with_other_weights_are_other_models(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, blocks = gpt2()
    other = deepcopy(model)
    with torch.no_grad():
        other.transformer.h[2].mlp.c_fc.weight[3, 4] += 1
    prints = {fingerprint_of(offloaded_to_disk(accelerate, other, blocks, str(tmp_path / "other")))}
    prints |= {fingerprint_of(offloaded_to_disk(accelerate, model, blocks, str(tmp_path / "model")))}
    assert len(prints) == 2


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_about_the_same(make, dtype):
    model, _ = make()
    half = deepcopy(model).to(dtype)
    wanted, found = ([*traced(each), *read(each)] for each in (model, half))
    for want, got in zip(wanted, found, strict=True):
        assert torch.allclose(got.float(), want.float(), rtol=0.1, atol=0.05, equal_nan=True)
    assert found[1].dtype == torch.float64  # sums of statistics
