"""The parts of the residual stream sum to it, and are called by their names, in all kinds of blocks."""

import pytest
import torch
from architectures import ARCHITECTURES, build
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from toumei.core.errors import ArchitectureError
from toumei.core.hooks import run
from toumei.transformers.model import anatomy
from toumei.transformers.model.final_stream import residual_stream

PARALLEL = ("gptj", "codegen", "gpt_neox", "phi", "falcon")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_parts_sum_to_what_the_final_norm_takes(kind, watched):
    model = watched(build(kind))
    parts = anatomy(model)
    stream = residual_stream(parts)
    tokens = torch.tensor([[9, 3, 4, 22, 17]])
    with torch.no_grad():
        found = run(model, tokens, record=[part.name for part in stream.parts], stop=False)
        final = run(model, tokens, record=[parts.norm], inputs=True)[parts.norm][0]
    total = sum(part.factor * found[part.name].reshape(5, -1).double() for part in stream.parts)
    assert torch.allclose(total, final.double(), atol=1e-4 * float(final.abs().max()))
    with torch.no_grad():
        assert torch.equal(run(model, tokens, record=[stream.final])[stream.final].reshape(5, -1), final)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_states_between_the_parts_are_sums_of_those_before(kind, watched):
    model = watched(build(kind))
    parts = anatomy(model)
    stream = residual_stream(parts)
    tokens = torch.tensor([[9, 3, 4, 22, 17]])
    middles = [name for name in stream.middles if name]
    names = [stream.embedding, *middles, *(part.name for part in stream.parts)]
    with torch.no_grad():
        found = run(model, tokens, record=names, stop=False)
        first = run(model, tokens, record=[parts.blocks[0]], inputs=True)[parts.blocks[0]]
    assert torch.allclose(found[stream.embedding].reshape(5, -1), first[0], atol=1e-5)
    assert bool(middles) == (kind not in (*PARALLEL, "mamba", "mamba2"))
    for layer, name in enumerate(stream.middles):
        if name is not None:
            before = [
                part.factor * found[part.name].reshape(5, -1)
                for part in stream.parts
                if part.layer is None or part.layer < layer or part.label == f"attention {layer}"
            ]
            assert torch.allclose(sum(before), found[name].reshape(5, -1), atol=1e-4)


def test_parts_have_the_names_of_what_adds_them():
    labels = [part.label for part in residual_stream(anatomy(build("gpt2"))).parts]
    assert labels == [
        "embedding",
        "positions",
        *(f"{kind} {n}" for n in range(3) for kind in ("attention", "MLP")),
    ]
    mixers = [part.label for part in residual_stream(anatomy(build("jamba"))).parts]
    assert mixers[1:4] == ["mamba 0", "MLP 0", "attention 1"]
    gemma = residual_stream(anatomy(build("gemma2")))
    assert gemma.capped and gemma.factor == 1.0
    assert gemma.parts[1].norm == "model.layers.0.post_attention_layernorm"
    assert gemma.parts[1].projection == "model.layers.0.self_attn.o_proj"
    assert gemma.parts[0].factor == pytest.approx(32**0.5)


SCALES = {
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
}


@pytest.mark.parametrize(("kind", "factors"), [("granite", (3.0, 0.5, 0.25)), ("cohere", (1.0, 1.0, 0.25))])
def test_scaled_residuals_and_logits(kind, factors):
    config = AutoConfig.for_model(
        kind, vocab_size=64, pad_token_id=0, **{**ARCHITECTURES[kind], **SCALES[kind]}
    )
    stream = residual_stream(anatomy(AutoModelForCausalLM.from_config(config).eval()))
    assert (stream.parts[0].factor, stream.parts[1].factor, stream.factor) == pytest.approx(factors)


def opt(**options):
    options = {**ARCHITECTURES["opt"], **options}
    config = AutoConfig.for_model("opt", vocab_size=64, pad_token_id=0, **options)
    return anatomy(AutoModelForCausalLM.from_config(config).eval())


def test_projections_around_the_blocks():
    stream = residual_stream(opt(word_embed_proj_dim=16))
    assert stream.maps == ("model.decoder.project_out", "lm_head")
    assert stream.parts[1].name.startswith("model.decoder.project_in/")
    assert [part.label for part in stream.parts[:2]] == ["positions", "embedding"]


def test_norms_of_the_stream_itself_are_refused():
    with pytest.raises(ArchitectureError, match="final_layer_norm/layer_norm#0' .* is not linear"):
        residual_stream(opt(do_layer_norm_before=False))


class ScaledStream(nn.Module):
    """A block that multiplies the residual stream by a vector after its sum."""

    def __init__(self, block):
        super().__init__()
        self.block, self.scale = block, nn.Parameter(torch.ones(32))
        self.self_attn, self.mlp = block.self_attn, block.mlp

    def forward(self, hidden_states, **options):
        residual = hidden_states + self.self_attn(self.block.input_layernorm(hidden_states), **options)[0]
        added = self.mlp(self.block.post_attention_layernorm(residual))
        return (residual + added) * self.scale


def test_a_stream_that_is_no_sum_is_refused():
    config = AutoConfig.for_model("llama", vocab_size=64, pad_token_id=0, **ARCHITECTURES["llama"])
    model = AutoModelForCausalLM.from_config(config).eval()
    model.model.layers[1] = ScaledStream(model.model.layers[1])
    with pytest.raises(
        ArchitectureError, match=r"layers\.1/mul#0' multiplies the residual stream by a vector"
    ):
        residual_stream(anatomy(model))
