"""Direct logit attributions sum to the logit, and agree with the formula written out."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, build

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.core.hooks import hooked, run
from toumei.transformers.lenses import LogitAttribution, direct_logit_attribution
from toumei.transformers.lenses.attribution import linear_contributions

PROMPT = "w9 w3 w4 w22 w17"
WORDS = torch.tensor([[9, 3, 4, 22, 17]])
STATE_SPACE = ("mamba", "mamba2")
EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss", "qwen2_moe")


@pytest.fixture
def shaken():
    """From an architecture to a model of it whose norms and biases are random; undone at the end."""
    changed = []

    def build_shaken(kind):
        model = build(kind)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    changed.append((parameter, parameter.clone()))
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model

    yield build_shaken
    with torch.no_grad():
        for parameter, before in changed:
            parameter.copy_(before)


def logits_of(model):
    """The logits at the end, before a soft cap."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    with torch.no_grad():
        logits = model(WORDS).logits[0, -1]
    return logits if cap is None else cap * torch.atanh(logits / cap)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_parts_sum_to_the_logit_and_to_differences(kind, shaken, tokenizer):
    model = shaken(kind)
    logits = logits_of(model)
    one = direct_logit_attribution(model, tokenizer, PROMPT, "w11")
    assert float(one.contributions.sum()) == pytest.approx(float(logits[11]), rel=1e-4, abs=1e-4)
    two = direct_logit_attribution(model, tokenizer, PROMPT, "w11", "w5")
    assert float(two.contributions.sum()) == pytest.approx(float(logits[11] - logits[5]), rel=1e-4, abs=1e-4)
    assert two.logit == pytest.approx(float(logits[11] - logits[5]), rel=1e-3, abs=1e-4)
    assert two.capped == (kind == "gemma2") and ("soft cap" in repr(two)) == two.capped


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind not in STATE_SPACE])
def test_heads_tokens_and_neurons_sum_to_attention_and_mlps(kind, shaken, tokenizer):
    model = shaken(kind)
    found = direct_logit_attribution(
        model, tokenizer, PROMPT, "w11", "w5", heads=True, neurons=kind not in EXPERTS, sources=True
    )
    named = dict(zip(found.labels, found.contributions.tolist(), strict=True))
    assert found.heads.shape == (3, 4) and found.sources.shape == (3, 5)
    for layer in range(3):
        if f"attention {layer}" in named:
            assert float(found.heads[layer].sum()) == pytest.approx(named[f"attention {layer}"], abs=1e-4)
            assert float(found.sources[layer].sum()) == pytest.approx(named[f"attention {layer}"], abs=1e-4)
        else:
            assert found.heads[layer].isnan().all() and found.sources[layer].isnan().all()
        if found.neurons is not None:
            assert float(found.neurons[layer].sum()) == pytest.approx(named[f"MLP {layer}"], abs=1e-4)


def test_gpt2_by_the_formula(shaken, tokenizer):
    model = shaken("gpt2")
    body = model.transformer
    names = ["transformer.wte", "transformer.wpe"]
    names += [f"transformer.h.{layer}.{part}" for layer in range(3) for part in ("attn", "mlp")]
    names.append("transformer.h.1.attn.c_attn")
    projections = ["transformer.h.1.attn.c_proj", "transformer.h.2.mlp.c_proj"]
    with torch.no_grad(), hooked(model, projections, inputs=True) as inputs:
        outputs = run(model, WORDS, record=[*names, "transformer.h.2"], stop=False)
    x = outputs["transformer.h.2"][0, -1]
    with torch.no_grad():
        unembedding = model.lm_head.weight[11] - model.lm_head.weight[5]
        scale = (x.var(correction=0) + body.ln_f.eps).rsqrt()

        def adds(vector):
            vector = vector.detach()
            return float(((vector - vector.mean()) * scale * body.ln_f.weight.detach()) @ unembedding)

        attention, mlp = body.h[1].attn.c_proj, body.h[2].mlp.c_proj
        z, act = inputs[projections[0]][0, -1], inputs[projections[1]][0, -1]
        heads = [
            adds(z[8 * head : 8 * head + 8] @ attention.weight[8 * head : 8 * head + 8]) for head in range(4)
        ]
        neurons = [adds(act[unit] * mlp.weight[unit]) for unit in range(len(act))]
        # (query, key, value), heads, tokens, size
        q, k, v = outputs[names[-1]][0].view(5, 3, 4, 8).permute(1, 2, 0, 3)
        pattern = (q[:, -1:] @ k.transpose(1, 2) / 8**0.5).softmax(2)[:, 0]
        sources = [
            adds((pattern[:, token, None] * v[:, token]).flatten() @ attention.weight) for token in range(5)
        ]
    found = direct_logit_attribution(
        model, tokenizer, PROMPT, "w11", "w5", heads=True, neurons=True, sources=True
    )
    named = dict(zip(found.labels, found.contributions.tolist(), strict=True))
    assert named["embedding"] == pytest.approx(adds(outputs["transformer.wte"][0, -1]), abs=1e-4)
    assert named["positions"] == pytest.approx(adds(outputs["transformer.wpe"][0, -1]), abs=1e-4)
    for layer in range(3):
        for kind, part, bias in (
            ("attention", "attn", body.h[layer].attn.c_proj.bias),
            ("MLP", "mlp", body.h[layer].mlp.c_proj.bias),
        ):
            whole = adds(outputs[f"transformer.h.{layer}.{part}"][0, -1])
            assert named[f"{kind} {layer}"] + named[f"{kind} {layer} bias"] == pytest.approx(whole, abs=1e-4)
            assert named[f"{kind} {layer} bias"] == pytest.approx(adds(bias), abs=1e-4)
    assert named["final norm bias"] == pytest.approx(float(body.ln_f.bias.detach() @ unembedding), abs=1e-4)
    assert found.heads[1].tolist() == pytest.approx(heads, abs=1e-4)
    assert found.neurons[2].tolist() == pytest.approx(neurons, abs=1e-4)
    assert found.sources[1].tolist() == pytest.approx(sources, abs=1e-4)


class Adapted(torch.nn.Module):
    """As PEFT puts LoRA around a linear layer."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_A = torch.nn.Linear(self.in_features, 2, bias=False)
        self.lora_B = torch.nn.Linear(2, self.out_features, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.lora_B(self.lora_A(x)) * 2.0


@pytest.mark.parametrize("kind", ["llama", "phi", "gemma2"])
def test_adapters_belong_to_their_layers(kind, tokenizer):
    model = copy.deepcopy(build(kind))
    for block in model.model.layers:
        for outer, name in (
            (block.self_attn, "o_proj"),
            (block.self_attn, "dense"),
            (block.mlp, "down_proj"),
        ):
            if hasattr(outer, name):
                setattr(outer, name, Adapted(getattr(outer, name)))
    found = direct_logit_attribution(model, tokenizer, PROMPT, "w11", heads=True, neurons=True, sources=True)
    assert float(found.contributions.sum()) == pytest.approx(float(logits_of(model)[11]), abs=1e-4)
    named = dict(zip(found.labels, found.contributions.tolist(), strict=True))
    for layer in range(3):
        assert float(found.heads[layer].sum()) == pytest.approx(named[f"attention {layer}"], abs=1e-4)
        assert float(found.sources[layer].sum()) == pytest.approx(named[f"attention {layer}"], abs=1e-4)
        assert float(found.neurons[layer].sum()) == pytest.approx(named[f"MLP {layer}"], abs=1e-4)


def test_a_bias_of_the_head_is_a_part(shaken, tokenizer):
    model = shaken("phi")
    found = direct_logit_attribution(model, tokenizer, PROMPT, "w11", "w5")
    named = dict(zip(found.labels, found.contributions.tolist(), strict=True))
    bias = model.lm_head.bias.detach()
    assert named["unembedding bias"] == pytest.approx(float(bias[11] - bias[5]), abs=1e-6)


def test_summands_by_themselves():
    summands, direction = torch.randn(4, 6), torch.randn(6)
    assert torch.allclose(linear_contributions(summands, direction).float(), summands @ direction, atol=1e-5)
    with pytest.raises(ValueError, match=r"got \(4, 6\) and \(5,\)"):
        linear_contributions(summands, torch.randn(5))


def test_top_plots_and_files(language_model, tokenizer, tmp_path):
    found = direct_logit_attribution(
        language_model("gpt2"), tokenizer, PROMPT, "w11", "w5", heads=True, neurons=True, sources=True
    )
    best = found.top(3)
    assert [abs(value) for _, value in best] == sorted(found.contributions.abs().tolist())[:-4:-1]
    (name, value), *_ = found.top(1, of="heads")
    layer, head = map(int, name.split("."))
    assert (
        float(found.heads[layer, head]) == value == float(found.heads.flatten()[found.heads.abs().argmax()])
    )
    assert len(found.plot().patches) == len(found.labels)
    assert found.plot(of="heads").get_xlabel() == "head"
    assert len(found.plot(of="neurons", k=7).patches) == 7
    assert [text.get_text() for text in found.plot(of="sources").get_xticklabels()] == PROMPT.split()
    found.save(tmp_path / "found.safetensors")
    again = LogitAttribution.load(tmp_path / "found.safetensors")
    assert torch.equal(again.contributions, found.contributions) and torch.equal(again.heads, found.heads)
    assert str(again) == str(found) and len(repr(found)) <= 200


def last_zeroed(output):
    output[:, -1] = 0
    return output


@pytest.mark.parametrize(
    "edit", [torch.cos, lambda output: 3 * output, last_zeroed, lambda output: output + 1]
)
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp", "model.layers.1.self_attn.o_proj", "model.embed_tokens"]
)
def test_edits_count(edit, name, language_model, tokenizer):
    model = language_model("llama")
    with hooked(model, edit={name: edit}):
        found = direct_logit_attribution(model, tokenizer, PROMPT, "w11")
        edited = logits_of(model)[11]
    assert float(found.contributions.sum()) == pytest.approx(float(edited), abs=1e-4)
    assert abs(float(edited - logits_of(model)[11])) > 1e-3


def test_what_only_some_passes_add_is_refused(language_model, tokenizer):
    model = language_model("llama")
    longer = {"model.layers.1": lambda output: output + (output.shape[1] > 2) * output.cos()}
    with (
        hooked(model, edit=longer),
        pytest.raises(ArchitectureError, match=r"after 'model\.layers\.1' [\d.]+% of it are missing"),
    ):
        direct_logit_attribution(model, tokenizer, PROMPT, "w11")


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("gpt2", {"against": "w11"}, ArgumentError, "begin with the same token"),
        ("gpt2", {"answer": " "}, ArgumentError, "expected words"),
        ("gpt2", {"prompt": ""}, ArgumentError, "expected a prompt"),
        ("gpt2", {"prompt": "w1 " * 65}, ArgumentError, "65 tokens long"),
        ("mixtral", {"neurons": True}, ArchitectureError, "MLP 0 .* mixture of experts"),
        ("mamba", {"heads": True}, ArchitectureError, "no attention to split"),
    ],
)
def test_bad_input(kind, options, error, message, language_model, tokenizer):
    given = {"prompt": PROMPT, "answer": "w11", **options}
    with pytest.raises(error, match=message):
        direct_logit_attribution(language_model(kind), tokenizer, **given)


def test_what_was_not_asked_for_is_not_shown(language_model, tokenizer):
    found = direct_logit_attribution(language_model("gpt2"), tokenizer, PROMPT, "w11")
    with pytest.raises(ArgumentError, match="heads=True"):
        found.top(of="heads")
    with pytest.raises(ArgumentError, match="'parts', 'heads', 'neurons', 'sources'"):
        found.plot(of="layers")
