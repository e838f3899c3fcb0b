"""The weights of heads against the model's queries, keys, values and what is added to the stream."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, build

from toumei.core.errors import ArchitectureError, LayerError
from toumei.models import InductionTransformer
from toumei.transformers.heads.weights import head_weights, input_factor, output_factor
from toumei.transformers.model.hooked_model import HookedModel

WITHOUT = {"mamba", "mamba2", "qwen2_moe"}  # no attention, or a stream that is not found
KINDS = sorted(set(ARCHITECTURES) - WITHOUT)
TOKENS = torch.tensor([[5, 9, 33, 21, 9, 2, 40, 17, 8], [7, 7, 12, 60, 3, 22, 31, 44, 50]])


def hooked_model(kind):
    """A model whose norms and biases all have other weights, so that none can be left out."""
    model = copy.deepcopy(build(kind))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return HookedModel(model)


def given_to(model, layer, letter):
    """What the module of a projection is given in a pass, by a hook of torch."""
    name = model.points.points[f"blocks.{layer}.attn.hook_{letter}"].layer.split("/")[0].removesuffix("#0")
    given = []
    with model.model.get_submodule(name).register_forward_pre_hook(
        lambda module, args: given.append(args[0])
    ):
        model(TOKENS)
    return given[0].detach()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_give_the_queries_keys_values_and_outputs_of_the_model(kind):
    model = hooked_model(kind)
    layer = max(model.points.attentions)
    weights = head_weights(model, layer)
    written = model.points.outputs[layer].output.name
    with torch.no_grad():
        _, cache = model.run_with_cache(
            TOKENS, [("q", layer), ("k", layer), ("v", layer), ("z", layer), written]
        )
    repeats = weights.heads // weights.key_value_heads
    for letter in "qkv":
        x = given_to(model, layer, letter)
        weight, bias = getattr(weights, f"W_{letter.upper()}"), getattr(weights, f"b_{letter.upper()}")
        expected = torch.einsum("bpw,hwd->bphd", x, weight) + bias
        actual = cache[letter, layer]
        repeated = actual if letter == "q" else actual.repeat_interleave(repeats, 2)
        torch.testing.assert_close(expected, repeated, rtol=1e-5, atol=1e-5)
        grouped = getattr(weights.grouped(), f"W_{letter.upper()}")
        assert grouped.shape[0] == actual.shape[2]
    out = torch.einsum("bphd,hdw->bpw", cache["z", layer], weights.W_O) + weights.b_O
    torch.testing.assert_close(out.reshape(cache[written].shape), cache[written], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jamba"])  # no name for its streams
def test_folded_weights_read_the_residual_stream_up_to_one_number_for_each_vector(kind):
    model = hooked_model(kind)
    layer = max(model.points.attentions)
    before = input_factor(model.points, layer)
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS, [("resid_pre", layer), ("v", layer)])
    x = cache["resid_pre", layer].double()
    folded = head_weights(model, layer, fold_norms=True, dtype=torch.float64)
    plain = head_weights(model, layer, dtype=torch.float64)
    bias = plain.b_V + before.bias.to(plain.W_V) @ plain.W_V
    actual = cache["v", layer].repeat_interleave(folded.heads // folded.key_value_heads, 2) - bias
    read = torch.einsum("bpw,hwd->bphd", x, folded.W_V)
    torch.testing.assert_close(bias, folded.b_V)
    flat, expected = read.flatten(2), actual.flatten(2)
    divisor = (flat * expected).sum(-1, keepdim=True) / flat.square().sum(-1, keepdim=True)
    torch.testing.assert_close(flat * divisor, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["qwen3", "olmo2", "gemma3_text", "exaone4"])
def test_the_gains_of_norms_of_queries_and_keys_are_folded(kind):
    model = hooked_model(kind)
    folded, plain = (head_weights(model, 0, fold_norms=fold, dtype=torch.float64) for fold in (True, False))
    before = input_factor(model.points, 0)
    attention = next(one for name, one in model.model.named_modules() if name.endswith("layers.0.self_attn"))
    for letter in "qk":
        gain = getattr(attention, f"{letter}_norm").weight.detach().double()
        gain = 1 + gain if kind == "gemma3_text" else gain
        weight = before.before(getattr(plain, f"W_{letter.upper()}"))
        by_head = gain.reshape(-1, weight.shape[-1])
        by_head = by_head.repeat_interleave(len(weight) // len(by_head), 0)
        torch.testing.assert_close(
            getattr(folded, f"W_{letter.upper()}"), weight * by_head[:, None], rtol=1e-4, atol=1e-4
        )


def test_the_gain_of_gemma_is_one_and_the_weight_also_after_the_heads():
    model = hooked_model("gemma2")
    layer = model.model.model.layers[1]
    assert torch.equal(input_factor(model.points, 1).gain, 1 + layer.input_layernorm.weight.detach().double())
    gain = output_factor(model.points, 1).gain
    assert torch.equal(gain, 1 + layer.post_attention_layernorm.weight.detach().double())


def test_a_factor_between_heads_and_stream_is_part_of_the_outputs():
    model = copy.deepcopy(build("granite"))
    model.model.layers[0].residual_multiplier = 0.22
    factor = output_factor(HookedModel(model).points, 0)
    assert factor.kind == "none"
    torch.testing.assert_close(factor.gain, torch.full((32,), 0.22, dtype=torch.float64))


def test_weights_of_half_precision_are_in_float32_and_follow_edits_of_the_model():
    model = HookedModel(copy.deepcopy(build("llama")).half())
    before = head_weights(model, 1)
    assert before.W_Q.dtype == before.W_O.dtype == torch.float32
    projection = model.model.model.layers[1].self_attn.v_proj.weight
    with torch.no_grad():
        projection.mul_(2)
    torch.testing.assert_close(head_weights(model, 1).W_V, 2 * before.W_V)
    torch.testing.assert_close(head_weights(model, 1).W_Q, before.W_Q)


def test_the_wired_transformer_has_no_norm():
    model = HookedModel(InductionTransformer(vocabulary=6, positions=16))
    folded, plain = (head_weights(model, 1, fold_norms=fold) for fold in (True, False))
    assert torch.equal(folded.W_K, plain.W_K) and torch.equal(folded.W_O, plain.W_O)
    assert input_factor(model.points, 1).kind == "none"


def test_what_cannot_be_told_is_an_error():
    model = HookedModel(copy.deepcopy(build("llama")))
    with pytest.raises(LayerError, match="layers that have are 0, 1, 2"):
        head_weights(model, 3)
    model.points.points.pop("blocks.0.attn.hook_v")
    with pytest.raises(ArchitectureError, match="layer 0 cannot be told"):
        head_weights(model, 0)
