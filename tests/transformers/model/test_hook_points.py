"""Every hook point is the model's own tensor, or what a plain formula says, on all architectures."""

import math
import re
from contextlib import suppress
from copy import deepcopy

import pytest
import torch
from architectures import ARCHITECTURES, TOKENS, build
from encoders import ENCODERS, build_encoder, inputs_of
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.activations import ACT2FN

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.core.outputs import main_tensor
from toumei.transformers.model.hook_points import Columns, HookPoint, column_map
from toumei.transformers.model.hooked_model import HookedModel

DECODERS = [kind for kind in ARCHITECTURES if "mamba" not in kind]
ALL = [*DECODERS, *ENCODERS]
EXPERTS = {"mixtral", "qwen3_moe", "gpt_oss", "qwen2_moe"}
# Scores get something else than a scale and a mask.
OTHER_SCORES = {"bloom", "mpt", "gemma2", "gpt_oss", "t5"}
NORMED_OUTPUTS = {"gemma2", "gemma3_text", "olmo2", "exaone4"}
SCALED_OUTPUTS = {"granite"}
PARALLEL = {"gptj", "codegen", "gpt_neox", "phi", "falcon", "cohere", "cohere2"}
POST_NORM = {"bert", "roberta"}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def model_of(kind):
    return build_encoder(kind) if kind in ENCODERS else build(kind)


@pytest.fixture(scope="module")
def run():
    """From a kind to its hooked model and the cache of a pass, made once."""
    made = {}

    def run(kind):
        if kind not in made:
            hooked = HookedModel(model_of(kind))
            with torch.no_grad():
                made[kind] = hooked, *hooked.run_with_cache(inputs_of(hooked.model))
        return made[kind]

    return run


def layers_of(hooked):
    return sorted(hooked.points.attentions)


def seen(model, name, inputs, what="output"):
    """What a module is given or returns."""
    found = []

    def hook(module, args, output):
        found.append((main_tensor(output) if what == "output" else args[0]).clone())

    handle = model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return found[-1]


@pytest.mark.parametrize("kind", ALL)
def test_the_logits_are_those_of_the_plain_model_bit_for_bit(run, watched, kind):
    hooked, logits, _ = run(kind)
    watched(hooked.model)
    with torch.no_grad():
        plain = main_tensor(hooked.model(**inputs_of(hooked.model)))
        assert torch.equal(hooked(inputs_of(hooked.model)), plain)
    assert torch.equal(logits, plain)


@pytest.mark.parametrize("kind", ALL)
def test_patterns_are_the_attentions_of_the_eager_model(run, kind):
    hooked, _, cache = run(kind)
    config = deepcopy(hooked.model.config)
    eager = type(hooked.model)._from_config(config, attn_implementation="eager").eval()
    eager.load_state_dict(hooked.model.state_dict())
    with torch.no_grad():
        attentions = eager(**inputs_of(eager), output_attentions=True).attentions
    if kind == "jamba":
        attentions = [one for one in attentions if one is not None]
    for layer, expected in zip(layers_of(hooked), attentions, strict=True):
        torch.testing.assert_close(cache["pattern", layer], expected, **CLOSE)


@pytest.mark.parametrize("kind", ALL)
def test_patterns_are_the_softmax_of_what_attention_is_given_to_a_millionth(run, monkeypatch, kind):
    """As eager attention has it, from the queries, keys and biases of the same pass."""
    hooked, _, cache = run(kind)
    fused, calls = functional.scaled_dot_product_attention, []

    def noted(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        calls.append((query, key, attn_mask, is_causal, scale))
        return fused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    model = deepcopy(hooked.model)  # on which transformers leaves hooks
    with torch.no_grad():
        plain = model(
            **inputs_of(model), output_attentions=model.config._attn_implementation != "sdpa" or None
        )
    if not calls:  # the model computes its weights itself
        for layer, weights in zip(layers_of(hooked), plain.attentions, strict=True):
            assert torch.equal(cache["pattern", layer], weights)
    for layer, (query, key, mask, is_causal, scale) in zip(layers_of(hooked), calls, strict=False):
        for dtype in (torch.float32, torch.float64):
            keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1).to(dtype)
            scores = query.to(dtype) @ keys.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
            length = scores.shape[-1]
            if is_causal:
                scores = scores.masked_fill(torch.ones(length, length).triu(1) == 1, -math.inf)
            elif mask is not None:
                scores = torch.where(mask, scores, -math.inf) if mask.dtype == torch.bool else scores + mask
            expected = scores.softmax(-1).float()
            torch.testing.assert_close(cache["pattern", layer], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_native_full_and_short_names_are_the_same_numbers(run, kind):
    hooked, _, _ = run(kind)
    natives = {name: p.layer for name, p in hooked.points.points.items() if isinstance(p, HookPoint)}
    with torch.no_grad():
        _, cache = hooked.run_with_cache(
            inputs_of(hooked.model), [*hooked.points.points, *dict.fromkeys(natives.values())]
        )
    for name, native in natives.items():
        point = hooked.points.points[name]
        assert torch.equal(point.read(cache[native], 2), cache[name]), name
        if point.columns is None:  # all of it, whatever the order of the axes
            one, other = (tensor.flatten().sort().values for tensor in (cache[native], cache[name]))
            assert torch.equal(one, other), name
    shorts = 0
    for name in hooked.points.points:
        block = re.fullmatch(r"blocks\.(\d+)\.(?:(\w+)\.)?hook_(\w+)", name)
        if block:
            layer, inside, short = int(block[1]), block[2], block[3]
            keys = [(short, layer)] if inside is None else [(short, layer, inside)]
            keys += [(short, layer)] if inside in ("attn", "mlp") else []
            for key in keys:
                assert cache[key] is cache[name] or torch.equal(cache[key], cache[name]), key
                shorts += 1
    assert shorts > 20


@pytest.mark.parametrize("kind", ALL)
def test_outputs_of_heads_are_patterns_times_values(run, kind):
    hooked, _, cache = run(kind)
    for layer in layers_of(hooked):
        pattern, values = cache["pattern", layer], cache["v", layer]
        values = values.repeat_interleave(pattern.shape[1] // values.shape[2], 2)
        expected = torch.einsum("bhqk,bkhd->bqhd", pattern, values)
        torch.testing.assert_close(cache["z", layer], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in OTHER_SCORES])
def test_scores_are_scaled_products_of_queries_and_keys(run, kind):
    hooked, _, cache = run(kind)
    scale = {"gpt_neo": 1.0, "granite": 1.0}.get(kind, 8**-0.5)
    for layer in layers_of(hooked):
        rotated = f"blocks.{layer}.attn.hook_rot_q" in cache
        queries, keys = (cache[f"rot_{one}" if rotated else one, layer] for one in "qk")
        keys = keys.repeat_interleave(queries.shape[2] // keys.shape[2], 2)
        expected = torch.einsum("bqhd,bkhd->bhqk", queries, keys) * scale
        scores, pattern = cache["attn_scores", layer], cache["pattern", layer]
        allowed = pattern > 0
        torch.testing.assert_close(scores[allowed], expected[allowed], rtol=1e-5, atol=3e-6)
        torch.testing.assert_close(scores.softmax(-1), pattern, **CLOSE)


@pytest.mark.parametrize("kind", ["bloom", "mpt", "gemma2", "t5"])
def test_scores_with_biases_and_soft_caps_are_what_the_softmax_is_given(run, kind):
    hooked, _, cache = run(kind)
    for layer in layers_of(hooked):
        torch.testing.assert_close(cache["scores", layer].softmax(-1), cache["pattern", layer], **CLOSE)


def test_the_scores_of_soft_caps_are_capped(run):
    hooked, _, cache = run("gemma2")
    queries, keys = cache["rot_q", 0], cache["rot_k", 0].repeat_interleave(2, 2)
    cap = hooked.model.config.attn_logit_softcapping
    expected = cap * torch.tanh(torch.einsum("bqhd,bkhd->bhqk", queries, keys) * 8**-0.5 / cap)
    allowed = cache["pattern", 0] > 0
    torch.testing.assert_close(cache["scores", 0][allowed], expected[allowed], rtol=1e-5, atol=2e-6)


def split_gpt2(tensor):
    return [one.unflatten(-1, (4, 8)) for one in tensor.split(32, -1)]


def split_neox(tensor):
    return tensor.unflatten(-1, (4, 24)).split(8, -1)


def split_phi3(tensor):
    queries, keys, values = tensor.split([32, 16, 16], -1)
    return queries.unflatten(-1, (4, 8)), keys.unflatten(-1, (2, 8)), values.unflatten(-1, (2, 8))


def split_falcon(tensor):  # several queries, one key, one value
    return tensor[..., :32].unflatten(-1, (4, 8)), tensor[..., None, 32:40], tensor[..., None, 40:]


def split_bloom(tensor):
    return tensor.unflatten(-1, (4, 3, 8)).unbind(-2)


FUSED = {
    "gpt2": ("transformer.h.1.attn.c_attn", split_gpt2),
    "gpt_neox": ("gpt_neox.layers.1.attention.query_key_value", split_neox),
    "phi3": ("model.layers.1.self_attn.qkv_proj", split_phi3),
    "falcon": ("transformer.h.1.self_attention.query_key_value", split_falcon),
    "bloom": ("transformer.h.1.self_attention.query_key_value", split_bloom),
}


@pytest.mark.parametrize("kind", FUSED)
def test_queries_keys_and_values_are_columns_of_the_fused_map(run, kind):
    hooked, _, cache = run(kind)
    name, split = FUSED[kind]
    parts = split(seen(hooked.model, name, inputs_of(hooked.model)))
    for letter, expected in zip("qkv", parts, strict=True):
        assert torch.equal(cache[letter, 1], expected), letter


@pytest.mark.parametrize(
    "kind", ["llama", "qwen3", "gemma2", "olmo2", "gpt_oss", "cohere", "t5", "vit", "bert"]
)
def test_queries_keys_and_values_are_what_their_maps_return(run, kind):
    hooked, _, cache = run(kind)
    names = [name for name, _ in hooked.model.named_modules()]
    for letter, ends in (
        ("q", ("q_proj", "query", ".q")),
        ("k", ("k_proj", "key", ".k")),
        ("v", ("v_proj", "value", ".v")),
    ):
        name = next(n for n in names if n.endswith(ends) and ".1." in n)
        expected = seen(hooked.model, name, inputs_of(hooked.model)).unflatten(-1, (-1, 8))
        assert torch.equal(cache[letter, 1], expected), letter


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt_neox", "phi", "gptj", "falcon"])
def test_rotated_queries_have_the_length_of_queries_and_the_first_is_not_turned(run, kind):
    _, _, cache = run(kind)
    if kind != "qwen3":  # whose queries are normalized first
        torch.testing.assert_close(cache["rot_q", 0].norm(dim=-1), cache["q", 0].norm(dim=-1))
        torch.testing.assert_close(cache["rot_k", 0][:, 0], cache["k", 0][:, 0])
    assert not torch.allclose(cache["rot_q", 0][:, 5], cache["q", 0][:, 5])


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in EXPERTS])
def test_coefficients_of_neurons_go_into_the_last_map(run, kind):
    hooked, _, cache = run(kind)
    for layer, network in hooked.points.networks.items():
        given = seen(hooked.model, network.down_module, inputs_of(hooked.model), "input")
        returned = seen(hooked.model, network.down_module, inputs_of(hooked.model))
        assert torch.equal(cache["post", layer], given.reshape(cache["post", layer].shape))
        if kind not in NORMED_OUTPUTS | SCALED_OUTPUTS:
            torch.testing.assert_close(
                cache["mlp_out", layer], returned.reshape(cache["mlp_out", layer].shape)
            )


@pytest.mark.parametrize(
    "kind", ["gpt2", "bloom", "opt", "llama", "phi3", "gemma2", "olmo2", "gpt_neox", "bert", "t5"]
)
def test_coefficients_are_the_activation_of_what_goes_in(run, kind):
    hooked, _, cache = run(kind)
    config = hooked.model.config
    names = ("activation_function", "hidden_activation", "hidden_act", "dense_act_fn")
    act = next((getattr(config, n) for n in names if getattr(config, n, None)), "gelu_new")
    for layer in range(3):
        expected = ACT2FN[act](cache["pre", layer])
        if f"blocks.{layer}.mlp.hook_pre_linear" in cache:
            expected = expected * cache["pre_linear", layer]
        torch.testing.assert_close(cache["post", layer], expected, **CLOSE)
    assert ("blocks.0.mlp.hook_pre_linear" in cache) == (kind in ("llama", "phi3", "gemma2", "olmo2"))


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in POST_NORM and kind != "jamba"])
def test_the_stream_of_each_block_adds_up(run, kind):
    _, _, cache = run(kind)
    for layer in range(3):
        before, after = cache["resid_pre", layer], cache["resid_post", layer]
        attention, mlp = cache["attn_out", layer], cache["mlp_out", layer]
        torch.testing.assert_close(before + attention + mlp, after, rtol=1e-5, atol=1e-5)
        if kind not in PARALLEL:
            torch.testing.assert_close(before + attention, cache["resid_mid", layer], rtol=1e-5, atol=1e-5)
        if layer < 2:
            assert torch.equal(after, cache["resid_pre", layer + 1])


@pytest.mark.parametrize("kind", sorted(PARALLEL))
def test_parallel_blocks_have_no_stream_in_the_middle(run, kind):
    hooked, _, cache = run(kind)
    assert "added to the stream together" in hooked.points.missing["blocks.1.hook_resid_mid"]
    assert "blocks.1.hook_resid_mid" not in cache


@pytest.mark.parametrize("kind", sorted(POST_NORM))
def test_the_streams_of_post_norm_blocks_are_norms_and_sums(run, kind):
    hooked, _, cache = run(kind)
    for layer, block in enumerate(hooked.model.encoder.layer):
        middle = cache["resid_pre", layer] + cache["attn_out", layer]
        torch.testing.assert_close(cache["resid_mid", layer], middle, **CLOSE)
        normed = block.attention.output.LayerNorm(middle)
        torch.testing.assert_close(cache["resid_post", layer], normed + cache["mlp_out", layer], **CLOSE)


@pytest.mark.parametrize("kind", [k for k in ALL if k not in NORMED_OUTPUTS | SCALED_OUTPUTS])
def test_results_of_heads_sum_to_the_attention_output_without_its_bias(run, kind):
    hooked, _, cache = run(kind)
    for layer in layers_of(hooked):
        bias = hooked.points.outputs[layer].bias
        total = cache["result", layer].sum(2)
        if bias is not None:
            total = total + hooked.model.get_parameter(bias.name)
        torch.testing.assert_close(total, cache["attn_out", layer], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo", "opt", "bert", "roberta"])
def test_embeddings_are_rows_of_the_tables(run, kind):
    hooked, _, cache = run(kind)
    ids = inputs_of(hooked.model)["input_ids"]
    table = hooked.model.get_input_embeddings().weight
    assert torch.equal(cache["embed"], table[ids])
    positions = next(
        module.weight
        for name, module in hooked.model.named_modules()
        if name.endswith(("wpe", "positions", "position_embeddings"))
    )
    offset = {"opt": 2, "roberta": 2}.get(kind, 0)
    expected = positions[offset : offset + 9].expand(2, -1, -1)
    assert torch.equal(cache["pos_embed"].expand(2, -1, -1), expected)
    if kind not in POST_NORM:
        torch.testing.assert_close(cache["embed"] + cache["pos_embed"], cache["resid_pre", 0])


@pytest.mark.parametrize("kind", ["llama", "gemma", "bloom", "mixtral"])
def test_without_a_table_of_positions_the_stream_begins_with_the_embeddings(run, kind):
    hooked, _, cache = run(kind)
    assert torch.equal(cache["embed"], cache["resid_pre", 0])
    assert "positions" in hooked.points.missing["hook_pos_embed"]


@pytest.mark.parametrize("kind", [k for k in ALL if k not in POST_NORM | {"jamba", "clip_vision_model"}])
def test_the_final_norm_has_scale_and_normalized_stream(run, kind):
    hooked, _, cache = run(kind)
    stream = cache["resid_post", 2]
    eps = (
        next(
            getattr(hooked.model.config, name)
            for name in (
                "rms_norm_eps",
                "layer_norm_epsilon",
                "layer_norm_eps",
                "norm_eps",
                "norm_epsilon",
                "final_norm_eps",
            )
            if hasattr(hooked.model.config, name)
        )
        if kind not in ("opt", "mpt", "olmo")
        else 1e-5
    )
    centred = hooked.points.final_norm.kind == "layer_norm"
    stream = stream - stream.mean(-1, keepdim=True) if centred else stream
    scale = (stream.square().mean(-1, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(cache["ln_final.hook_scale"], scale, **CLOSE)
    torch.testing.assert_close(cache["ln_final.hook_normalized"], stream / scale, **CLOSE)


def test_the_norms_of_blocks_lead_to_what_attention_and_network_read(run):
    hooked, _, cache = run("gpt2")
    block = hooked.model.transformer.h[1]
    expected = cache["normalized", 1, "ln1"] * block.ln_1.weight + block.ln_1.bias
    torch.testing.assert_close(expected, seen(hooked.model, "transformer.h.1.ln_1", inputs_of(hooked.model)))
    expected = cache["normalized", 1, "ln2"] * block.ln_2.weight + block.ln_2.bias
    torch.testing.assert_close(expected, seen(hooked.model, "transformer.h.1.ln_2", inputs_of(hooked.model)))
    _, _, cache = run("gpt_neox")
    assert torch.equal(cache["scale", 1, "ln1"], cache["scale", 1, "ln2"])


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("gpt2", "blocks.0.attn.hook_rot_q", "rotates no"),
        ("gpt2", "blocks.0.mlp.hook_pre_linear", "no gates"),
        ("mixtral", "blocks.1.mlp.hook_post", "experts"),
        ("jamba", "blocks.0.attn.hook_pattern", "block 0 has no attention"),
        ("jamba", "blocks.0.hook_attn_out", "block 0 has no attention, but hook_mamba_out"),
        ("gpt_oss", "blocks.0.attn.hook_attn_scores", "something else than keys"),
        ("clip_vision_model", "ln_final.hook_scale", "no norm"),
    ],
)
def test_a_name_that_an_architecture_lacks_has_its_reason(run, kind, name, reason):
    hooked, _, _ = run(kind)
    assert reason in hooked.points.missing[name]
    assert name not in hooked.points.points


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "phi3", "falcon", "bloom", "qwen3"])
def test_the_columns_of_heads_are_exact_in_bfloat16(kind, run):
    model = deepcopy(build(kind)).to(torch.bfloat16)
    wide, plain = HookedModel(model).points, run(kind)[0].points
    for name, point in plain.points.items():
        if isinstance(point, HookPoint) and point.columns is not None:
            assert torch.equal(wide.points[name].columns.places, point.columns.places)


def test_wide_models_in_bfloat16_have_exact_columns():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=32, hidden_size=192, num_hidden_layers=1, num_attention_heads=3, intermediate_size=64
    )
    hooked = HookedModel(GPTNeoXForCausalLM(config).to(torch.bfloat16).eval())
    places = hooked.points.points["blocks.0.attn.hook_v"].columns.places
    assert torch.equal(places, torch.arange(576).reshape(3, 3, 64)[:, 2])


def test_columns_are_read_and_replaced():
    tensor = torch.arange(24.0).reshape(2, 12)
    for places in (torch.tensor([[3, 4], [7, 8]]), torch.tensor([[5, 1], [0, 9]]), torch.tensor([[2, 3, 4]])):
        columns = Columns(places)
        assert torch.equal(columns.of(tensor), tensor[..., places])
        changed = columns.replaced(tensor, torch.zeros(2, *places.shape))
        expected = tensor.clone()
        expected[:, places.flatten()] = 0
        assert torch.equal(changed, expected)


def test_repeated_heads_are_told_apart_once():
    columns = torch.arange(4).reshape(2, 2).repeat_interleave(3, 0).expand(2, 5, 6, 2)
    assert torch.equal(column_map(columns, 2, ("batch", "position", "head", "width")), columns[0, 0, ::3])
    mixed = columns.clone()
    mixed[1, 0] += 1
    assert column_map(mixed, 2, ("batch", "position", "head", "width")) is None


def test_fused_and_eager_attention_have_the_same_cache(run):
    hooked, _, cache = run("llama")
    model = deepcopy(hooked.model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        _, eager = HookedModel(model).run_with_cache(inputs_of(model))
    assert set(eager) == set(cache)
    for name in cache:
        masked = math.nan if "scores" in name else None
        one, other = cache[name], eager[name]
        if masked is not None:  # eager masks have large numbers in place of infinity
            allowed = cache[name.replace("attn_scores", "pattern")] > 0
            one, other = one[allowed], other[allowed]
        torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_models_without_attention_are_refused(kind):
    with pytest.raises(ArchitectureError, match="no attention"):
        HookedModel(build(kind))


def test_derived_points_are_not_written(run):
    hooked, _, _ = run("llama")
    with (
        pytest.raises(ArgumentError, match="cannot be written"),
        hooked.edit({"ln_final.hook_scale": torch.zeros_like}),
    ):
        pass


def test_attention_that_leaves_soft_caps_out_warns():
    """Newer versions of transformers refuse such a model when it runs."""
    config = AutoConfig.for_model("gemma2", **ARCHITECTURES["gemma2"], vocab_size=TOKENS)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.config._attn_implementation = "sdpa"
    with pytest.warns(UserWarning, match="leaves the soft caps of Gemma2ForCausalLM out"):
        with suppress(ArchitectureError):
            HookedModel(model)
