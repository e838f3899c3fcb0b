"""The wired induction transformer does what it says, by the edges that it names and by no others."""

from itertools import product
from math import exp

import pytest
import torch

from toumei.core import run
from toumei.core.errors import ArgumentError
from toumei.models import Edge, InductionTransformer

LENGTH = 10
PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
WRITES = {
    "embed": "token",
    "pos_embed": "position",
    "0.0": "previous",
    "0.1": None,
    "1.0": "next",
    "1.1": "token",
}
SENDERS = {"0": ("embed", "pos_embed"), "1": ("embed", "pos_embed", "0.0", "0.1"), "logits": tuple(WRITES)}
ALL_EDGES = [
    Edge(sender, f"{layer}.{head}", kind)
    for layer, head, kind in product("01", "01", "qkv")
    for sender in SENDERS[layer]
] + [Edge(sender, "logits", "") for sender in SENDERS["logits"]]


@pytest.fixture
def model():
    return InductionTransformer().requires_grad_(False)


def accuracy(model, tokens):
    """The share of right next tokens in the second half."""
    found = model(tokens).logits.argmax(-1)
    return float((found[:, LENGTH + 1 : -1] == tokens[:, LENGTH + 2 :]).double().mean())


def cut(model, edge):
    """Sets the weights to zero through which the receiver reads what the sender writes."""
    columns = model.subspaces[WRITES[edge.sender]] if WRITES[edge.sender] else slice(0, 0)
    if edge.receiver == "logits":
        weight, rows = model.lm_head.weight, slice(None)
    else:
        layer, head = map(int, edge.receiver.split("."))
        size = model.config.head_dim
        weight = getattr(model.model.layers[layer].self_attn, PROJECTIONS[edge.kind]).weight
        rows = slice(head * size, (head + 1) * size)
    weight[rows, columns] = 0


def patterns(model, tokens):
    """By head, (batch, query, key)."""
    weights = model(tokens, output_attentions=True).attentions
    return {f"{layer}.{head}": weights[layer][:, head] for layer, head in product(range(2), range(2))}


def test_every_next_token_of_the_second_half_is_right(model):
    tokens = model.sequences(50, LENGTH)
    assert torch.equal(tokens[:, 1 : LENGTH + 1], tokens[:, LENGTH + 1 :]) and not tokens[:, 0].any()
    assert all(len(set(row)) == LENGTH and 0 not in row for row in tokens[:, 1 : LENGTH + 1].tolist())
    assert accuracy(model, tokens) == 1
    chances = model(tokens).logits[:, LENGTH + 1 : -1].softmax(-1)
    right = chances.gather(-1, tokens[:, LENGTH + 2 :, None])
    assert float(right.min()) > 0.999


@pytest.mark.parametrize("sharpness", [3.0, 20.0])
def test_the_heads_attend_as_the_formula_says(sharpness):
    model = InductionTransformer(sharpness=sharpness).requires_grad_(False)
    tokens = model.sequences(3, LENGTH)
    count = tokens.shape[1]
    found = patterns(model, tokens)
    share = lambda score, matches, seen: 1 / (matches + (seen - matches) * exp(-score))  # noqa: E731
    for query in range(1, count):
        for head, key in (("0.0", query - 1), ("0.1", query)):
            weights = found[head][:, query]
            expected = torch.full((3,), share(sharpness, 1, query + 1))
            torch.testing.assert_close(weights[:, key], expected)
            torch.testing.assert_close(weights[:, : query + 1].sum(-1), torch.ones(3))
    for query in range(LENGTH + 1, count):
        twice = torch.full((3,), share(sharpness, 2, query + 1))
        torch.testing.assert_close(found["1.1"][:, query, query], twice)
        torch.testing.assert_close(found["1.1"][:, query, query - LENGTH], twice)
    if sharpness == 20:  # else what the previous-token head writes is not one token
        for query in range(LENGTH + 1, count):
            expected = torch.full((3,), share(sharpness, 1, query + 1))
            torch.testing.assert_close(found["1.0"][:, query, query - LENGTH + 1], expected)


def test_without_a_match_the_induction_head_attends_to_all_alike(model):
    tokens = model.sequences(2, LENGTH)
    weights = patterns(model, tokens)["1.0"]
    for query in range(LENGTH):
        torch.testing.assert_close(
            weights[:, query, : query + 1], torch.full((2, query + 1), 1 / (query + 1))
        )


def test_the_edges_are_edges_that_there_are():
    assert set(InductionTransformer.edges) <= set(ALL_EDGES) and len(ALL_EDGES) == 42
    heads = {name for edge in InductionTransformer.edges for name in edge[:2]} & set(WRITES)
    assert set(InductionTransformer.circuit) == heads - {"embed", "pos_embed"}


@pytest.mark.parametrize("edge", ALL_EDGES, ids=lambda edge: "-".join(edge))
def test_the_prediction_needs_each_edge_of_the_circuit_and_no_other(model, edge):
    tokens = model.sequences(20, LENGTH)
    before = model(tokens).logits
    cut(model, edge)
    if edge in model.edges:
        assert accuracy(model, tokens) < 0.5
    else:
        assert torch.equal(model(tokens).logits, before)


def test_the_stream_is_the_sum_of_what_is_written_to_it_each_in_its_subspace(model):
    tokens = model.sequences(2, LENGTH)
    names = [f"model.layers.{layer}.self_attn" for layer in range(2)]
    states = model(tokens, output_hidden_states=True).hidden_states
    added = run(model, tokens, record=names)
    torch.testing.assert_close(states[2], states[0] + added[names[0]] + added[names[1]])
    empty = torch.ones(states[0].shape[-1], dtype=torch.bool)
    empty[model.subspaces["previous"]] = False
    assert not added[names[0]][..., empty].any()
    assert not states[0][..., model.subspaces["previous"]].any()
    assert not states[1][..., model.subspaces["next"]].any()
    assert sum(part.stop - part.start for part in model.subspaces.values()) == model.config.hidden_size


def test_padding_on_the_left_changes_nothing(model):
    tokens = model.sequences(1, LENGTH)
    padded = torch.cat([torch.full((1, 3), 5), tokens], 1)
    mask = torch.tensor([[0] * 3 + [1] * tokens.shape[1]])
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[:, 3:], model(tokens).logits)


def test_sequences_come_from_their_seed(model):
    assert torch.equal(model.sequences(4, 5, seed=1), model.sequences(4, 5, seed=1))
    assert not torch.equal(model.sequences(4, 5, seed=1), model.sequences(4, 5, seed=2))


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ArgumentError, match="at most 31 different tokens, got 32"):
        model.sequences(1, 32)
    with pytest.raises(ArgumentError, match="64 positions, got 65 tokens"):
        model(torch.zeros(1, 65, dtype=torch.long))
    for wrong in ({"vocabulary": 1}, {"positions": 1}, {"sharpness": 0.0}, {"sharpness": float("inf")}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            InductionTransformer(**wrong)


def test_the_weights_are_the_same_each_time_and_draw_nothing():
    state = torch.get_rng_state()
    first, second = InductionTransformer(), InductionTransformer()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
