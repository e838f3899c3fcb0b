"""Scores of heads against loops over their definitions, planted heads and a wired transformer."""

from math import log

import pytest
import torch
from matplotlib.figure import Figure

from toumei.core.errors import ArgumentError, NonFiniteError, ShapeError
from toumei.models import InductionTransformer
from toumei.transformers.heads import SCORES, HeadScores, head_scores, repeated_tokens

LENGTH = 5
TOKENS = repeated_tokens(3, LENGTH, 1, 9, bos=0)  # some tokens of a row are the same


def random_weights(batch=3, heads=(2, 2), length=2 * LENGTH + 1, causal=True):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(batch, count, length, length, generator=generator) for count in heads]
    if causal:
        layers = [
            scores.masked_fill(torch.ones(length, length).triu(1) == 1, -torch.inf) for scores in layers
        ]
    return [scores.softmax(-1) for scores in layers]


def by_loops(weights, tokens):
    """The scores of one head, from weights (batch, query, key), as their definitions say."""
    count = weights.shape[-1]
    half = count // 2
    rows = [(row, text) for text in range(len(weights)) for row in range(count)]
    second = [(row, text) for row, text in rows if row >= count - half]

    def mean(values):
        return sum(values) / len(values)

    def pairs(shift):
        return [
            (text, query, key)
            for query, text in rows
            for key in range(count)
            if 0 <= key - shift < query and tokens[text, key - shift] == tokens[text, query]
        ]

    return {
        "previous": mean([weights[text, row, row - 1] for row, text in rows if row]),
        "duplicate": mean([weights[text, row, row - half] for row, text in second]),
        "induction": mean([weights[text, row, row - half + 1] for row, text in second]),
        "first": mean([weights[text, row, 0] for row, text in rows]),
        "same": mean([weights[text, row, row] for row, text in rows]),
        "entropy": mean([-sum(p * log(p) for p in weights[text, row].tolist() if p) for row, text in rows]),
        "distance": mean(
            [sum(weights[text, row, key] * abs(row - key) for key in range(count)) for row, text in rows]
        ),
        "previous_share": sum(weights[text, row, row - 1] for row, text in rows if row) / len(rows),
        "duplicate_share": sum(weights[pair] for pair in pairs(0)) / len(rows),
        "induction_share": sum(weights[pair] for pair in pairs(1)) / len(rows),
    }


@pytest.mark.parametrize("causal", [True, False])
def test_scores_are_what_loops_over_their_definitions_give(causal):
    weights = random_weights(causal=causal)
    result = head_scores(weights, TOKENS)
    assert len(result) == 4 and result.texts == 3 and result.rows == 33
    for layer, head in ((0, 1), (1, 0)):
        expected = by_loops(weights[layer][:, head].double(), TOKENS)
        for score in SCORES:
            assert float(result[score][layer, head]) == pytest.approx(float(expected[score]), abs=1e-6), score


def test_the_heads_of_the_wired_transformer_are_found():
    model = InductionTransformer()
    tokens = model.sequences(4, 12)
    with torch.no_grad():
        result = head_scores(model(tokens, output_attentions=True).attentions, tokens)
    found = {score: result.top(score, 1)[0] for score in ("previous", "same", "induction", "duplicate")}
    assert [name for name, _ in found.values()] == ["0.0", "0.1", "1.0", "1.1"]
    values = [value for _, value in found.values()]
    assert values == pytest.approx([1, 1, 1, 0.5], abs=1e-5)
    assert float(result.previous_share[0, 0]) == pytest.approx(24 / 25), "a perfect head stays below 1"


def test_a_tensor_a_mapping_and_a_list_of_layers_are_the_same():
    weights = random_weights()
    first = head_scores(weights, TOKENS)
    for given in (torch.stack(weights), dict(zip(("a", "b"), weights, strict=True)), tuple(weights)):
        again = head_scores(given, TOKENS)
        assert all(torch.equal(again[score], first[score]) for score in SCORES)
    assert first.layer_names == ("0", "1")
    assert head_scores(dict(a=weights[0]), TOKENS).layer_names == ("a",)


def test_padding_on_either_side_changes_nothing():
    weights = random_weights()
    expected = head_scores(weights, TOKENS)
    for before, after in ((2, 0), (0, 3)):
        size = TOKENS.shape[1]
        place = slice(before, before + size)
        mask = torch.zeros(3, before + size + after)
        mask[:, place] = 1
        tokens = torch.full(mask.shape, 7)
        tokens[:, place] = TOKENS
        padded = []
        for layer in weights:
            wide = torch.full((3, 2, mask.shape[1], mask.shape[1]), torch.nan)
            wide[:, :, place] = 0
            wide[:, :, place, place] = layer
            padded.append(wide)
        found = head_scores(padded, tokens, mask=mask)
        assert found.rows == expected.rows
        for score in SCORES:
            torch.testing.assert_close(found[score], expected[score])


def test_other_tokens_and_no_tokens_leave_out_what_cannot_be_told():
    weights = random_weights(batch=1)
    other = head_scores(weights, torch.arange(11)[None])
    assert other.induction is None and not other.induction_share.any()
    none = head_scores(weights)
    assert none.duplicate is None and none.duplicate_share is None
    with pytest.raises(ArgumentError, match="'induction' is known only for tokens that repeat"):
        other.top("induction")
    with pytest.raises(ArgumentError, match="'duplicate_share' is known only for tokens that are given"):
        none["duplicate_share"]
    with pytest.raises(ArgumentError, match="score is one of"):
        none["inductions"]
    assert "induction" not in str(none) and len(repr(none)) <= 200


def test_without_a_beginning_token_the_halves_are_the_same():
    tokens = TOKENS[:, 1:]
    weights = random_weights(length=10)
    result = head_scores(weights, tokens)
    for score in ("duplicate", "induction"):
        expected = by_loops(weights[1][:, 0].double(), tokens)[score]
        assert float(result[score][1, 0]) == pytest.approx(float(expected))


def test_layers_with_fewer_heads_have_empty_cells(tmp_path):
    result = head_scores(random_weights(heads=(3, 1)), TOKENS)
    assert len(result) == 4 and result.entropy[1].isnan().tolist() == [False, True, True]
    assert len(result.top("entropy", 9)) == 4
    (mesh,) = result.plot("entropy", ax=Figure().add_subplot()).collections
    assert int((~mesh.get_array().mask).sum()) == 4
    result.save(tmp_path / "scores.safetensors")
    again = HeadScores.load(tmp_path / "scores.safetensors")
    assert str(again) == str(result) and torch.equal(again.first.nan_to_num(), result.first.nan_to_num())


def test_the_heat_map_of_a_share_goes_from_0_to_1():
    ax = Figure().add_subplot()
    assert head_scores(random_weights(), TOKENS).plot("induction", ax) is ax
    (mesh,) = ax.collections
    assert mesh.get_clim() == (0, 1) and ax.get_xlabel() == "head" and ax.get_ylabel() == "layer"


def test_repeated_tokens_are_those_of_randint():
    drawn = torch.randint(1000, 40000, (4, 40), generator=torch.Generator().manual_seed(0))
    tokens = repeated_tokens(4, 40, 1000, 40000, bos=1)
    assert torch.equal(tokens, torch.cat([torch.ones(4, 1).long(), drawn, drawn], 1))
    assert torch.equal(repeated_tokens(4, 40, 1000, 40000), tokens[:, 1:])


def test_what_is_no_attention_is_refused():
    weights = random_weights()
    with pytest.raises(ShapeError, match=r"expected tokens \(batch, length\) = \(3, 11\)"):
        head_scores(weights, TOKENS[:, :4])
    with pytest.raises(ArgumentError, match="has the sum 1"):
        head_scores([2 * weights[0]])
    with pytest.raises(NonFiniteError, match="NaN"):
        head_scores([torch.nan * weights[0]])
    with pytest.raises(ArgumentError, match="mask is 0 everywhere"):
        head_scores(weights, mask=torch.zeros(3, 11))
    with pytest.raises(ArgumentError, match="from low to high - 1"):
        repeated_tokens(1, 2, 5, 5)
