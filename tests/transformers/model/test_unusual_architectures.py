"""Hook points of models with state-space layers, shared key heads, pooling heads, texts as second axis."""

from functools import cache

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    WhisperConfig,
    WhisperModel,
)
from transformers.models.auto.modeling_auto import AutoModel

from toumei.core.errors import ArchitectureError
from toumei.transformers import HookedModel, anatomy

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
STATES = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
MIXED = {**GROUPED, **STATES, "layer_types": ["mamba", "attention"]}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 24}
XGLM = {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "vocab_size": 64}
KINDS = {
    "falcon": {**SIZES, "multi_query": True},
    "xglm": XGLM,
    "lfm2": {**GROUPED, "full_attn_idxs": [1]},
    "falcon_h1": {**GROUPED, **STATES, "mamba_d_ssm": 64},
    "granitemoehybrid": {**MIXED, **EXPERTS, "residual_multiplier": 0.3},
    "bitnet": GROUPED,
    "helium": GROUPED,
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0]},
    "glm4": {**GROUPED, "partial_rotary_factor": 0.5},
    "persimmon": SIZES,
    "esm": {**SIZES, "position_embedding_type": "rotary"},
    "roformer": {**SIZES, "embedding_size": 32},
    "siglip_vision_model": {**SIZES, "image_size": 12, "patch_size": 4},
    "dinov2_with_registers": {**SIZES, "image_size": 12, "patch_size": 4, "mlp_ratio": 2},
}
OTHERS = {
    "lfm2": {("conv", 0)},
    "falcon_h1": {("mamba", 0), ("mamba", 1)},
    "granitemoehybrid": {("mamba", 0)},
}
ENCODERS = ("esm", "roformer", "siglip_vision_model", "dinov2_with_registers")
IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))


@cache
def build(kind):
    config = AutoConfig.for_model(kind, **KINDS[kind])
    torch.manual_seed(0)
    made = AutoModel if kind in ENCODERS else AutoModelForCausalLM
    model = made.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.2 * parameter.shape[-1] ** -0.5)
    return model


def inputs_of(model):
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))}
    return {"input_ids": IDS}


@pytest.fixture
def cached(watched):
    def run(kind):
        hooked = HookedModel(watched(build(kind)))
        with torch.no_grad():
            return hooked, hooked.run_with_cache(inputs_of(hooked.model))[1]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_patterns_are_those_of_the_model_and_times_the_values_the_outputs_of_heads(cached, kind):
    hooked, cache = cached(kind)
    layers = sorted(hooked.points.attentions)
    with torch.no_grad():
        expected = hooked.model(**inputs_of(hooked.model), output_attentions=True).attentions
    for module in hooked.model.modules():  # those of transformers, which it leaves on the model
        module._forward_hooks.clear()
    for layer, weights in zip(layers, [one for one in expected if one is not None], strict=True):
        torch.testing.assert_close(cache["pattern", layer], weights, rtol=1e-5, atol=1e-6)
        values = cache["v", layer].repeat_interleave(weights.shape[1] // cache["v", layer].shape[2], 2)
        outputs = torch.einsum("bhqk,bkhd->bqhd", weights, values)
        torch.testing.assert_close(cache["z", layer], outputs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_sum_to_the_streams_and_heads_to_their_attention(cached, kind):
    hooked, cache = cached(kind)
    if kind == "roformer":
        with pytest.raises(ArchitectureError, match="through a norm"):
            cache.decompose_resid()
    else:
        assert set(hooked.points.segments[0].parts) >= OTHERS.get(kind, set())
        for layer in (0, 1, None):
            parts, _ = cache.decompose_resid(layer)
            name = ("resid_post", 1) if layer is None else ("resid_pre", layer)
            torch.testing.assert_close(parts.sum(0), cache[name], rtol=1e-5, atol=1e-5)
    if kind == "bitnet":
        with pytest.raises(ArchitectureError, match="no linear map takes the outputs of heads"):
            cache.stack_head_results()  # which are normalized before
        return
    results, labels = cache.stack_head_results()
    for layer in hooked.points.attentions:
        heads = [results[place] for place, label in enumerate(labels) if label.startswith(f"L{layer}")]
        torch.testing.assert_close(sum(heads), cache["attn_out", layer], rtol=1e-5, atol=1e-5)


def test_key_heads_that_all_queries_share_are_one(cached):
    hooked, cache = cached("falcon")
    assert hooked.points.attentions[0].num_key_value_heads == 1
    assert cache["k", 0].shape == cache["v", 0].shape == (2, 9, 1, 8)


def test_what_layers_of_states_add_is_read_and_written_by_their_names(cached):
    hooked, cache = cached("lfm2")
    block = hooked.model.model.layers[0]
    with torch.no_grad():
        added = block.conv(block.operator_norm(cache["resid_pre", 0]))
        torch.testing.assert_close(cache["blocks.0.hook_conv_out"], added, rtol=1e-5, atol=1e-5)
        with hooked.edit({"blocks.0.hook_conv_out": torch.zeros_like}):
            edited = hooked.run_with_cache(IDS, ["resid_pre", "resid_mid"])[1]
    assert torch.equal(edited["resid_mid", 0], edited["resid_pre", 0])


def test_a_pooling_head_is_no_layer(cached):
    hooked, cache = cached("siglip_vision_model")
    assert hooked.layers == 2
    final = hooked.model.post_layernorm(cache["resid_post", 1])
    with torch.no_grad():
        output = hooked.model(**inputs_of(hooked.model)).last_hidden_state
    torch.testing.assert_close(final, output)


def test_texts_may_be_the_second_axis_of_the_stream():
    config = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 64}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("xlnet", **config)).eval()
    with torch.no_grad():
        cache = HookedModel(model).run_with_cache(IDS)[1]
        states = model(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(cache["resid_pre", 1], states[1])
    assert "blocks.0.attn.hook_z" in cache
    with pytest.raises(ArchitectureError, match=r"should return \(1, 2, 32\)"):
        anatomy(model)


def test_an_encoder_of_speech_is_read_and_its_whole_model_refused(watched):
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 64, "num_mel_bins": 6}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_source_positions": 9}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    torch.manual_seed(0)
    model = watched(WhisperModel(WhisperConfig(**sizes, **heads, **ends)).eval())
    hooked = HookedModel(model.get_encoder())
    frames = {"input_features": torch.randn(3, 6, 18)}
    with torch.no_grad():
        output, cache = hooked.run_with_cache(frames)
        assert torch.equal(output, model.get_encoder()(**frames).last_hidden_state)
        torch.testing.assert_close(model.get_encoder().layer_norm(cache["resid_post", -1]), output)
    torch.testing.assert_close(cache.decompose_resid()[0].sum(0), cache["resid_post", 1])
    assert cache["pattern", 0].shape == (3, 4, 9, 9) and cache.texts is None
    with pytest.raises(ArchitectureError, match="get_encoder"):
        HookedModel(model)


def test_one_of_two_towers_is_asked_for():
    picture = {**SIZES, "image_size": 12, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=SIZES, vision_config=picture))
    with pytest.raises(ArchitectureError, match=r"two towers.*model\.vision_model"):
        HookedModel(model)
    assert HookedModel(model.vision_model).layers == HookedModel(model.text_model).layers == 2
