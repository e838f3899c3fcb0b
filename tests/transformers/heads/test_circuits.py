"""Circuits of heads against dense products, and against a transformer whose circuit is known."""

import copy

import pytest
import torch
from architectures import build

from toumei.core.errors import ArchitectureError, ArgumentError, ShapeError
from toumei.models import InductionTransformer
from toumei.transformers.heads.circuit_tokens import SingularReadOut, singular_read_out, top_token_pairs
from toumei.transformers.heads.circuits import copying_scores, matching_scores, ov_circuit, qk_circuit
from toumei.transformers.heads.head_values import HeadValues
from toumei.transformers.heads.vocabulary_weights import embedding_weights, unembedding_weights
from toumei.transformers.heads.weights import head_weights
from toumei.transformers.model.hooked_model import HookedModel

KINDS = ["gpt2", "llama", "gemma2", "cohere", "nemotron", "bloom", "opt"]
TOKENS = torch.tensor([[5, 9, 33, 21, 9, 2, 40, 17, 8]])


def hooked_model(kind):
    model = copy.deepcopy(build(kind))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return HookedModel(model)


@pytest.fixture
def wired():
    return HookedModel(InductionTransformer(vocabulary=6, positions=16))


@pytest.mark.parametrize("kind", KINDS)
def test_the_unembedding_reads_the_end_of_the_stream_up_to_the_divisor_of_the_norm(kind):
    model = hooked_model(kind)
    logits, cache = model.run_with_cache(TOKENS, [("resid_post", 2)])
    config = model.model.config
    logits = logits.detach() / (getattr(config, "logit_scale", None) or 1)
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = (logits / cap).atanh() * cap
    read = cache["resid_post", 2].detach() @ unembedding_weights(model, fold_norm=True)
    expected = logits - _bias_logits(model)
    ratio = (expected * read).sum(-1) / read.square().sum(-1)
    torch.testing.assert_close(
        read * ratio[..., None], expected, rtol=1e-3, atol=2e-3 * float(expected.abs().max())
    )


def _bias_logits(model):
    """What the bias of the final norm adds to the logits."""
    norms = ("transformer.ln_f.bias", "model.norm.bias", "model.decoder.final_layer_norm.bias")
    bias = [value.detach() for name, value in model.model.named_parameters() if name in norms]
    return bias[0] @ unembedding_weights(model) if bias else 0


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "cohere"])
def test_circuits_are_the_dense_products(kind):
    model = hooked_model(kind)
    weights = head_weights(model, 1, fold_norms=True)
    qk, ov = weights.W_Q @ weights.W_K.mT, weights.W_V @ weights.W_O
    torch.testing.assert_close(qk_circuit(model, 1).dense(), qk)
    torch.testing.assert_close(ov_circuit(model, 1).dense(), ov)
    W_E, W_U = embedding_weights(model), unembedding_weights(model, fold_norm=True)
    full = qk_circuit(model, 1, vocabulary=True)
    torch.testing.assert_close(full.dense(), W_E @ qk @ W_E.T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(
        ov_circuit(model, 1, vocabulary=True).dense(), W_E @ ov @ W_U, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_scores_are_those_of_all_eigenvalues_of_the_full_circuit(kind):
    model = hooked_model(kind)
    for circuit, scores in ((ov_circuit, copying_scores), (qk_circuit, matching_scores)):
        values = torch.linalg.eigvals(circuit(model, 2, vocabulary=True).dense().double())
        expected = values.real.sum(-1) / values.abs().sum(-1)
        torch.testing.assert_close(scores(model).values[2], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gptj", "gpt_neox", "phi", "qwen3", "olmo2"])
def test_the_circuit_at_a_distance_gives_the_scores_of_the_model(kind):
    """Scores of position 6 on position 2 are those of the circuit of distance 4, up to norms and scale."""
    model = hooked_model(kind)
    weights = head_weights(model, 1, fold_norms=True)
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS, [("resid_pre", 1), ("attn_scores", 1)])
    circuit = qk_circuit(model, 1, distance=4)
    x = cache["resid_pre", 1][0]
    factor = x.var(-1, unbiased=False) if kind in ("gptj", "gpt_neox", "phi") else x.square().mean(-1)
    if kind == "olmo2":
        factor = torch.ones(len(x))  # no norm before the layer
    x = x / factor.sqrt()[:, None]
    queries, keys = x[6] @ circuit.A, x[2] @ circuit.B.mT
    if weights.b_Q.abs().max() > 0:  # the bias of queries is rotated as they are
        W_Q = weights.W_Q
        rotation = torch.linalg.lstsq(W_Q, circuit.A).solution
        queries = queries + (weights.b_Q[:, None] @ rotation)[:, 0]
        keys = keys + weights.b_K
    divisor = torch.ones(4)
    if kind == "qwen3":  # norms of queries and keys by head, whose divisors come from before the gain
        plain = head_weights(model, 1)
        divisor = _root(x, model, plain, "Q", 6) * _root(x, model, plain, "K", 2)
    if kind == "olmo2":
        plain = head_weights(model, 1)
        divisor = _root(x, model, plain, "Q", 6, (0, 1)) * _root(x, model, plain.grouped(), "K", 2, (0, 1))
    expected = (queries * keys).sum(-1) * queries.shape[-1] ** -0.5 / divisor.flatten()
    actual = cache["attn_scores", 1][0, :, 6, 2]
    torch.testing.assert_close(expected, actual, rtol=1e-3, atol=1e-3)


def _root(x, model, plain, letter, position, axes=(1,)):
    from toumei.transformers.heads.weights import input_factor

    read = x[position] @ input_factor(model.points, 1).before(getattr(plain, f"W_{letter}"))
    return read.square().mean(axes).sqrt()


def test_distance_changes_nothing_without_rotation():
    model = hooked_model("gpt2")
    assert torch.equal(qk_circuit(model, 0, distance=5).dense(), qk_circuit(model, 0).dense())


def test_the_circuits_of_the_wired_transformer(wired):
    scores, matching = copying_scores(wired), matching_scores(wired)
    assert scores["1.0"] == 1 and matching["1.1"] == 1
    assert scores.top() == (("1.0", 1.0),)  # no other head writes logits
    assert matching.top() == (("1.1", 1.0),)  # others ask for other things than tokens
    assert torch.equal(ov_circuit(wired, 1, vocabulary=True)[0].dense(), 20 * torch.eye(6))
    subspace = wired.model.subspaces
    previous = qk_circuit(wired, 1)[0].dense()[subspace["token"], subspace["previous"]]
    assert torch.equal(previous.argmax(1), torch.arange(6)) and bool((previous.diagonal() > 0).all())


def test_top_token_pairs_are_those_of_the_dense_circuit_in_any_number_of_blocks(monkeypatch):
    model = hooked_model("gpt2")
    circuit = ov_circuit(model, 1, vocabulary=True)[2]
    for largest in (True, False):
        values, places = circuit.dense().flatten().topk(7, largest=largest)
        for numbers in (2**24, 5 * 64, 1):
            monkeypatch.setattr("toumei.transformers.heads.circuit_tokens._NUMBERS", numbers)
            found = top_token_pairs(model, circuit, 7, largest=largest)
            assert [int(one.row) * 64 + int(one.column) for one in found] == places.tolist()
            torch.testing.assert_close(torch.tensor([one.value for one in found]), values)
    with pytest.raises(ShapeError, match="circuit of one head"):
        top_token_pairs(model, ov_circuit(model, 1))


def test_singular_vectors_are_read_in_tokens(tmp_path):
    model = hooked_model("gpt2")
    found = singular_read_out(model, 1, 2, vectors=3, k=4)
    _, S, Vh = torch.linalg.svd(ov_circuit(model, 1)[2].dense())
    torch.testing.assert_close(found.values, S[:3], rtol=1e-4, atol=1e-4)
    written = Vh[1] @ unembedding_weights(model, fold_norm=True)
    written = written * written[written.abs().argmax()].sign()
    assert list(found.columns[1]) == [str(token) for token in written.topk(4).indices.tolist()]
    found.save(tmp_path / "read.safetensors")
    assert SingularReadOut.load(tmp_path / "read.safetensors").rows == found.rows
    assert found.plot().get_yticklabels()[0].get_text().startswith(repr(found.rows[0][0]))
    assert len(repr(found)) < 200 and len(str(found).splitlines()) == 4
    with pytest.raises(ArgumentError, match="heads 0 to 3"):
        singular_read_out(model, 1, 4)


def test_tables_of_heads_are_drawn_and_kept(tmp_path, wired):
    scores = copying_scores(wired)
    scores.save(tmp_path / "scores.safetensors")
    assert HeadValues.load(tmp_path / "scores.safetensors").top() == scores.top()
    assert scores.plot().get_ylabel() == "layer"
    assert len(scores) == 1 and len(repr(scores)) < 200


def test_a_model_without_tokens_has_no_full_circuit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
    )
    model = HookedModel(ViTModel(config).eval())
    assert ov_circuit(model, 1).shape == (2, 16, 16)
    with pytest.raises(ArchitectureError, match="ViTModel"):
        copying_scores(model)
