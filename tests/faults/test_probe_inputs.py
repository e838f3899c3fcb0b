"""A trial pass takes inputs that prove something, also where token 0 is the padding token."""

import pytest
import torch
import transformers
from torch import nn

from toumei.core.errors import ArchitectureError
from toumei.transformers import RankOneEditor, anatomy
from toumei.transformers.rome.editing.keys import check_unscaled

CHANGED = {
    "Gemma2": {"head_dim": 8},
    "Gemma3": {"head_dim": 8},
    "Olmo2": {},
    "Granite": {"residual_multiplier": 0.3},
}
AS_IT_IS = {
    "Llama": {},
    "Mistral": {},
    "Qwen2": {},
    "Gemma": {"head_dim": 8},
    "Granite": {"residual_multiplier": 1.0},
}


def model_of(kind, padding, **options):
    torch.manual_seed(0)
    text = f"{kind}TextConfig"  # Gemma 3 takes pictures too, and has another config for texts
    config = getattr(transformers, text if hasattr(transformers, text) else f"{kind}Config")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    made = config(vocab_size=50, pad_token_id=padding, initializer_range=0.2, **sizes, **heads, **options)
    return getattr(transformers, f"{kind}ForCausalLM")(made).eval()


@pytest.mark.parametrize("padding", [None, 0, 3, 49])
@pytest.mark.parametrize("kind", CHANGED)
def test_an_mlp_whose_output_is_changed_is_found_out(kind, padding):
    parts = anatomy(model_of(kind, padding, **CHANGED[kind]))
    for layer in range(3):
        with pytest.raises(ArchitectureError, match="changes its MLP's output"):
            check_unscaled(parts, layer)


@pytest.mark.parametrize("padding", [None, 0, 49])
@pytest.mark.parametrize("kind", AS_IT_IS)
def test_an_mlp_that_joins_the_stream_as_it_is_is_accepted(kind, padding):
    parts = anatomy(model_of(kind, padding, **AS_IT_IS[kind]))
    for layer in range(3):
        check_unscaled(parts, layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_holds_in_low_precision_and_for_mlps_that_add_nothing_yet(dtype):
    for kind, fails in (("Gemma2", True), ("Llama", False)):
        model = model_of(kind, 0, **CHANGED.get(kind, {}))
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight.zero_()
        parts = anatomy(model.to(dtype))
        if fails:
            with pytest.raises(ArchitectureError):
                check_unscaled(parts, 1)
        else:
            check_unscaled(parts, 1)


def test_trial_tokens_have_embeddings():
    for padding in (None, 0, 1):
        model = model_of("Llama", padding)
        with torch.no_grad():
            model.model.embed_tokens.weight[:2] = 0.0
        tokens = anatomy(model).two_tokens
        assert tokens.shape == (1, 2) and tokens[0, 0] != tokens[0, 1] and padding not in tokens[0].tolist()
        assert model.model.embed_tokens(tokens).abs().sum(-1).all()


def test_a_model_of_zeros_has_trial_tokens_all_the_same():
    model = model_of("Llama", 0)
    nn.init.zeros_(model.model.embed_tokens.weight)
    assert anatomy(model).two_tokens.shape == (1, 2)


def test_methods_that_spread_a_change_are_refused_before_anything_is_sampled(monkeypatch):
    model = model_of("Gemma2", 0, **CHANGED["Gemma2"])
    monkeypatch.setattr(model, "generate", None)
    with pytest.raises(ArchitectureError, match="take 'rome' or 'r-rome'"):
        RankOneEditor(model, tokenizer=lambda text: text).edit_many([("{} a", "b", "c")], layers=[1])
