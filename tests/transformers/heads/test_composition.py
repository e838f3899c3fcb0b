"""Composition of heads against dense products, the wired transformer and random weights."""

import pytest
import torch
from architectures import build
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from toumei.core.errors import ArchitectureError
from toumei.models import InductionTransformer
from toumei.transformers.heads.composition import composition_scores
from toumei.transformers.heads.composition_result import CompositionScores
from toumei.transformers.heads.weights import head_weights
from toumei.transformers.model.hooked_model import HookedModel


def norm(matrix):
    return torch.linalg.matrix_norm(matrix)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "qwen3"])
def test_scores_are_those_of_the_dense_products(kind):
    model = HookedModel(build(kind))
    scores = composition_scores(model, verbose=False)
    first, second = (head_weights(model, layer, fold_norms=True, dtype=torch.float64) for layer in (0, 2))
    for one in range(4):
        for two in range(4):
            OV1 = first.W_V[one] @ first.W_O[one]
            QK2, OV2 = second.W_Q[two] @ second.W_K[two].T, second.W_V[two] @ second.W_O[two]
            for kind, read in (("q", QK2), ("k", QK2.T), ("v", OV2)):
                expected = norm(OV1 @ read) / (norm(OV1) * norm(read))
                assert float(scores[kind][0, one, 2, two]) == pytest.approx(float(expected), rel=1e-5)


def test_pairs_that_are_not_in_order_have_no_score():
    scores = composition_scores(HookedModel(build("gpt2")), verbose=False)
    known = scores["q"].isfinite().all(3).all(1)
    assert known.tolist() == [[False, True, True], [False, False, True], [False, False, False]]
    assert len(scores) == 3 * 16


def test_the_only_composition_of_the_wired_transformer_is_the_known_one():
    """Head 0.0 writes the previous token, which only the keys of head 1.0 read."""
    scores = composition_scores(HookedModel(InductionTransformer(vocabulary=8, positions=8)), verbose=False)
    (best,) = scores.top("k", 1)
    assert best[:2] == ("0.0", "1.0") and best[2] == pytest.approx(8**-0.5)  # of eight equal singular values
    for kind in "qkv":
        others = [value for one, two, value in scores.top(kind, 9) if (kind, one, two) != ("k", "0.0", "1.0")]
        assert not any(others)
    assert torch.isnan(scores["k"][0, 1]).all()  # head 0.1 writes nothing


def test_random_heads_have_the_baseline_which_is_subtracted_on_request():
    config = GPT2Config(n_embd=256, n_layer=2, n_head=8, vocab_size=16, n_positions=16)
    torch.manual_seed(0)
    model = HookedModel(GPT2LMHeadModel(config).eval())
    scores = composition_scores(model, verbose=False)
    above = composition_scores(model, subtract_baseline=True, verbose=False)
    assert scores.baseline == above.baseline == 1 / 16
    for kind in "qkv":
        known = scores[kind][0, :, 1]
        assert float(known.mean()) == pytest.approx(1 / 16, rel=0.02)
        torch.testing.assert_close(above[kind][0, :, 1], known - 1 / 16)
        assert float(above[kind][0, :, 1].abs().max()) < 0.02  # no head stands out


def test_scores_are_drawn_and_kept(tmp_path):
    scores = composition_scores(HookedModel(InductionTransformer(vocabulary=6, positions=8)), verbose=False)
    axes = scores.plot("k")
    assert [one.get_text() for one in axes.get_yticklabels()] == ["0.0", "0.1"]
    assert [one.get_text() for one in axes.get_xticklabels()] == ["1.0", "1.1"]
    scores.save(tmp_path / "scores.safetensors")
    loaded = CompositionScores.load(tmp_path / "scores.safetensors")
    assert loaded.top("k", 1) == scores.top("k", 1)
    assert len(repr(scores)) <= 200 and "0.0 -> 1.0" in str(scores)


def test_norms_in_the_stream_itself_are_refused_unless_left_out():
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=30
    )
    model = HookedModel(BertModel(config).eval())
    with pytest.raises(ArchitectureError, match="fold_norms=False"):
        composition_scores(model, verbose=False)
    assert len(composition_scores(model, fold_norms=False, verbose=False)) == 4


def test_one_layer_composes_with_nothing():
    with pytest.raises(ArchitectureError, match="one layer"):
        composition_scores(HookedModel(build("jamba")), verbose=False)
