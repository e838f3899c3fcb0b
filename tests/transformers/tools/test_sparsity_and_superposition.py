"""Arrakis' tools of sparsity and superposition against plain restatements."""

import pytest
import torch
from architectures import build

from toumei.core.errors import ArgumentError
from toumei.transformers import HookedModel
from toumei.transformers.features import SparseAutoencoder
from toumei.transformers.tools import SparsityAnalyzer, SuperpositionDisentangler

TOKENS = [torch.tensor([[5, 9, 33, 21, 9, 2], [7, 7, 12, 60, 3, 22]]), torch.tensor([[1, 2, 3]])]
KEY = ("post", 1)


@pytest.fixture
def model(watched):
    return HookedModel(watched(build("gpt2")))


def values(model, key):
    with torch.no_grad():
        return torch.cat([model.activations(one, key)[key].flatten(0, 1) for one in TOKENS])


def test_sparsity_is_a_share_and_rates_are_its_parts(model):
    tool, post = SparsityAnalyzer(model), values(model, KEY)
    assert tool.compute_activation_sparsity(TOKENS, KEY) == pytest.approx(float((post <= 0).float().mean()))
    rates = tool.firing_rates(TOKENS, KEY)
    torch.testing.assert_close(rates, (post > 0).float().mean(0))
    dead = [unit for unit in range(post.shape[1]) if not bool((post[:, unit] > 0).any())]
    assert list(tool.dead_neurons(TOKENS, KEY)) == dead
    with pytest.raises(ArgumentError, match="names 3"):
        tool.firing_rates(TOKENS, "post")
    for wrong in ([], "text"):
        with pytest.raises(ArgumentError, match="list of texts|sequence"):
            tool.firing_rates(wrong, KEY)


def test_pruning_keeps_the_model_and_is_undone(model):
    tool, inner = SparsityAnalyzer(model), model.model
    before = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    plain = model(TOKENS[0])
    with tool.prune_network(0.3):
        pruned = model(TOKENS[0])
        for name, tensor in inner.named_parameters():
            changed = (tensor != before[name]).sum()
            inside = tensor.dim() == 2 and ".h." in name
            assert int((tensor == 0).sum()) >= int(0.3 * tensor.numel()) if inside else not bool(changed), (
                name
            )
            if inside:  # the smallest ones are gone
                gone = tensor != before[name]
                assert before[name][gone].abs().max() <= before[name][~gone].abs().min()
    assert not torch.equal(pruned, plain) and torch.equal(model(TOKENS[0]), plain)
    with tool.prune_network(0.0):
        assert torch.equal(model(TOKENS[0]), plain)
    with pytest.raises(ZeroDivisionError), tool.prune_network(0.9):
        raise ZeroDivisionError
    assert all(torch.equal(tensor, before[name]) for name, tensor in inner.state_dict().items())
    with pytest.raises(ArgumentError), tool.prune_network(1.0):
        pass


def test_a_neuron_that_three_features_share_is_found(model):
    directions = torch.zeros(4, 5)
    directions[:3, 2], directions[3, 4], directions[:2, 0] = 1.0, 5.0, -2.0
    found = SparsityAnalyzer(model).find_polysemantic_neurons(
        SparseAutoencoder.of_directions(directions), 1.5
    )
    assert found.neurons == (2, 0) and found.features.tolist() == [3.0, 2.0]


def test_the_covariance_is_over_channels(model):
    tool, out = SuperpositionDisentangler(model), values(model, ("mlp_out", 1)).double()
    centred = out - out.mean(0)
    found = tool.compute_activation_covariance(TOKENS, ("mlp_out", 1))
    torch.testing.assert_close(found, centred.T @ centred / (len(out) - 1))


def test_principal_components_are_those_of_the_singular_values(model):
    out = values(model, ("mlp_out", 1)).double()
    tool = SuperpositionDisentangler(model)
    found = tool.disentangle_superposition(TOKENS, ("mlp_out", 1), 4)
    centred = out - out.mean(0)
    singular = torch.linalg.svdvals(centred)
    assert found.unexplained == pytest.approx(
        float(singular[4:].square().sum() / singular.square().sum()), rel=1e-4
    )
    coordinates = found.project(out)
    torch.testing.assert_close(coordinates.var(0), singular[:4].square() / 14, rtol=1e-4, atol=1e-8)
    assert float(found.interference().max()) < 1e-10
    middle = found.interpolate(out[0], out[1], 0.25)
    expected = 0.75 * found.reconstruct(coordinates[0]) + 0.25 * found.reconstruct(coordinates[1])
    torch.testing.assert_close(middle, expected)
    whole = tool.disentangle_superposition(TOKENS, ("mlp_out", 1), 14)
    torch.testing.assert_close(whole.reconstruct(whole.project(out)), out, atol=1e-5, rtol=1e-4)
    with pytest.raises(ArgumentError, match="at most 15"):
        tool.disentangle_superposition(TOKENS, ("mlp_out", 1), 16)


@pytest.mark.parametrize("method", ["ica", "dictionary"])
def test_known_sources_are_found(model, monkeypatch, method):
    """ICA finds as many sources as there are dimensions, a dictionary more."""
    from toumei.transformers.features import SyntheticFeatures, match_features
    from toumei.transformers.tools import superposition_disentangler as module

    count = 6 if method == "ica" else 9
    world = SyntheticFeatures(features=count, width=6, active=1.0)
    monkeypatch.setattr(module, "activations_of", lambda *_: [world.sample(4000)[0]])
    tool = SuperpositionDisentangler(model)
    found = tool.disentangle_superposition(TOKENS, KEY, count, method=method, active=1, passes=10)
    known = world.directions if method == "dictionary" else torch.cat([world.directions])
    directions = torch.cat([found.directions, -found.directions])  # ICA does not know signs
    assert match_features(directions, known).mean > 0.95
    again = found.reconstruct(found.project(world.sample(50, seed=3)[0]))
    assert again.shape == (50, 6)


def test_what_cannot_be_taken_apart_is_refused(model):
    tool = SuperpositionDisentangler(model)
    for wrong in ({"method": "nmf"}, {"n_components": 0}, {"seed": "x"}):
        with pytest.raises(ArgumentError):
            tool.disentangle_superposition(TOKENS, KEY, **{"n_components": 2, **wrong})
    with pytest.raises(ArgumentError, match="two tokens"):
        tool.compute_activation_covariance([torch.tensor([[3]])], KEY)
