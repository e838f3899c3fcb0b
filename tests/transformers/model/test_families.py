"""Where the parts of an architecture are: what they compute says so, not their names."""

import pytest
import torch
from architectures import ARCHITECTURES, KNOWN, SEARCHED, build
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, OPTConfig, OPTForCausalLM

from toumei.core import run
from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers.model import families
from toumei.transformers.model.blockwise import BlockwiseRunner
from toumei.transformers.model.families import FAMILIES, Family, anatomy

IDS = torch.tensor([[3, 5, 7, 11, 4]])
STATE_SPACE = {"mamba", "mamba2"}
EXPERTS = {"mixtral", "qwen3_moe", "gpt_oss", "qwen2_moe"}
# These normalize or scale what attention and MLP return before they add it.
SCALED = {"gemma2", "gemma3_text", "olmo2", "exaone4", "granite"}


def test_every_row_has_a_fixture_and_at_least_twenty_architectures_are_tested():
    assert set(FAMILIES) == set(KNOWN)
    assert not set(FAMILIES) & set(SEARCHED)
    assert len(ARCHITECTURES) >= 20


@pytest.mark.parametrize("kind", sorted(set(ARCHITECTURES) - STATE_SPACE - SCALED - {"jamba"}))
def test_a_block_adds_what_its_attention_and_mlp_return(language_model, kind):
    parts = anatomy(language_model(kind))
    names = [*parts.blocks, *parts.attentions, *parts.mlps]
    with torch.no_grad():
        found = run(parts.model, IDS, record=names)
    for layer in range(1, parts.layers):
        added = found[parts.attention(layer)] + found[parts.mlp(layer)].reshape(1, 5, -1)
        before = found[parts.block(layer - 1)]
        torch.testing.assert_close(found[parts.block(layer)], before + added, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(set(ARCHITECTURES) - STATE_SPACE - EXPERTS))
def test_the_orientation_of_the_down_projection_is_what_it_computes(language_model, kind):
    parts = anatomy(language_model(kind))
    for layer in range(parts.layers):
        down = parts.module(parts.down(layer))
        weight = down.weight.T if parts.keys_first(layer) else down.weight
        keys = torch.randn(2, weight.shape[1], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(down(keys), F.linear(keys, weight, down.bias))
        assert weight.shape[0] == parts.width


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_norm_and_head_turn_the_last_block_into_logits(language_model, kind):
    parts = anatomy(language_model(kind))
    with torch.no_grad():
        found = run(parts.model, IDS, record=[parts.embedding, parts.blocks[-1], parts.norm, parts.head, ""])
        last = found[parts.blocks[-1]]
        torch.testing.assert_close(parts.module(parts.norm)(last), found[parts.norm])
        torch.testing.assert_close(parts.module(parts.head)(found[parts.norm]), found[parts.head])
        assert found[parts.embedding].shape == last.shape == (1, 5, parts.width)
        logits = BlockwiseRunner(parts).logits(last[:, -1], IDS[:, -1:])
        torch.testing.assert_close(logits, found[""][:, -1])


# Bloom's attention returns the sum with the residual stream: only its row knows where it is added.
@pytest.mark.parametrize("kind", sorted(set(KNOWN) - {"bloom"}))
def test_the_search_finds_what_the_rows_say(language_model, kind, monkeypatch):
    model = language_model(kind)
    known = anatomy(model)
    monkeypatch.setattr(families, "FAMILIES", {})
    searched = anatomy(model)
    assert known.known and not searched.known
    for part in ("embedding", "blocks", "attentions", "mlps", "downs", "norm", "head", "width"):
        assert getattr(searched, part) == getattr(known, part), part


def test_experts_and_state_spaces_say_why_they_have_no_down_projection(language_model):
    for kind in EXPERTS:
        with pytest.raises(ArchitectureError, match=f"{kind}.*no single down-projection.*mixture of experts"):
            anatomy(language_model(kind)).down(0)
    with pytest.raises(ArchitectureError, match=r"mamba.*no MLP.*state-space mixer"):
        anatomy(language_model("mamba")).mlp(0)
    jamba = anatomy(language_model("jamba"))
    assert jamba.down(0) == "model.layers.0.feed_forward.down_proj"
    assert jamba.attention(1) == "model.layers.1.self_attn"
    with pytest.raises(ArchitectureError, match=r"layer 0 .*jamba.* no attention: .*state-space mixer"):
        jamba.attention(0)


def test_a_model_of_attention_alone_says_so(watched):
    model = watched(InductionTransformer(vocabulary=12, positions=8))
    parts = anatomy(model)
    assert parts.attentions == ("model.layers.0.self_attn", "model.layers.1.self_attn")
    assert parts.norm is None and parts.head == "lm_head" and parts.positions == 8
    with pytest.raises(ArchitectureError, match="induction.* has no MLP: it has attention only"):
        parts.mlp(0)
    with torch.no_grad():
        found = run(model, IDS, record=[parts.blocks[-1], ""])
        logits = BlockwiseRunner(parts).logits(found[parts.blocks[-1]][:, -1], IDS[:, -1:])
    torch.testing.assert_close(logits, found[""][:, -1])


@pytest.mark.parametrize("layer", [3, -1, 1.0])
def test_a_layer_out_of_range_says_how_many_there_are(language_model, layer):
    parts = anatomy(language_model("gpt2"))
    for part in (parts.block, parts.attention, parts.mlp, parts.down):
        with pytest.raises(ArgumentError, match=r"no layer .* in GPT2LMHeadModel: it has 3 layers, 0 to 2"):
            part(layer)


def test_a_row_that_does_not_fit_says_what_was_looked_for(language_model, monkeypatch):
    def set_row(mlp, down):
        row = Family("transformer.wte", "transformer.h", "attn", mlp, down, "transformer.ln_f")
        monkeypatch.setitem(FAMILIES, "gpt2", row)

    set_row("mlp", "mlp.out")
    with pytest.raises(ArchitectureError, match=r"'gpt2' in FAMILIES .*no layer 'transformer.h.0.mlp.out'"):
        anatomy(language_model("gpt2"))
    set_row("mlp", "mlp.c_fc")
    with pytest.raises(ArchitectureError, match=r"should map to 32 values"):
        anatomy(language_model("gpt2"))
    set_row("mlp.c_fc", None)
    with pytest.raises(ArchitectureError, match=r"should return \(1, 2, 32\).* returns \(1, 2, 128\)"):
        anatomy(language_model("gpt2"))


def test_what_is_no_language_model_is_refused():
    with pytest.raises(ArchitectureError, match="no blocks found in Sequential.*found no ModuleList"):
        anatomy(nn.Sequential(nn.Linear(2, 2)))
    headless = AutoModel.from_config(build("granite").config)
    with pytest.raises(ArchitectureError, match="no head found in GraniteModel"):
        anatomy(headless)


def test_a_model_without_a_final_norm(watched):
    config = OPTConfig(
        hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=20,
        word_embed_proj_dim=16, do_layer_norm_before=False, max_position_embeddings=16,
    )  # fmt: skip
    parts = anatomy(watched(OPTForCausalLM(config)))
    assert parts.norm is None and parts.down(1) == "model.decoder.layers.1.fc2"


def test_texts_longer_than_the_learned_positions_are_refused(language_model):
    with pytest.raises(ArgumentError, match="'too long' is 65 tokens long, GPT2LMHeadModel reads at most 64"):
        anatomy(language_model("gpt2")).check_length(65, "too long")
    anatomy(language_model("llama")).check_length(65, "positions are computed")


def test_half_precision_and_tied_heads(language_model):
    model = language_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert anatomy(model).head == "lm_head"
    half = type(model)(model.config).to(torch.bfloat16)
    assert repr(anatomy(half)) == "Anatomy(gpt2, known: 3 layers of width 32)"
    assert half.training


def test_a_block_that_two_layers_share_is_refused(watched):
    """Its two runs cannot be told apart by the name of the module."""
    model = type(build("gpt2"))(build("gpt2").config)
    model.transformer.h[2] = model.transformer.h[0]
    with pytest.raises(ArchitectureError, match=r"h\.0' runs 2 times in one pass; .*shared between layers"):
        anatomy(watched(model))
