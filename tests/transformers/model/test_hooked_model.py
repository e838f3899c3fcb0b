"""Reading, editing, differentiating and generating with a hooked model leave the model as it is."""

from copy import deepcopy

import pytest
import torch
from architectures import build
from encoders import build_encoder, inputs_of
from torch import nn

from toumei.core.errors import (
    ArchitectureError,
    ArgumentError,
    LayerError,
    OverwrittenError,
    ShapeError,
    ToumeiError,
)
from toumei.core.outputs import main_tensor
from toumei.transformers.model.families import anatomy
from toumei.transformers.model.hook_points import HookPoint
from toumei.transformers.model.hooked_model import HookedModel, output_weight

IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
KINDS = ["gpt2", "llama", "gpt_neox", "phi3", "falcon", "gemma2", "bloom", "mixtral"]
FUSED = ["gpt2", "gpt_neox", "phi3", "falcon", "bloom", "gpt_bigcode"]


@pytest.fixture
def hooked_of(watched, tokenizer):
    return lambda kind="gpt2": HookedModel(watched(build(kind)), tokenizer)


@pytest.fixture
def eager_of(watched):
    """A hooked model of the same weights whose attention is written out."""

    def make(kind):
        model = deepcopy(build(kind))
        model.set_attn_implementation("eager")
        return HookedModel(watched(model))

    return make


def logits_of(hooked, edits=None):
    with torch.no_grad():
        return hooked.run_with_hooks(IDS, list((edits or {}).items()))


# names


def test_activations_are_those_of_the_whole_pass_and_end_it_early(hooked_of):
    hooked, ran = hooked_of("llama"), []
    names = [
        "blocks.0.attn.hook_pattern",
        "blocks.1.hook_resid_mid",
        "blocks.1.ln2.hook_scale",
        "model.layers.0.mlp",
    ]
    tokens = torch.arange(12).view(2, 6)
    _, cache = hooked.run_with_cache(tokens, names)
    found = hooked.activations(tokens, names)
    assert set(found) == set(names)
    for name in names:
        assert torch.equal(found[name], cache[name]), name
    with hooked.model.get_output_embeddings().register_forward_hook(lambda *_: ran.append(1)):
        hooked.activations(tokens, names[:3])
        assert not ran
        hooked(tokens)
        assert ran


def test_short_names_mean_all_layers_and_patterns_and_functions_choose(hooked_of):
    hooked = hooked_of()
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(3)]
    for given in (
        "z",
        names,
        "blocks.*.attn.hook_z",
        lambda name: name.endswith("_z"),
        [("z", n) for n in range(3)],
    ):
        assert list(hooked.run_with_cache(IDS, given)[1]) == names
    _, cache = hooked.run_with_cache(IDS, ["embed", ("mlp_out", 1), "transformer.h.0.ln_1"])
    assert list(cache) == ["hook_embed", "blocks.1.hook_mlp_out", "transformer.h.0.ln_1"]


@pytest.mark.parametrize("option", ["return_type", "names_filter", "prepend_bos", "stop_at_layer"])
def test_options_of_transformer_lens_are_told_what_does_the_same(hooked_of, option):
    hooked = hooked_of("gpt2")
    tokens = torch.tensor([[1, 2, 3]])
    for call in (hooked, hooked.run_with_cache, hooked.run_with_hooks):
        with pytest.raises(ArgumentError, match=f"an option of TransformerLens .*: {option}= is "):
            call(tokens, **{option: None})
    assert hooked(tokens, use_cache=False).shape[:2] == (1, 3)


def test_native_names_of_modules_and_operations_are_read_and_written(hooked_of):
    hooked = hooked_of()
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(IDS, ["lm_head", "transformer.h.1.mlp", ("mlp_out", 1)])
    assert torch.equal(cache["lm_head"], logits)
    assert torch.equal(cache["transformer.h.1.mlp"], cache["mlp_out", 1])
    zero = logits_of(hooked, {"transformer.h.1.mlp": torch.zeros_like})
    assert torch.equal(zero, logits_of(hooked, {("mlp_out", 1): torch.zeros_like}))


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("gpt2", "blocks.0.attn.hook_patern", "did you mean .*hook_pattern"),
        ("gpt2", "patern", r"did you mean pattern\?"),
        ("gpt2", ("pattern", 7), "blocks 0 to 2"),
        ("gpt2", "rot_q", "rotates no"),
        ("phi", ("resid_mid", 1), "added to the stream together"),
        ("mixtral", ("post", 0), "experts"),
        ("llama", "transformer.h.0", "no activation"),
    ],
)
def test_a_name_that_the_model_does_not_have_says_why(hooked_of, kind, name, message):
    hooked = hooked_of(kind)
    with pytest.raises(LayerError, match=message):
        hooked.run_with_cache(IDS, [name])
    with pytest.raises(LayerError, match=message), hooked.edit({name: torch.zeros_like}):
        pass


@pytest.mark.parametrize("names", [3, [3], [("z",)], [("z", "0")], [None], ("z", 1.5)])
def test_what_is_no_name_is_refused(hooked_of, names):
    with pytest.raises(ToumeiError):
        hooked_of().run_with_cache(IDS, names)


# edits


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_that_changes_nothing_changes_no_logit(hooked_of, kind):
    hooked = hooked_of(kind)
    plain = logits_of(hooked)
    for name, point in hooked.points.points.items():
        if isinstance(point, HookPoint):
            # SiLU of a part of a wider tensor rounds otherwise than of a tensor of its own
            close = 1e-6 if kind == "phi3" and "mlp" in name else 0
            edited = logits_of(hooked, {name: torch.clone})
            torch.testing.assert_close(edited, plain, rtol=close, atol=close * 10, msg=name)
    torch.testing.assert_close(logits_of(hooked, {"pattern": lambda t: t}), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "cohere", "qwen3", "opt", "mpt"])
def test_a_head_without_output_is_one_without_output_weights(hooked_of, kind):
    hooked = hooked_of(kind)

    def without(z):
        z[:, :, 2] = 0

    edited = logits_of(hooked, {("z", 1): without})
    model = deepcopy(hooked.model)
    linear = hooked.points.outputs[1]
    with torch.no_grad():
        weight = model.get_parameter(linear.weight.name)
        (weight if kind == "gpt2" else weight.T)[16:24] = 0
        expected = model(IDS).logits
    torch.testing.assert_close(edited, expected, rtol=1e-4, atol=1e-4)
    assert (edited - logits_of(hooked)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("letter", "qkv")
def test_an_edit_of_one_part_of_a_fused_map_leaves_the_others(hooked_of, kind, letter):
    hooked = hooked_of(kind)
    with torch.no_grad():
        _, plain = hooked.run_with_cache(IDS, ["q", "k", "v"])
        with hooked.edit({(letter, 1): lambda t: t * 2}):
            _, cache = hooked.run_with_cache(IDS, ["q", "k", "v"])
    for other in "qkv":
        factor = 2 if other == letter else 1
        assert torch.equal(cache[other, 1], factor * plain[other, 1])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gpt_neox", "bert"])
def test_edits_of_patterns_and_scores_are_those_of_eager_attention(watched, eager_of, hooked_of, kind):
    if kind == "bert":
        fused = HookedModel(watched(build_encoder(kind)))
        model = deepcopy(fused.model)
        model.set_attn_implementation("eager")
        eager = HookedModel(model)
    else:
        fused, eager = hooked_of(kind), eager_of(kind)

    def reversed_heads(tensor):
        return tensor.flip(1)

    for name in ("pattern", "attn_scores"):
        one = logits_of(fused, {(name, 1): reversed_heads})
        torch.testing.assert_close(one, logits_of(eager, {(name, 1): reversed_heads}), rtol=1e-4, atol=1e-5)
        assert (one - logits_of(fused)).abs().max() > 1e-3


@pytest.mark.parametrize("make", ["hooked_of", "eager_of"])
def test_a_cache_has_the_edited_patterns(request, make):
    hooked = request.getfixturevalue(make)("llama")
    with torch.no_grad(), hooked.edit({("pattern", 0): torch.zeros_like, ("scores", 1): torch.zeros_like}):
        _, cache = hooked.run_with_cache(IDS, ["pattern", "z"])
        assert not cache["pattern", 0].any()
        assert not cache["z", 0].any()
        torch.testing.assert_close(cache["pattern", 1], torch.full((2, 4, 9, 9), 1 / 9))
    _, cache = hooked.run_with_cache(IDS, ["pattern"])
    assert cache["pattern", 0].any()


def test_edits_inside_each_other_add_up(hooked_of):
    hooked = hooked_of()
    once = {("pattern", 0): lambda t: t / 2}
    with hooked.edit(once), hooked.edit(once):
        both = logits_of(hooked)
    expected = logits_of(hooked, {("pattern", 0): lambda t: t / 4})
    torch.testing.assert_close(both, expected, rtol=1e-5, atol=1e-5)


def test_functions_may_take_the_name_and_may_write_in_place(hooked_of):
    hooked, names = hooked_of(), []

    def in_place(tensor, name):
        names.append(name)
        tensor.zero_()

    expected = logits_of(hooked, {"mlp_out": torch.zeros_like})
    assert torch.equal(logits_of(hooked, {"mlp_out": in_place}), expected)
    assert names == [f"blocks.{layer}.hook_mlp_out" for layer in range(3)]
    assert torch.equal(logits_of(hooked, {"mlp_out": lambda tensor, scale=0.0: tensor * scale}), expected)


def test_several_edits_of_one_tensor_are_made_in_their_order(hooked_of):
    hooked = hooked_of()
    with torch.no_grad():
        both = hooked.run_with_hooks(IDS, [(("z", 0), lambda t: t + 1), (("z", 0), lambda t: t * 2)])
        once = hooked.run_with_hooks(IDS, [(("z", 0), lambda t: (t + 1) * 2)])
    assert torch.equal(both, once)
    edits = {("resid_post", 0): lambda t: t + 1, ("resid_pre", 1): lambda t: t * 2}
    expected = logits_of(hooked, {("resid_pre", 1): lambda t: (t + 1) * 2})
    assert torch.equal(logits_of(hooked, edits), expected)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        (("z", 0), lambda t: t[:, :1], ShapeError),
        (("pattern", 0), lambda t: t[:, :, :1], ShapeError),
        (("q", 0), lambda t: t.flatten(2), ShapeError),
        ("lm_head", lambda t: t[..., :3], ShapeError),
        (("z", 0), lambda t: 3.0, ArgumentError),
        (("z", 0), 3.0, ArgumentError),
        (("result", 0), torch.zeros_like, LayerError),
    ],
)
def test_wrong_edits_are_refused_and_leave_nothing(hooked_of, name, change, error):
    hooked = hooked_of()
    plain = logits_of(hooked)
    with pytest.raises(error):
        logits_of(hooked, {name: change})
    assert torch.equal(logits_of(hooked), plain)


def test_scores_and_the_weights_of_them_are_not_both_edited(hooked_of):
    with pytest.raises(ArgumentError, match="computed from each other"):
        logits_of(hooked_of(), {("pattern", 0): torch.clone, ("attn_scores", 0): torch.clone})


def test_an_error_of_a_function_leaves_nothing(hooked_of):
    hooked = hooked_of()
    plain = logits_of(hooked)

    def broken(tensor):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        logits_of(hooked, {"z": broken})
    assert torch.equal(logits_of(hooked), plain)


def test_what_is_no_dictionary_of_edits_is_refused(hooked_of):
    with pytest.raises(ArgumentError), hooked_of().edit([("z", torch.clone)]):
        pass


# gradients


def metric(logits):
    return logits[:, -1, 5].sum() - logits[:, -1, 7].sum()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bloom", "gemma2", "mixtral"])
def test_gradients_of_modules_are_those_of_autograd(hooked_of, kind):
    hooked = hooked_of(kind)
    layer = hooked.points.points["blocks.1.hook_resid_post"].layer.removesuffix("#0")
    found = []

    def keep(module, args, output):
        found.append(main_tensor(output))

    model = deepcopy(hooked.model)
    model.get_submodule(layer).register_forward_hook(keep)
    (expected,) = torch.autograd.grad(metric(model(IDS).logits), found)
    logits, cache = hooked.run_with_cache(IDS, ["resid_post", "z"], metric=metric)
    assert not logits.requires_grad
    torch.testing.assert_close(cache.grad["resid_post", 1], expected, rtol=1e-4, atol=1e-5)
    assert not any(tensor.requires_grad for tensor in cache.values())


NAMES = ["q", "k", "v", "z", "pattern", "attn_scores", "attn_out", "mlp_out", "post", "pre", "resid_pre"]


@pytest.mark.parametrize(
    ("kind", "size", "close"),  # RMS norms compute in float32
    [("gpt2", 1e-5, 1e-5), ("gpt_neox", 1e-5, 1e-5), ("llama", 2e-3, 2e-2), ("phi3", 2e-3, 2e-2)],
)
def test_the_metric_grows_along_a_gradient_by_its_length(kind, size, close, watched):
    hooked = HookedModel(watched(deepcopy(build(kind)).double()))
    _, cache = hooked.run_with_cache(IDS, NAMES, metric=metric)
    for name in NAMES:
        length = cache.grad[name, 1].norm()
        step = size * cache.grad[name, 1] / length
        up, down = (
            metric(logits_of(hooked, {(name, 1): lambda t, change=sign * step: t + change}))
            for sign in (1, -1)
        )
        torch.testing.assert_close((up - down) / (2 * size), length, rtol=close, atol=0)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradients_of_fused_attention_are_those_of_eager_attention(hooked_of, eager_of, kind):
    grads = [
        one.run_with_cache(IDS, ["pattern", "scores", "embed"], metric=metric)[1].grad
        for one in (hooked_of(kind), eager_of(kind))
    ]
    assert set(grads[0]) == set(grads[1])
    for name in grads[0]:
        if "pattern" not in name:  # of masked keys it may be anything
            torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-4, atol=1e-5)


def test_gradients_need_no_gradients_of_weights_and_no_grad_mode(hooked_of):
    hooked = hooked_of("llama")
    expected = hooked.run_with_cache(IDS, "resid_pre", metric=metric)[1].grad["resid_pre", 0]
    frozen = deepcopy(hooked.model).requires_grad_(False)
    with torch.no_grad():
        found = HookedModel(frozen).run_with_cache(IDS, "resid_pre", metric=metric)[1].grad["resid_pre", 0]
    assert torch.equal(found, expected)


def test_gradients_respect_edits(hooked_of):
    hooked = hooked_of()
    with hooked.edit({("attn_out", 1): torch.zeros_like, ("mlp_out", 1): torch.zeros_like}):
        _, cache = hooked.run_with_cache(IDS, ["resid_pre", "resid_post", "z"], metric=metric)
    torch.testing.assert_close(cache.grad["resid_pre", 1], cache.grad["resid_post", 1])
    assert not cache.grad["z", 1].any()


def test_wrong_metrics_and_missing_gradients_are_refused(hooked_of):
    hooked = hooked_of()
    for wrong in (lambda logits: logits, lambda logits: 3.0, lambda logits: logits.detach().sum()):
        with pytest.raises(ArgumentError, match="metric"):
            hooked.run_with_cache(IDS, "z", metric=wrong)
    with torch.inference_mode(), pytest.raises(ArgumentError, match="inference_mode"):
        hooked.run_with_cache(IDS, "z", metric=metric)
    _, cache = hooked.run_with_cache(IDS, ["z", "result"])
    with pytest.raises(ArgumentError, match="metric="):
        cache.grad  # noqa: B018
    _, cache = hooked.run_with_cache(IDS, ["z", "result"], metric=metric)
    with pytest.raises(LayerError, match="attn_out for each head"):
        cache.grad["result", 0]
    with pytest.raises(LayerError, match="no gradient"):
        cache.grad["q", 0]


# what is computed later


def test_what_is_computed_later_is_not_wrong_after_a_change(watched):
    model = deepcopy(build("gpt2"))
    hooked = HookedModel(model)
    with torch.no_grad():
        _, cache = hooked.run_with_cache(IDS, ["pattern", "result", "q"])
        _, again = hooked.run_with_cache(IDS, ["pattern", "result"])
        expected = again["pattern", 1].clone()
        model.transformer.h[1].attn.c_attn.weight.zero_()
        assert torch.equal(cache["pattern", 1], expected)  # queries and keys are those of the pass
        model.transformer.h[1].attn.c_proj.weight.zero_()
        with pytest.raises(OverwrittenError, match="changed"):
            cache["result", 1]
        cache["q", 0].zero_()
        with pytest.raises(OverwrittenError, match="changed"):
            cache["pattern", 0]


def test_the_attention_may_be_switched_after_the_model_was_read(watched):
    model = deepcopy(build("llama"))
    hooked = HookedModel(model)
    with torch.no_grad():
        _, fused = hooked.run_with_cache(IDS, "pattern")
        model.set_attn_implementation("eager")
        _, eager = hooked.run_with_cache(IDS, "pattern")
    torch.testing.assert_close(fused["pattern", 2], eager["pattern", 2], rtol=1e-5, atol=1e-6)


def test_in_training_mode_the_pass_is_that_of_training(watched):
    model = deepcopy(build("gpt2")).train()
    hooked = HookedModel(watched(model))
    torch.manual_seed(3)
    with torch.no_grad():
        plain = model(IDS).logits
        torch.manual_seed(3)
        logits, cache = hooked.run_with_cache(IDS)
    assert torch.equal(logits, plain)
    total = cache["resid_pre", 1] + cache["attn_out", 1] + cache["mlp_out", 1]
    torch.testing.assert_close(total, cache["resid_post", 1], rtol=1e-5, atol=1e-5)


def test_under_inference_mode_and_autocast(hooked_of):
    hooked = hooked_of("llama")
    with torch.inference_mode():
        _, cache = hooked.run_with_cache(IDS, ["pattern", "z"])
        assert cache["pattern", 0].shape == (2, 4, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = hooked.model(IDS).logits
        logits, cache = hooked.run_with_cache(IDS, ["pattern", "q"])
    assert torch.equal(logits, plain)
    assert cache["q", 0].dtype == torch.bfloat16


# generation


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma2", "falcon"])
def test_generation_with_edits_is_that_without_a_cache_of_keys(hooked_of, kind):
    hooked = hooked_of(kind)
    hooked.tokenizer = hooked.inputs._tokenizer = None

    def scaled(tensor):
        return tensor * torch.tensor([2.0, 0.0, 1.0, -1.0])[:, None]

    edits = {("z", 1): scaled, ("mlp_out", 0): lambda t: t * 0.5}
    if kind != "gemma2":
        edits["pattern", 2] = lambda t: t.flip(1)
    with hooked.edit(edits):
        found = hooked.generate(IDS, 5)
        ids = IDS
        for _ in range(5):
            with torch.no_grad():
                ids = torch.cat([ids, hooked(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    ends = (found == 2).any()  # rows end with the end token
    assert ends or torch.equal(found, ids[:, 9:])
    assert not torch.equal(hooked.generate(IDS, 5), found)


def test_generation_of_texts_of_other_lengths_is_that_of_each_alone(hooked_of):
    hooked = hooked_of("llama")
    texts = ["w3 w4 w5 w6 w7", "w8 w9"]
    assert hooked.generate(texts, 6) == [hooked.generate(text, 6) for text in texts]
    assert isinstance(hooked.generate(texts[0], 2), str)


def test_encoders_generate_nothing(watched):
    with pytest.raises(ArchitectureError, match="generates no text"):
        HookedModel(watched(build_encoder("bert"))).generate(IDS)


# models


def test_models_that_are_no_transformers_are_refused():
    from transformers import (
        BartConfig,
        BartModel,
        ResNetConfig,
        ResNetModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    with pytest.raises(ArchitectureError, match="not known what"):
        HookedModel(nn.Sequential(nn.Conv2d(3, 3, 1)))
    resnet = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]))
    with pytest.raises(ArchitectureError):
        HookedModel(resnet)
    sizes = {"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    t5 = T5ForConditionalGeneration(T5Config(**sizes))
    with pytest.raises(ArchitectureError, match="get_encoder"):
        HookedModel(t5)
    assert HookedModel(t5.get_encoder().eval()).layers == 1
    bart = BartModel(
        BartConfig(
            vocab_size=32,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
        )
    )
    with pytest.raises(ArchitectureError, match="get_encoder"):
        HookedModel(bart)
    decoder = HookedModel(bart.get_decoder().eval())
    with pytest.raises(ArgumentError, match="cross-attention does not run"):
        decoder.run_with_cache([[3, 4, 5]], encoder_hidden_states=torch.zeros(1, 4, 16))
    with pytest.raises(ArgumentError):
        HookedModel("gpt2")


def test_models_on_the_meta_device_are_refused():
    model = deepcopy(build("gpt2")).to("meta")
    with pytest.raises(ArchitectureError, match="meta"):
        HookedModel(model)


def test_a_quantized_output_map_is_dequantized(watched):
    class Quantized(torch.Tensor):
        def dequantize(self):
            return torch.Tensor(self).as_subclass(torch.Tensor) * 1

    model = deepcopy(build("llama"))
    hooked = HookedModel(model)
    expected = output_weight(hooked.points, 1)
    weight = model.model.layers[1].self_attn.o_proj.weight
    model.model.layers[1].self_attn.o_proj.weight = nn.Parameter(
        weight.detach().as_subclass(Quantized), requires_grad=False
    )
    assert torch.equal(output_weight(hooked.points, 1), expected)
    assert type(output_weight(hooked.points, 1)) is torch.Tensor


def test_wrapped_models_have_the_same_names(watched):
    model = watched(build("gpt2"))
    _, cache = HookedModel(model).run_with_cache(IDS, "z")
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        logits, other = HookedModel(compiled).run_with_cache(IDS, "z")
        assert torch.equal(logits, model(IDS).logits)
    assert torch.equal(cache["z", 1], other["z", 1])


def test_the_repr_names_sizes(hooked_of):
    assert repr(hooked_of()) == "HookedModel(GPT2LMHeadModel, 3 layers, 4 heads, width 32)"
    hooked = hooked_of("jamba")
    assert (hooked.layers, hooked.heads, hooked.width) == (3, 4, 32)


def test_pictures_go_in_as_tensors_and_as_encodings(watched):
    hooked = HookedModel(watched(build_encoder("vit")))
    pictures = inputs_of(hooked.model)["pixel_values"]
    _, cache = hooked.run_with_cache(pictures, ["pattern"])
    assert cache["pattern", 0].shape == (2, 4, 10, 10)
    assert torch.equal(
        cache["pattern", 0], hooked.run_with_cache({"pixel_values": pictures})[1]["pattern", 0]
    )
    with pytest.raises(ToumeiError, match="12"):
        hooked(torch.rand(1, 3, 20, 20))


# files


@pytest.mark.parametrize("kind", ["llama", "bert", "vit"])
def test_a_saved_model_is_loaded_with_its_class_and_tokenizer(kind, tmp_path, tokenizer):
    model = build(kind) if kind == "llama" else build_encoder(kind)
    model.save_pretrained(tmp_path)
    if kind != "vit":
        tokenizer.save_pretrained(tmp_path)
    loaded = HookedModel.from_pretrained(str(tmp_path))
    assert type(loaded.model) is type(model)
    assert (loaded.tokenizer is None) == (kind == "vit")
    given = inputs_of(model)
    with torch.no_grad():
        assert torch.equal(loaded(given), main_tensor(model(**given)))


def test_a_folder_without_a_model_is_refused(tmp_path):
    for name in (str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(ArgumentError, match="loads no model"):
            HookedModel.from_pretrained(name)


def test_trained_models_are_read_from_files(realdata):
    hooked = HookedModel.from_pretrained(str(realdata / "stories260k"))
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(
            "Once upon a time", ["resid_pre", "resid_post", "attn_out", "mlp_out", "embed"]
        )
        assert torch.equal(logits, hooked.model(hooked.to_tokens("Once upon a time")).logits)
    parts, _ = cache.decompose_resid()
    torch.testing.assert_close(parts.sum(0), cache["resid_post", hooked.layers - 1], rtol=1e-5, atol=1e-4)
    sentences = HookedModel.from_pretrained(str(realdata / "minilm_l6"))
    assert sentences.run_with_cache("A dog.", "pattern")[1]["pattern", 5].shape[:2] == (1, 12)


def test_parts_are_looked_for_once_and_again_where_attention_is_another(hooked_of):
    hooked = hooked_of("llama")
    parts = hooked.parts
    assert (parts.blocks, parts.head) == (anatomy(hooked.model).blocks, "lm_head")
    assert hooked.parts is parts
    hooked.model.set_attn_implementation("eager")
    assert hooked.parts is not parts
