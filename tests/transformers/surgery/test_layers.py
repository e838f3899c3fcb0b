"""Layers deleted, moved, repeated, replaced and transplanted: the network is the one with other layers."""

from copy import deepcopy

import pytest
import torch
from architectures import build
from encoders import build_encoder, inputs_of
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from toumei.core.errors import ArchitectureError, ArgumentError, EditError
from toumei.transformers import HookedModel
from toumei.transformers.surgery import (
    arrange_layers,
    delete_layers,
    permute_layers,
    prune_heads,
    repeat_layers,
    replace_layers,
    revert_surgeries,
    transplant_layers,
)

IDS = torch.tensor([[5, 9, 23, 41, 5, 17, 30], [8, 8, 12, 50, 33, 2 + 9, 7]])
FAMILIES = ["gpt2", "llama", "gpt_neox", "mistral", "gemma2", "gpt_neo", "qwen3"]


def logits_of(model):
    with torch.no_grad():
        return model(IDS).logits


def state_of(model):
    """Every object of a model, and every attribute that is a plain number.

    Whether transformers has put up hooks for hidden states is left out: it renews them when they are needed.
    """
    modules = list(model.named_modules())
    plain = {
        name: {k: v for k, v in vars(part).items() if isinstance(v, int | float) and "_hooks_" not in k}
        for name, part in modules
    }
    return modules, dict(model.named_parameters()), plain, id(model.config), dict(vars(model.config))


def same(one, other):
    parameters = all(one[1][name] is other[1][name] for name in {**one[1], **other[1]})
    return one[0] == other[0] and parameters and one[2:] == other[2:]


def tokens_after(model, use_cache):
    with torch.no_grad():
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        return model.generate(IDS, use_cache=use_cache, **options)


def smaller(kind, order):
    """A model that was built with fewer layers, which has the weights of these layers of another."""
    model = build(kind)
    config = deepcopy(model.config)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.__dict__["layer_types"] = [kinds[layer] for layer in order]
    config.num_hidden_layers = len(order)
    new = AutoModelForCausalLM.from_config(config).eval()
    blocks, others = (next(p for p in m.modules() if isinstance(p, nn.ModuleList)) for m in (new, model))
    new.load_state_dict(model.state_dict(), strict=False)
    for place, layer in enumerate(order):
        blocks[place].load_state_dict(others[layer].state_dict())
    return new


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_a_deleted_layer_gives_the_model_that_was_built_without_it(language_model, kind):
    model = language_model(kind)
    before, state = logits_of(model), state_of(model)
    for order in ([0, 2], [1]):
        with delete_layers(model, [layer for layer in range(3) if layer not in order]):
            found = logits_of(model)
            hidden = model(IDS, output_hidden_states=True).hidden_states
        assert torch.equal(found, logits_of(smaller(kind, order)))
        assert len(hidden) == len(order) + 1
    assert same(state_of(model), state) and torch.equal(logits_of(model), before)
    assert len(model(IDS, output_hidden_states=True).hidden_states) == 4
    for module in model.modules():  # of transformers, which returns hidden states by hooks
        module._forward_hooks.clear()
    model.__dict__.pop("_output_capturing_hooks_installed", None)


@pytest.mark.parametrize("kind", FAMILIES)
def test_generation_with_a_cache_is_that_without_one(language_model, kind):
    model = language_model(kind)
    whole = tokens_after(model, True)
    for surgery in (
        delete_layers(model, [0]),
        permute_layers(model, [2, 0, 1]),
        repeat_layers(model, [1], times=3),
        replace_layers(model, {0: 2}),
    ):
        with surgery:
            assert torch.equal(tokens_after(model, True), tokens_after(model, False))
    assert torch.equal(tokens_after(model, True), whole)


@pytest.mark.parametrize("kind", ["bert", "vit", "t5"])
def test_encoders_lose_layers_too(watched, kind):
    model = watched(build_encoder(kind))
    inputs = inputs_of(model)
    with torch.no_grad():
        before = model(**inputs).last_hidden_state
        with delete_layers(model, [1]):
            shorter = model(**inputs).last_hidden_state
        with delete_layers(model, [2]), delete_layers(model, [1]):
            first = model(**inputs).last_hidden_state
        after = model(**inputs).last_hidden_state
    assert torch.equal(before, after)
    assert not torch.allclose(before, shorter) and not torch.allclose(first, shorter)


def test_two_permutations_that_undo_each_other_are_the_identity(language_model):
    model = language_model("llama")
    before = logits_of(model)
    with permute_layers(model, [2, 0, 1]):
        assert not torch.allclose(logits_of(model), before)
        with permute_layers(model, [1, 2, 0]):
            assert torch.equal(logits_of(model), before)


def test_a_repeated_layer_is_a_second_pass_through_it(language_model):
    model = language_model("gpt2")
    block = model.transformer.h[1]

    def again(module, args, output):
        return block.forward(output)

    with repeat_layers(model, [1]):
        found = logits_of(model)
        assert model.transformer.h[2].attn.c_attn.weight is block.attn.c_attn.weight
    handle = block.register_forward_hook(again)
    expected = logits_of(model)
    handle.remove()
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_hooked_model_sees_the_layers_and_heads_of_each_surgery(language_model):
    model = language_model("llama")
    hooked = HookedModel(model)

    def sizes():
        found = hooked.run_with_cache(IDS, ["resid_post", "q"])[1]
        streams = [one for one in found if one.endswith("resid_post")]
        return len(streams), found["q", 0].shape[2], hooked.points.layers

    assert sizes() == (3, 4, 3)
    with delete_layers(model, [0]):
        assert sizes() == (2, 4, 2)
        last = hooked.run_with_cache(IDS, [("resid_post", 1)])[1]["resid_post", 1]
        assert torch.equal(model.lm_head(model.model.norm(last)), logits_of(model))
        with repeat_layers(model, [0]):
            assert sizes() == (3, 4, 3)
        with prune_heads(model, {0: [0, 1]}):
            assert sizes() == (2, 2, 2)
        assert sizes() == (2, 4, 2)
    assert sizes() == (3, 4, 3)


def test_a_hooked_model_names_the_way_out(language_model):
    with pytest.raises(ArgumentError, match="got HookedModel: give its .model"):
        delete_layers(HookedModel(language_model("gpt2")), [1])


def test_a_module_of_the_user_takes_the_place_of_a_layer(language_model):
    class Double(nn.Module):
        def forward(self, stream, *args, **kwargs):
            return 2 * stream

    model = language_model("gpt2")
    with replace_layers(model, {2: Double()}):
        doubled = logits_of(model)
    with delete_layers(model, [2]):  # the norm takes off the factor, but for its epsilon
        assert torch.allclose(doubled, logits_of(model), atol=1e-3)


def test_a_transplanted_layer_is_the_donors(language_model):
    model = language_model("llama")
    torch.manual_seed(3)
    donor = AutoModelForCausalLM.from_config(deepcopy(model.config)).eval()
    weights = {name: one.clone() for name, one in donor.state_dict().items()}
    with transplant_layers(model, donor, {1: 2}):
        found, moved = logits_of(model), model.model.layers[1]
        assert torch.equal(tokens_after(model, True), tokens_after(model, False))
        assert moved.self_attn.layer_idx == 1 and donor.model.layers[2].self_attn.layer_idx == 2
    mixed = deepcopy(model)
    mixed.model.layers[1].load_state_dict(donor.model.layers[2].state_dict())
    assert torch.equal(found, logits_of(mixed))
    assert all(torch.equal(one, weights[name]) for name, one in donor.state_dict().items())


def test_the_model_is_given_back_after_errors_and_interrupts(language_model):
    model = language_model("llama")
    before, state = logits_of(model), state_of(model)
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), delete_layers(model, [0]), prune_heads(model, {1: [0, 1]}):
            raise error
        assert same(state_of(model), state) and torch.equal(logits_of(model), before)


def test_a_surgery_stays_until_it_is_reverted(language_model):
    model = language_model("gpt2")
    before, state = logits_of(model), state_of(model)
    first = delete_layers(model, [1]).apply()
    second = delete_layers(model, [1])  # of the two that are left
    assert first.applied and not second.applied and "not applied" in repr(second)
    second.apply()
    assert model.config.num_hidden_layers == model.config.n_layer == 1
    with pytest.raises(EditError, match="came later"):
        first.revert()
    with pytest.raises(EditError, match="applied already"):
        second.apply()
    second.revert()
    with pytest.raises(EditError, match="nothing to revert"):
        second.revert()
    delete_layers(model, [0]).apply()
    revert_surgeries(model)
    assert same(state_of(model), state) and torch.equal(logits_of(model), before)


def test_a_config_that_two_models_share_stays_as_it_is():
    config = AutoConfig.for_model("gpt2", n_embd=8, n_layer=2, n_head=2, vocab_size=20, n_positions=16)
    one, other = (AutoModelForCausalLM.from_config(config) for _ in range(2))
    one.config = other.config
    with delete_layers(one, [0]):
        assert other.config.n_layer == 2 and one.config.n_layer == 1
        other(IDS[:, :4] % 20)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: delete_layers(model, [3]), "no layer 3 .* 0 to 2"),
        (lambda model: delete_layers(model, [-1]), "no layer -1"),
        (lambda model: delete_layers(model, [1, 1]), "layer 1 is given twice"),
        (lambda model: delete_layers(model, []), "got none"),
        (lambda model: delete_layers(model, [0, 1, 2]), r"all layers \(3\)"),
        (lambda model: permute_layers(model, [0, 1]), "layer 2 missing"),
        (lambda model: permute_layers(model, [0, 1, 1]), "given twice"),
        (lambda model: repeat_layers(model, [0], times=0), "times"),
        (lambda model: arrange_layers(model, []), "at least one"),
        (lambda model: replace_layers(model, {}), "got none"),
        (lambda model: replace_layers(model, {0: "a"}), "module or another layer"),
        (lambda model: replace_layers(model, {0: 7}), "no layer 7"),
        (lambda model: transplant_layers(model, model, {0: 9}), "no layer 9"),
    ],
)
def test_layers_that_are_not_there(language_model, make, message):
    with pytest.raises(ArgumentError, match=message):
        make(language_model("llama"))


def test_models_that_do_not_fit(language_model):
    llama = language_model("llama")
    with pytest.raises(EditError, match="GPT2Block"):
        transplant_layers(llama, language_model("gpt2"), {0: 0})
    config = deepcopy(llama.config)
    config.intermediate_size = 40
    other = AutoModelForCausalLM.from_config(config)
    with pytest.raises(EditError, match=r"mlp.gate_proj.weight: .*\(48, 32\), .*\(40, 32\)"):
        transplant_layers(llama, other, {0: 0})
    gemma = language_model("gemma2")
    with pytest.raises(EditError, match="sliding_window|layer_types"):
        transplant_layers(gemma, gemma, {0: 1})
    with pytest.raises(EditError, match="several kinds"):
        delete_layers(language_model("jamba"), [0])
    with pytest.raises(ArchitectureError, match="no blocks"):
        delete_layers(nn.Linear(2, 2), [0])
    before = logits_of(llama)
    with pytest.raises(EditError, match="cannot be run after replace layer 1"):
        replace_layers(llama, {1: nn.Linear(5, 5)}).apply()
    assert torch.equal(logits_of(llama), before)
