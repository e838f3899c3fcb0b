"""Configurations under the names of Arrakis build hooked models with seeded weights."""

import pytest
import torch

from toumei.core.errors import ToumeiError
from toumei.transformers import HookedAutoConfig, HookedAutoModel, HookedModel

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OPTIONS = {
    "gpt2": {},
    "gpt-neo": {"attention_types": [[["global", "local"], 1]], "intermediate_size": 24},
    "gpt-neox": {"intermediate_size": 24},
    "llama": {"intermediate_size": 24},
    "gemma": {"intermediate_size": 24, "num_key_value_heads": 2, "head_dim": 4},
    "phi3": {"intermediate_size": 24, "num_key_value_heads": 2},
    "qwen2": {"intermediate_size": 24, "num_key_value_heads": 2},
    "mistral": {"intermediate_size": 24, "num_key_value_heads": 2},
    "stable-lm": {"intermediate_size": 24, "num_key_value_heads": 2},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "bert": {"intermediate_size": 24},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_name_builds_a_model_of_the_sizes(name):
    model = HookedAutoModel(HookedAutoConfig(name=name, **SIZES, **OPTIONS[name]))
    assert isinstance(model, HookedModel)
    assert (model.layers, model.heads, model.width) == (2, 4, 16)
    logits, cache = model.run_with_cache(torch.tensor([[3, 4, 5]]), ["pattern", "z"])
    assert logits.shape == (1, 3, 64)
    assert cache["pattern", 1].shape == (1, 4, 3, 3)
    assert not any(module.training for module in model.model.modules())


def test_one_seed_makes_one_model_and_leaves_the_generators():
    config = HookedAutoConfig(name="gpt2", **SIZES)
    state = torch.get_rng_state()
    one, same, other = HookedAutoModel(config), HookedAutoModel(config), HookedAutoModel(config, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one([3, 4]), same([3, 4]))
    assert not torch.equal(one([3, 4]), other([3, 4]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lama", {}, "did you mean 'llama'"),
        ("nothing like it", {}, "no architecture"),
        (3, {}, "name of an architecture"),
        ("llama", {"hiden_size": 8}, "did you mean hidden_size"),
        ("llama", {"hidden_size": "wide"}, "refuses"),
    ],
)
def test_wrong_configurations_are_refused(name, options, message):
    with pytest.raises(ToumeiError, match=message):
        HookedAutoConfig(name=name, **options)


def test_sizes_that_do_not_fit_are_refused():
    config = {**SIZES, "num_attention_heads": 3}
    with pytest.raises(ToumeiError):
        HookedAutoModel(HookedAutoConfig(name="gpt-neo", **config, **OPTIONS["gpt-neo"]))
    with pytest.raises(ToumeiError):
        HookedAutoModel("gpt2")


def test_the_repr_is_short():
    config = HookedAutoConfig(name="gpt2", summary_type="x" * 300)
    assert len(repr(config)) <= 200
