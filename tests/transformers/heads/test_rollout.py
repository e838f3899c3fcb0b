"""Rollout against a sum over paths, flow against networkx and against cuts."""

from itertools import combinations, product

import networkx as nx
import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers.heads import attention_flow, attention_rollout


def random_layers(depth, tokens, batch=1, heads=2, causal=True, seed=0):
    scores = torch.randn(depth, batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    if causal:
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1) == 1, -torch.inf)
    return scores.softmax(-1)


def mixed(layers, text=0):
    return layers[:, text].double().mean(1) / 2 + torch.eye(layers.shape[-1]).double() / 2


@pytest.mark.parametrize("causal", [True, False])
def test_rollout_is_the_sum_over_all_paths(causal):
    layers = random_layers(3, 4, causal=causal)
    weights = mixed(layers)
    expected = torch.zeros(4, 4).double()
    for path in product(range(4), repeat=4):  # from the output down to the input
        expected[path[0], path[-1]] += torch.stack(
            [weights[2 - step, path[step], path[step + 1]] for step in range(3)]
        ).prod()
    found = attention_rollout(layers)[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(4).double())


def test_rollout_of_the_previous_token_steps_back():
    """Each of three layers keeps a token or takes the previous one: binomial numbers over 8."""
    step = torch.eye(5).roll(-1, 1)
    step[0] = torch.eye(5)[0]
    found = attention_rollout([step[None, None]] * 3)[0]
    assert found[4].tolist() == [0, 1 / 8, 3 / 8, 3 / 8, 1 / 8]


@pytest.mark.parametrize("causal", [True, False])
def test_flow_is_that_of_networkx(causal):
    layers = random_layers(3, 5, causal=causal)
    weights = mixed(layers)
    graph = nx.DiGraph()
    for layer, query, key in product(range(3), range(5), range(5)):
        graph.add_edge((layer + 1, query), (layer, key), capacity=float(weights[layer, query, key]))
    found = attention_flow(layers, verbose=False)[0]
    for query, key in product(range(5), range(5)):
        expected = nx.maximum_flow_value(graph, (3, query), (0, key))
        assert float(found[query, key]) == pytest.approx(expected, abs=1e-6)


def test_flow_is_the_smallest_cut():
    layers = random_layers(2, 3, causal=False)
    weights = mixed(layers)
    nodes = [(layer, token) for layer in range(3) for token in range(3)]
    found = attention_flow(layers, verbose=False)[0]
    for query, key in product(range(3), range(3)):
        others = [node for node in nodes if node not in ((2, query), (0, key))]
        cuts = []
        for size in range(len(others) + 1):
            for chosen in combinations(others, size):
                side = {(2, query), *chosen}
                cuts.append(
                    sum(
                        float(weights[layer, q, k])
                        for layer, q, k in product(range(2), range(3), range(3))
                        if (layer + 1, q) in side and (layer, k) not in side
                    )
                )
        assert float(found[query, key]) == pytest.approx(min(cuts), abs=1e-6)


def test_one_layer_flows_as_it_rolls_out():
    layers = random_layers(1, 4)
    torch.testing.assert_close(
        attention_flow(layers, verbose=False), attention_rollout(layers), atol=1e-8, rtol=0
    )


def test_a_flow_is_at_least_what_rolls_out():
    layers = random_layers(3, 5, batch=2)
    assert bool((attention_flow(layers, verbose=False) >= attention_rollout(layers) - 1e-6).all())


def test_positions_are_rows_of_the_whole():
    layers = random_layers(2, 4, batch=2)
    whole = attention_flow(layers, verbose=False)
    assert torch.equal(attention_flow(layers, positions=[-1, 1], verbose=False), whole[:, [3, 1]])
    with pytest.raises(ArgumentError, match="positions are from -4 to 3, got 4"):
        attention_flow(layers, positions=[4], verbose=False)


def test_without_the_first_token_the_rest_is_as_if_the_text_began_there():
    layers = random_layers(3, 5, heads=1)
    rest = layers[..., 1:, 1:]
    rest = rest / rest.sum(-1, keepdim=True)
    for function, options in ((attention_rollout, {}), (attention_flow, {"verbose": False})):
        found = function(layers, without_first=True, **options)[0]
        assert found[0].tolist() == [1, 0, 0, 0, 0] and not found[1:, 0].any()
        torch.testing.assert_close(found[1:, 1:], function(rest, **options)[0], atol=1e-6, rtol=0)


def test_without_the_first_token_rows_of_an_encoder_have_the_sum_1():
    found = attention_rollout(random_layers(3, 5, causal=False), without_first=True)
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 5).double())


def test_a_row_that_attends_to_the_first_token_only_keeps_its_token():
    sink = torch.zeros(3, 3)
    sink[:, 0] = 1
    assert torch.equal(
        attention_rollout([sink[None, None]] * 2, without_first=True)[0], torch.eye(3).double()
    )


def test_padding_on_the_left_is_left_out():
    layers = random_layers(2, 4, batch=2)
    alone = layers[:, :1, :, :3, :3] / layers[:, :1, :, :3, :3].sum(-1, keepdim=True)
    layers[:, 0] = torch.nan
    layers[:, 0, :, 1:, 0] = 0
    layers[:, 0, :, 1:, 1:] = alone[:, 0]
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    for function, options in ((attention_rollout, {}), (attention_flow, {"verbose": False})):
        found = function(layers, mask=mask, **options)
        torch.testing.assert_close(found[0, 1:, 1:], function(alone, **options)[0])
        assert not found[0, 0].any() and not found[0, :, 0].any()
        torch.testing.assert_close(found[1], function(layers[:, 1:], **options)[0])


def test_the_first_layer_of_the_wired_transformer_mixes_in_the_previous_token():
    """One of its two heads attends to the previous token, the other to the current one."""
    model = InductionTransformer()
    with torch.no_grad():
        weights = model(model.sequences(1, 6), output_attentions=True).attentions
    top = weights[1][0].double().mean(0) / 2 + torch.eye(13).double() / 2
    expected = 0.75 * top
    expected[:, :-1] += 0.25 * top[:, 1:]
    expected[:, 0] += 0.25 * top[:, 0]
    torch.testing.assert_close(attention_rollout(weights)[0], expected, atol=1e-6, rtol=0)
