"""Models whose weights lie on several devices, or on a disk until they are needed, and in half precision."""

from copy import deepcopy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from toumei.core.errors import ArchitectureError
from toumei.core.fingerprint import fingerprint_of
from toumei.transformers import CausalTracer, HookedModel, collect_statistics, head_ablation

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


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("make", [gpt2, llama])
def test_weights_that_are_elsewhere_give_the_same(make, place, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, blocks = make()
    moved = place(accelerate, deepcopy(model), blocks, str(tmp_path))
    elsewhere = [name for name, weight in moved.named_parameters() if weight.is_meta]
    assert elsewhere and fingerprint_of(moved) == fingerprint_of(model)
    for want, got in zip([*traced(model), *read(model)], [*traced(moved), *read(moved)], strict=True):
        assert got.device.type == "cpu" and torch.equal(got.nan_to_num(-7), want.nan_to_num(-7))
    assert elsewhere == [name for name, weight in moved.named_parameters() if weight.is_meta]


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
    for want, got in zip([*traced(model), *read(model)], [*traced(moved), *read(moved)], strict=True):
        assert torch.equal(got.nan_to_num(-7), want.nan_to_num(-7))


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
