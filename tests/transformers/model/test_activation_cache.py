"""A cache slices, stacks, saves, and takes the residual stream apart so that the parts sum to it."""

from copy import deepcopy

import pytest
import torch
from architectures import ARCHITECTURES, build
from encoders import build_encoder, inputs_of
from torch import nn

from toumei.core.errors import ArchitectureError, ArgumentError, LayerError, ToumeiError
from toumei.transformers.model.activation_cache import ActivationCache
from toumei.transformers.model.hooked_model import HookedModel
from toumei.transformers.model.point_names import full_name

IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
DECODERS = [kind for kind in ARCHITECTURES if "mamba" not in kind]


@pytest.fixture
def cache_of(watched):
    def make(kind="gpt2", names=None, ids=IDS):
        hooked = HookedModel(watched(build(kind)))
        with torch.no_grad():
            return hooked.run_with_cache(ids, names)[1]

    return make


@pytest.mark.parametrize("kind", [*DECODERS, "t5", "vit", "clip_text_model", "clip_vision_model"])
def test_the_parts_sum_to_every_stream(watched, kind):
    model = build(kind) if kind in ARCHITECTURES else build_encoder(kind)
    with torch.no_grad():
        cache = HookedModel(watched(model)).run_with_cache(inputs_of(model))[1]
    for layer in (0, 1, 2, 3, None):
        parts, labels = cache.decompose_resid(layer)
        streams, names = cache.accumulated_resid(layer)
        assert parts.shape == (len(labels), *streams.shape[1:])
        torch.testing.assert_close(parts.sum(0), streams[-1], rtol=1e-5, atol=1e-5)
        assert names[-1] == ("final_post" if layer in (None, 3) else f"{layer}_pre")


def test_labels_say_what_the_parts_are(cache_of):
    cache = cache_of("gpt2")
    assert cache.decompose_resid(1)[1] == ("embed", "pos_embed", "0_attn_out", "0_mlp_out")
    assert cache.decompose_resid(2, mode="attn")[1] == ("embed", "pos_embed", "0_attn_out", "1_attn_out")
    labels = ("embed", "0_mamba_out", "0_mlp_out", "1_attn_out", "1_mlp_out")
    assert cache_of("jamba").decompose_resid(2)[1] == labels
    assert cache_of("jamba").decompose_resid(2, mode="attn")[1] == ("embed", "1_attn_out")
    assert cache.decompose_resid(2, mode="mlp")[1] == ("embed", "pos_embed", "0_mlp_out", "1_mlp_out")
    assert cache_of("llama").decompose_resid(1)[1] == ("embed", "0_attn_out", "0_mlp_out")
    assert cache.accumulated_resid(1, incl_mid=True)[1] == ("0_pre", "0_mid", "1_pre")
    assert cache.accumulated_resid()[1] == ("0_pre", "1_pre", "2_pre", "final_post")


def test_streams_with_the_middle_are_those_of_the_cache(cache_of):
    cache = cache_of("llama")
    streams, labels = cache.accumulated_resid(incl_mid=True)
    assert len(labels) == 7
    assert torch.equal(streams[labels.index("1_mid")], cache["resid_mid", 1])
    assert torch.equal(streams[-1], cache["resid_post", 2])


@pytest.mark.parametrize("kind", DECODERS)
def test_results_and_biases_sum_to_the_attention_outputs(cache_of, kind):
    cache = cache_of(kind, ["result", "attn_out"])
    results, labels = cache.stack_head_results()
    assert len(results) == len(labels)
    for layer in range(3):
        parts = [results[place] for place, label in enumerate(labels) if label.startswith(f"L{layer}")]
        if kind == "jamba" and layer != 1:  # a state-space layer
            assert not parts
            continue
        torch.testing.assert_close(sum(parts), cache["attn_out", layer], rtol=1e-5, atol=5e-6)
    first = labels[0][1]
    heads = cache.stack_head_results(int(first) + 1, biases=False)[1]
    assert heads == tuple(f"L{first}H{head}" for head in range(4))
    has_bias = kind in (
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "opt",
        "bloom",
        "phi",
        "starcoder2",
        "gpt_oss",
    )
    assert ("L0bias" in labels) == has_bias


def test_the_bias_of_a_norm_between_heads_and_stream_is_a_part_of_its_own():
    model = deepcopy(build("exaone4"))
    for layer in model.model.layers:
        layer.post_attention_layernorm = nn.LayerNorm(32)
        nn.init.normal_(layer.post_attention_layernorm.weight)
        nn.init.normal_(layer.post_attention_layernorm.bias)
    with torch.no_grad():
        cache = HookedModel(model).run_with_cache(IDS)[1]
    results, labels = cache.stack_head_results(1)
    assert labels == ("L0H0", "L0H1", "L0H2", "L0H3", "L0norm_bias")
    torch.testing.assert_close(results.sum(0), cache["attn_out", 0], rtol=1e-5, atol=5e-6)
    assert torch.equal(cache.stack_head_results(1, biases=False)[0], results[:-1])


def test_something_else_between_heads_and_stream_is_refused():
    model = deepcopy(build("exaone4"))
    for layer in model.model.layers:
        layer.post_attention_layernorm = nn.Tanh()
    with torch.no_grad():
        cache = HookedModel(model).run_with_cache(IDS)[1]
    with pytest.raises(ArchitectureError, match="more than a linear map, a norm and scales"):
        cache.stack_head_results()


def test_streams_that_are_no_sums_are_refused(watched, cache_of):
    with torch.no_grad():
        cache = HookedModel(watched(build_encoder("bert"))).run_with_cache(IDS)[1]
    with pytest.raises(ArchitectureError, match="norm"):
        cache.decompose_resid()
    with pytest.raises(LayerError, match="together"):
        cache_of("phi").accumulated_resid(incl_mid=True)


@pytest.mark.parametrize("layer", [-1, 4, 1.5, "1"])
def test_a_layer_that_is_not_there_is_refused(cache_of, layer):
    cache = cache_of()
    for method in (cache.decompose_resid, cache.accumulated_resid, cache.stack_head_results):
        with pytest.raises(ToumeiError):
            method(layer)
    with pytest.raises(ToumeiError):
        cache.decompose_resid(mode="heads")


def test_layers_are_counted_from_the_last_one(cache_of, tmp_path):
    cache = cache_of("llama")
    assert cache["pattern", -1] is cache["pattern", 2] and ("z", -3) in cache
    assert ("z", -4) not in cache
    with pytest.raises(LayerError, match="blocks 0 to 2"):
        cache["z", -4]
    named = cache_of("llama", [("resid_post", -1)])
    assert list(named) == ["blocks.2.hook_resid_post"]
    named.save(tmp_path / "cache.safetensors")
    loaded = ActivationCache.load(tmp_path / "cache.safetensors")
    assert torch.equal(loaded["resid_post", -1], named["resid_post", 2])


def test_activations_of_all_layers_are_stacked(cache_of):
    cache = cache_of("llama", ["pattern"])
    patterns = cache.stack_activation("pattern")
    assert patterns.shape == (3, 2, 4, 9, 9)
    assert torch.equal(patterns[1], cache["pattern", 1])
    with pytest.raises(LayerError, match="not in the cache"):
        cache.stack_activation("z")


def test_rows_and_the_axis_of_the_batch(cache_of):
    cache = cache_of()
    second = cache.rows(slice(1, 2))
    single = second.remove_batch_dim()
    for name in cache:
        full = cache[name].expand(2, *cache[name].shape[1:])
        assert torch.equal(second[name].expand(1, *full.shape[1:]), full[1:])
        assert torch.equal(single[name], full[1])
    assert single.remove_batch_dim() is single
    with pytest.raises(ArgumentError, match="2 texts"):
        cache.remove_batch_dim()
    with pytest.raises(ArgumentError, match="no axis"):
        single.rows(slice(0, 1))


def test_one_text_without_the_axis_of_the_batch(cache_of, watched):
    hooked = HookedModel(watched(build("gpt2")))
    logits, cache = hooked.run_with_cache(IDS[:1], ["pattern", "pos_embed"], remove_batch_dim=True)
    assert logits.shape == (1, 9, 64)
    assert cache["pattern", 1].shape == (4, 9, 9)
    assert cache["pos_embed"].shape == (9, 32)


def test_what_has_no_axis_of_the_batch_stays(watched):
    hooked = HookedModel(watched(build("llama")))
    _, cache = hooked.run_with_cache(IDS, ["model.rotary_emb", "z"])
    rotary = cache["model.rotary_emb"]
    assert len(rotary) == 1
    assert torch.equal(cache.rows(slice(0, 1))["model.rotary_emb"], rotary)


def test_parts_of_a_cache_without_batch_sum_too(cache_of):
    cache = cache_of("gpt2", ids=IDS[:1]).remove_batch_dim()
    parts, _ = cache.decompose_resid()
    torch.testing.assert_close(parts.sum(0), cache["resid_post", 2], rtol=1e-5, atol=1e-5)
    results, _ = cache.stack_head_results(1)
    torch.testing.assert_close(results.sum(0), cache["attn_out", 0], rtol=1e-5, atol=5e-6)


def test_saved_activations_are_those_that_were_saved(cache_of, tmp_path):
    cache = cache_of("llama")
    cache.save(tmp_path / "cache.safetensors")
    loaded = ActivationCache.load(tmp_path / "cache.safetensors")
    assert set(loaded) == set(cache)
    for name in cache:
        assert torch.equal(loaded[name], cache[name])
    assert torch.equal(loaded.rows(slice(1, 2))["z", 0], cache["z", 0][1:])
    with pytest.raises(ArgumentError, match="knows no model"):
        loaded.decompose_resid()
    cache.rows(slice(0, 1)).remove_batch_dim().save(tmp_path / "one.safetensors")
    assert not ActivationCache.load(tmp_path / "one.safetensors").batched


def test_damaged_and_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "file.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(ArgumentError, match="cannot be read"):
        ActivationCache.load(path)
    with pytest.raises(ArgumentError, match="cannot be read"):
        ActivationCache.load(tmp_path / "absent")
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ArgumentError, match="no activations"):
        ActivationCache.load(path)


def test_the_precision_stays_that_of_the_pass_on_another_device(cache_of):
    cache = cache_of("gpt2", ["z", "pattern"]).to("cpu")
    assert cache["z", 0].dtype == torch.float32
    assert cache["pattern", 0].shape == (2, 4, 9, 9)


def test_an_empty_cache_is_empty(cache_of, tmp_path):
    cache = cache_of("gpt2", [])
    assert not len(cache)
    assert repr(cache).startswith("ActivationCache(0 activations")
    with pytest.raises(LayerError):
        cache["z", 0]
    cache.rows(slice(0, 1)).remove_batch_dim()
    cache.save(tmp_path / "empty.safetensors")
    assert not len(ActivationCache.load(tmp_path / "empty.safetensors"))


def test_names_that_are_not_in_the_cache_say_what_is(cache_of):
    cache = cache_of("llama", ["z"])
    with pytest.raises(LayerError, match="name it in run_with_cache"):
        cache["pattern", 0]
    with pytest.raises(LayerError, match="did you mean"):
        cache["blocks.0.attn.hook_zz"]
    assert ("z", 1) in cache
    assert ("pattern", 1) not in cache
    assert 3 not in cache
    assert len(repr(cache)) < 200


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("pattern", 5), "blocks.5.attn.hook_pattern"),
        (("attn", 5), "blocks.5.attn.hook_pattern"),
        (("hook_scores", 0), "blocks.0.attn.hook_attn_scores"),
        (("k", 0, "attn"), "blocks.0.attn.hook_k"),
        (("mlp_post", 2), "blocks.2.mlp.hook_post"),
        (("pre", 2, "mlp"), "blocks.2.mlp.hook_pre"),
        (("resid_mid", 1), "blocks.1.hook_resid_mid"),
        (("normalized", 1, "ln2"), "blocks.1.ln2.hook_normalized"),
        ("pos_embed", "hook_pos_embed"),
    ],
)
def test_short_names_are_those_of_transformer_lens(key, name):
    assert full_name(key) == name
