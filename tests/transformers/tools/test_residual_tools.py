"""Arrakis' tools of the residual stream, logits and interventions against plain restatements."""

import copy

import pytest
import torch
from architectures import build

from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.models import InductionTransformer
from toumei.transformers import direct_logit_attribution
from toumei.transformers.heads import attention_rollout, head_weights
from toumei.transformers.model.hooked_model import HookedModel
from toumei.transformers.tools import (
    CausalTracingIntervention,
    LogitAttributor,
    LogitLens,
    ResidualDecomposer,
    ResidualTools,
    WriteReadAnalyzer,
)

TOKENS = torch.tensor([[5, 9, 33, 21, 9, 2], [7, 7, 12, 60, 3, 22]])
KINDS = ["gpt2", "llama", "gemma2", "cohere", "phi"]


def hooked_model(kind):
    """A model whose norms and biases all have other weights."""
    model = copy.deepcopy(build(kind))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return HookedModel(model)


@pytest.fixture
def gpt():
    return hooked_model("gpt2")


@pytest.fixture
def wired():
    return HookedModel(InductionTransformer(vocabulary=8, positions=16))


def logits_of(model):
    """The logits before scales and soft caps."""
    config = model.model.config
    with torch.no_grad():
        logits = model(TOKENS) / (getattr(config, "logit_scale", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).atanh() * cap


@pytest.mark.parametrize("kind", KINDS)
def test_parts_sum_to_the_logit(kind):
    model = hooked_model(kind)
    found = LogitAttributor(model).component_attribution(TOKENS, 12)
    expected = logits_of(model)[:, -1, 12]
    torch.testing.assert_close(sum(found.values()), expected, rtol=1e-3, atol=1e-3)
    layers = LogitLens(model).layer_attributions(TOKENS, 12)
    others = sum(value for name, value in found.items() if not name[0].isdigit())
    assert layers.shape == (3, 2)
    torch.testing.assert_close(layers.sum(0) + others, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layers[1], found["1_attn_out"] + found["1_mlp_out"])


def test_parts_at_the_last_token_are_those_of_direct_logit_attribution(gpt, tokenizer):
    """Which has biases as separate parts, too; the tool takes batches, and gives all positions."""
    found = LogitAttributor(gpt).component_attribution(TOKENS[:1], 9)
    text = " ".join(f"w{token}" for token in TOKENS[0].tolist())
    lens = direct_logit_attribution(gpt.model, tokenizer, text, "w9")
    parts = dict(zip(lens.labels, lens.contributions.tolist(), strict=True))
    for layer in range(3):
        for label, name in (("attention", "attn"), ("MLP", "mlp")):
            both = parts[f"{label} {layer}"] + parts.get(f"{label} {layer} bias", 0)
            assert float(found[f"{layer}_{name}_out"]) == pytest.approx(both, abs=1e-5)


def test_the_logit_of_the_wired_transformer_comes_from_the_induction_head(wired):
    found = LogitAttributor(wired).component_attribution(torch.tensor([[0, 3, 1, 4, 3]]), 1)
    assert float(found["1_attn_out"]) == pytest.approx(20, rel=1e-3)
    assert not any(float(value) for name, value in found.items() if name != "1_attn_out")


def test_gradient_times_input_is_that_of_the_embeddings(gpt):
    found = LogitAttributor(gpt).logit_attribution(TOKENS, 12)
    transformer = gpt.model.transformer
    embeds = transformer.wte(TOKENS).detach().requires_grad_()
    logits = gpt.model(inputs_embeds=embeds).logits
    (gradient,) = torch.autograd.grad(logits[:, -1, 12].sum(), embeds)
    torch.testing.assert_close(found, (gradient * embeds).sum(-1).detach(), rtol=1e-4, atol=1e-4)
    both = ResidualTools(gpt).feature_attribution(TOKENS, [12, 3])
    torch.testing.assert_close(both[0], found)
    assert both.shape == (2, 2, 6)
    assert all(parameter.grad is None for parameter in gpt.model.parameters())


def test_integrated_gradients_sum_to_the_difference_from_no_input(wired):
    tokens = torch.tensor([[0, 3, 1, 4, 3, 1]])
    found = LogitAttributor(wired).integrated_gradients(tokens, 4, steps=200)
    with torch.no_grad(), wired.edit({"hook_embed": torch.zeros_like}):
        nothing = wired(tokens)[0, -1, 4]
    difference = wired(tokens)[0, -1, 4].detach() - nothing
    assert float(found.sum()) == pytest.approx(float(difference), rel=0.02)


def test_circulation_is_rollout_of_the_first_layers(gpt):
    found = LogitAttributor(gpt).track_token_circulation(TOKENS, 2, n_layers=2)
    _, cache = gpt.run_with_cache(TOKENS, "pattern")
    patterns = [cache["pattern", layer].detach() for layer in range(3)]
    torch.testing.assert_close(found[1], attention_rollout(patterns[:2])[:, :, 2])
    assert not found[:, :, :2].any() and LogitAttributor(gpt).track_token_circulation(TOKENS, 2).shape[0] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_lens_is_norm_and_head_and_the_model_at_the_last_layer(kind):
    model = hooked_model(kind)
    lens = LogitLens(model)
    torch.testing.assert_close(lens.logit_lens(TOKENS, 12, 2), model(TOKENS)[..., 12].detach())
    inner = model.model.transformer if kind == "gpt2" else model.model.model
    norm = inner.ln_f if kind == "gpt2" else inner.final_layernorm if kind == "phi" else inner.norm
    with torch.no_grad():
        stream = model.run_with_cache(TOKENS, [("resid_post", 0)])[1]["resid_post", 0]
        expected = model.model.lm_head(norm(stream))[..., 12] * (
            getattr(model.model.config, "logit_scale", None) or 1
        )
    if cap := getattr(model.model.config, "final_logit_softcapping", None):
        expected = (expected / cap).tanh() * cap
    torch.testing.assert_close(lens.logit_lens(TOKENS, 12, 0), expected)


def test_parts_of_the_stream_sum_to_it_and_shares_to_one(gpt):
    _, cache = gpt.run_with_cache(TOKENS, ["resid_pre", ("resid_post", 2)])
    for layer, stream in ((1, cache["resid_pre", 1]), (3, cache["resid_post", 2])):
        parts = ResidualTools(gpt).residual_decomposition(TOKENS, layer)
        torch.testing.assert_close(sum(parts.values()), stream.detach(), rtol=1e-4, atol=1e-4)
        found = ResidualDecomposer(gpt).decompose_residual(TOKENS, layer, top_k=99)
        assert set(found.labels) == set(parts) and float(found.shares.sum()) == pytest.approx(1)
        assert found.shares.tolist() == sorted(found.shares.tolist(), reverse=True)
        torch.testing.assert_close(found.parts[0], parts[found.labels[0]])
    assert len(ResidualDecomposer(gpt).decompose_residual(TOKENS, 3, top_k=2).labels) == 2


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_basis_of_an_mlp_is_that_of_its_output_weights(kind):
    model = HookedModel(build(kind))
    mlp = (
        model.model.transformer.h[1].mlp.c_proj.weight
        if kind == "gpt2"
        else model.model.model.layers[1].mlp.down_proj.weight.T
    )
    U, S, Vh = ResidualDecomposer(model).mlp_basis(1)
    torch.testing.assert_close(U * S @ Vh, mlp.detach(), rtol=1e-4, atol=1e-5)


def test_movement_is_the_length_of_what_was_added(gpt):
    found = ResidualTools(gpt).residual_movement(TOKENS, 0, 1)
    _, cache = gpt.run_with_cache(TOKENS, [("resid_post", 0), ("attn_out", 1), ("mlp_out", 1)])
    added = (cache["attn_out", 1] + cache["mlp_out", 1]).norm(dim=-1)
    torch.testing.assert_close(
        found, (added / cache["resid_post", 0].norm(dim=-1)).detach(), rtol=1e-4, atol=1e-5
    )


def test_a_neuron_is_scaled_along_the_right_axis(gpt):
    found = CausalTracingIntervention(gpt).intervene_on_neuron(TOKENS, 1, 7, scale=3.0)

    def scaled(module, args, output):
        output = output.clone()
        output[:, :, 7] *= 3
        return output

    with torch.no_grad(), gpt.model.transformer.h[1].mlp.act.register_forward_hook(scaled):
        expected = gpt.model(TOKENS).logits
    torch.testing.assert_close(found, expected)
    same = CausalTracingIntervention(gpt).intervene_on_neuron(TOKENS, 1, 7, scale=1.0)
    torch.testing.assert_close(same, gpt(TOKENS).detach())


def test_the_trace_of_the_wired_transformer_shows_where_the_token_is(wired):
    """The last token needs the position after its first occurrence, in the stream after layer 0."""
    tokens = torch.tensor([[0, 3, 1, 4, 3]])
    tool = CausalTracingIntervention(wired)
    trace = tool.trace_token_probability(tokens, 1, positions=[2])
    assert trace.clean == pytest.approx(1, abs=1e-3) and trace.corrupted < 0.7
    assert float(trace.restored[0, 2]) == pytest.approx(trace.clean, abs=1e-4)
    assert float(trace.restored[1, 4]) == pytest.approx(trace.clean, abs=1e-4)  # the last state decides
    for layer, position in ((0, 0), (0, 1), (0, 3), (1, 2)):
        assert float(trace.restored[layer, position]) == pytest.approx(trace.corrupted, abs=1e-4)
    again = tool.trace_token_probability(tokens, 1, positions=[2])
    assert torch.equal(again.restored, trace.restored)


def test_write_and_read_heads_are_those_that_are_wired(wired):
    tool = WriteReadAnalyzer(wired)
    assert tool.identify_write_heads(0) == [0]  # head 0.1 writes nothing
    assert sorted(tool.identify_write_heads(1, 0.9)) == [0, 1]
    previous, token = wired.model.subspaces["previous"].start, wired.model.subspaces["token"].start
    assert tool.identify_read_heads(1, previous + 2) == [0]
    assert sorted(tool.identify_read_heads(1, token + 2)) == [0, 1]
    direction = torch.zeros(wired.width)
    direction[previous + 2] = 5
    assert tool.identify_read_heads(1, direction) == [0]
    assert tool.identify_read_heads(1, wired.model.subspaces["next"].start) == []


def test_write_heads_are_the_fewest_with_the_share(gpt):
    weights = head_weights(gpt, 1, fold_norms=True, dtype=torch.float64)
    amounts = torch.linalg.matrix_norm(weights.W_V @ weights.W_O).square()
    heads = WriteReadAnalyzer(gpt).identify_write_heads(1, 0.6)
    share = float(amounts[heads].sum() / amounts.sum())
    assert share >= 0.6 and share - float(amounts[heads[-1]] / amounts.sum()) < 0.6
    assert heads == amounts.argsort(descending=True)[: len(heads)].tolist()
    assert WriteReadAnalyzer(gpt).identify_write_heads(1, 1.0) == amounts.argsort(descending=True).tolist()


def test_information_flows_along_the_strongest_path(gpt):
    flow = WriteReadAnalyzer(gpt).trace_information_flow(TOKENS[:1], 1, 4, n_layers=3)
    _, cache = gpt.run_with_cache(TOKENS[:1], "pattern")
    mixed = [(cache["pattern", layer][0].detach().mean(0) + torch.eye(6)) / 2 for layer in range(3)]
    assert flow.rollout == pytest.approx(float((mixed[2] @ mixed[1] @ mixed[0])[4, 1]), rel=1e-4)
    best = max(float(mixed[0][a, 1] * mixed[1][b, a] * mixed[2][4, b]) for a in range(6) for b in range(6))
    product = 1.0
    for hop, (layer, weights) in zip(flow.path, enumerate(mixed), strict=True):
        assert hop.layer == layer
        product *= float(weights[hop.destination, hop.source])
    assert product == pytest.approx(best, rel=1e-4)
    assert flow.path[0].source == 1 and flow.path[-1].destination == 4
    nowhere = WriteReadAnalyzer(gpt).trace_information_flow(TOKENS[:1], 4, 1)
    assert nowhere.rollout == 0 and nowhere.path == ()


def test_what_does_not_exist_is_refused(gpt):
    with pytest.raises(ArgumentError, match="tokens are from 0 to 63"):
        LogitAttributor(gpt).logit_attribution(TOKENS, 64)
    with pytest.raises(ArgumentError, match="tokens are from 0 to 63"):
        LogitLens(gpt).layer_attributions(TOKENS, -1)
    with pytest.raises(ArgumentError, match="from 0 to 5"):
        LogitAttributor(gpt).track_token_circulation(TOKENS, 6)
    with pytest.raises(LayerError, match="later one"):
        ResidualTools(gpt).residual_movement(TOKENS, 1, 1)
    with pytest.raises(LayerError, match="3 is the end"):
        ResidualDecomposer(gpt).decompose_residual(TOKENS, 4)
    with pytest.raises(LayerError, match="layers with an MLP are 0, 1, 2"):
        ResidualDecomposer(gpt).mlp_basis(3)
    with pytest.raises(ArgumentError, match="neurons 0 to 127"):
        CausalTracingIntervention(gpt).intervene_on_neuron(TOKENS, 0, 128)
    with pytest.raises(ArgumentError, match="one text"):
        CausalTracingIntervention(gpt).trace_token_probability(TOKENS, 1)
    with pytest.raises(ArgumentError, match="threshold"):
        WriteReadAnalyzer(gpt).identify_write_heads(0, 0.0)
    with pytest.raises(ShapeError, match="direction"):
        WriteReadAnalyzer(gpt).identify_read_heads(0, torch.zeros(32))
