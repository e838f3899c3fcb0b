"""Heads and neurons that are cut out of the weights, copied and merged."""

import pytest
import torch
from encoders import build_encoder, inputs_of

from toumei.core.errors import ArchitectureError, ArgumentError, EditError, LayerError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel
from toumei.transformers.surgery import copy_heads, delete_layers, merge_heads, prune_heads, prune_neurons
from toumei.transformers.surgery.heads import nearest_sum

IDS = torch.tensor([[5, 9, 23, 41, 5, 17, 30], [8, 8, 12, 50, 33, 11, 7]])


def logits_of(model):
    with torch.no_grad():
        return model(IDS).logits


def zeroed(model, name, places, axis):
    hooked = HookedModel(model)
    edit = {name: lambda tensor: tensor.index_fill(axis, torch.tensor(places), 0)}
    with torch.no_grad(), hooked.edit(edit):
        return hooked(IDS)


@pytest.mark.parametrize(
    ("kind", "heads"),
    [("gpt2", [2]), ("gpt2", [0, 3]), ("llama", [0, 1]), ("llama", [1, 2]), ("gpt_neox", [1]), ("opt", [3])],
)
def test_a_pruned_head_is_a_zero_in_its_place(language_model, kind, heads):
    model = language_model(kind)
    before, expected = logits_of(model), zeroed(model, ("z", 1), heads, -2)
    count = sum(one.numel() for one in model.parameters())
    with prune_heads(model, {1: heads}):
        found, fewer = logits_of(model), sum(one.numel() for one in model.parameters())
        options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
        with_cache, without = (model.generate(IDS, use_cache=use, **options) for use in (True, False))
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, before, atol=1e-2)
    assert torch.equal(with_cache, without)
    assert fewer < count and torch.equal(logits_of(model), before)


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_heads_and_neurons_of_encoders(watched, kind):
    model = watched(build_encoder(kind))
    inputs, hooked = inputs_of(model), HookedModel(model)
    with torch.no_grad():
        with hooked.edit({("z", 0): lambda z: z.index_fill(2, torch.tensor([1]), 0)}):
            expected = model(**inputs).last_hidden_state
        with prune_heads(model, {0: [1]}):
            found = model(**inputs).last_hidden_state
        with hooked.edit({("post", 2): lambda post: post.index_fill(2, torch.tensor([1, 5]), 0)}):
            without = model(**inputs).last_hidden_state
        with prune_neurons(model, {2: [5, 1]}):
            pruned = model(**inputs).last_hidden_state
    assert torch.allclose(found, expected, atol=1e-5) and torch.allclose(pruned, without, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "phi3"])
def test_a_pruned_neuron_is_a_zero_in_its_place(language_model, kind):
    model = language_model(kind)
    before, expected = logits_of(model), zeroed(model, ("post", 0), [3, 7, 30], -1)
    with prune_neurons(model, {0: [3, 7, 30]}):
        assert torch.allclose(logits_of(model), expected, atol=1e-5)
    assert torch.equal(logits_of(model), before) and not torch.allclose(before, expected, atol=1e-2)


def test_a_copied_head_does_what_the_other_does(watched):
    model = watched(InductionTransformer(vocabulary=8, positions=12))
    tokens = torch.tensor([[0, 3, 1, 4, 3]])
    with torch.no_grad(), copy_heads(model, {(1, 1): (1, 0)}):
        cache = HookedModel(model).run_with_cache(tokens)[1]
        assert torch.equal(cache["pattern", 1][:, 0], cache["pattern", 1][:, 1])
        assert torch.equal(cache["result", 1][:, :, 0], cache["result", 1][:, :, 1])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox"])
def test_heads_that_change_places_change_nothing(language_model, kind):
    model = language_model(kind)
    before = logits_of(model)
    with copy_heads(model, {(1, 0): (1, 1), (1, 1): (1, 0)}):  # of llama groups
        assert torch.allclose(logits_of(model), before, atol=1e-5)
        assert not torch.equal(logits_of(model), before) or kind == "llama"
    with copy_heads(model, {(1, 0): (0, 1)}, donor=model):
        assert not torch.allclose(logits_of(model), before, atol=1e-2)


def test_heads_that_attend_alike_merge_without_loss(language_model):
    model = language_model("llama")  # heads 0 and 1 share keys and values
    query = model.model.layers[1].self_attn.q_proj.weight
    kept = query.detach().clone()
    try:
        with torch.no_grad():
            query[8:16] = query[:8]
        before = logits_of(model)
        with merge_heads(model, 1, 0, 1):
            assert torch.allclose(logits_of(model), before, atol=1e-5)
            alone = zeroed(model, ("z", 1), [1], -2)
            assert torch.allclose(logits_of(model), alone, atol=1e-5)
    finally:
        with torch.no_grad():
            query.copy_(kept)


def test_the_merged_map_is_the_best_of_its_rank():
    draw = torch.Generator().manual_seed(0)
    read = [torch.randn(9, 3, generator=draw) for _ in range(2)]
    written = [torch.randn(3, 9, generator=draw) for _ in range(2)]
    total = read[0] @ written[0] + read[1] @ written[1]
    A, B = nearest_sum(read, written)
    rest = torch.linalg.svdvals(total)[3:].square().sum().sqrt()
    assert A.shape == (9, 3) and torch.allclose((total - A @ B).norm(), rest, atol=1e-4)


def test_a_merged_head_of_gpt2_writes_both_maps(language_model):
    model = language_model("gpt2")
    layer = model.transformer.h[1].attn
    with merge_heads(model, 1, 2, 0):
        assert not layer.c_proj.weight[:8].any() and layer.c_proj.weight[16:24].any()
        assert torch.equal(logits_of(model), logits_of(model))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda model: prune_heads(model, {}), ArgumentError, "got none"),
        (lambda model: prune_heads(model, {0: [4]}), ArgumentError, "heads 0 to 3, got 4"),
        (lambda model: prune_heads(model, {0: [1, 1]}), ArgumentError, "different heads"),
        (lambda model: prune_heads(model, {0: [0, 1, 2, 3]}), ArgumentError, "leave one"),
        (lambda model: prune_heads(model, {0: [1]}), ArgumentError, "as many heads of each group"),
        (lambda model: prune_heads(model, {7: [1]}), LayerError, "layer 7"),
        (lambda model: merge_heads(model, 0, 1, 1), ArgumentError, "different heads"),
        (lambda model: merge_heads(model, 0, 1, 2), ArgumentError, "one group"),
        (lambda model: copy_heads(model, {(0, 3): (0, 0)}), ArgumentError, "groups of heads 0 to 1, got 3"),
        (lambda model: copy_heads(model, {0: 1}), ArgumentError, "a tuple"),
        (lambda model: copy_heads(model, {}), ArgumentError, "got none"),
        (lambda model: prune_neurons(model, {}), ArgumentError, "got none"),
        (lambda model: prune_neurons(model, {0: [48]}), ArgumentError, "neurons 0 to 47, got 48"),
        (lambda model: prune_neurons(model, {0: [2, 2]}), ArgumentError, "different neurons"),
        (lambda model: prune_neurons(model, {0: range(48)}), ArgumentError, "leave one"),
        (lambda model: prune_neurons(model, {3: [0]}), LayerError, "0 to 2, got 3"),
    ],
)
def test_parts_that_are_not_there(language_model, make, error, message):
    with pytest.raises(error, match=message):
        make(language_model("llama"))


def test_models_whose_parts_cannot_be_cut_out(language_model):
    phi3 = language_model("phi3")
    before = logits_of(phi3)
    with pytest.raises(EditError, match="HookedModel.edit"):
        prune_heads(phi3, {0: [0, 1]}).apply()
    assert torch.equal(logits_of(phi3), before)
    with pytest.raises(ArchitectureError, match="experts"):
        prune_neurons(language_model("mixtral"), {0: [1]})
    with pytest.raises(EditError, match="do not fit"):
        copy_heads(language_model("llama"), {(0, 0): (0, 0)}, donor=language_model("gpt_neox"))


def test_surgeries_count_what_is_left(language_model):
    model = language_model("gpt2")
    later = prune_heads(model, {2: [0]})
    with delete_layers(model, [0]), pytest.raises(LayerError, match="layer 2"):
        later.apply()
