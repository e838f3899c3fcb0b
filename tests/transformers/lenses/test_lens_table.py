"""The table of a lens holds what final norm and head make of each state, restated row by row."""

import pytest
import torch
from architectures import ARCHITECTURES

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.core.hooks import hooked, run
from toumei.transformers.lenses import LensTable, logit_lens, read_out
from toumei.transformers.model import anatomy

PROMPT = "w9 w3 w4 w22 w17"
IDS = [9, 3, 4, 22, 17]


def states_of(model, embedding=False):
    """The inputs of the first block and the outputs of all blocks, (layers, T, width)."""
    parts = anatomy(model)
    with torch.no_grad():
        outputs = run(model, torch.tensor([IDS]), record=parts.blocks, stop=False)
        first = run(model, torch.tensor([IDS]), record=parts.blocks[:1], inputs=True)[parts.blocks[0]]
    states = [outputs[name].reshape(5, -1) for name in parts.blocks]
    return torch.stack([first.reshape(5, -1), *states] if embedding else states)


def check_table(found, logits):
    """Compares a table with logits (layers, T, tokens)."""
    logs = logits.double().log_softmax(2)
    probabilities = logs.exp()
    divergences = (probabilities[-1] * (logs[-1] - logs)).sum(2)
    following = torch.tensor(IDS[1:]).expand(len(logits), 4)[..., None]
    expected = probabilities[:, :-1].gather(2, following)
    assert torch.allclose(found.top_probabilities.double(), probabilities.topk(3).values, atol=1e-5)
    assert torch.allclose(found.entropies.double(), -(probabilities * logs).sum(2), atol=1e-4)
    assert torch.allclose(found.divergences.double(), divergences, atol=1e-4)
    assert torch.allclose(found.next_probabilities.double(), expected[..., 0], atol=1e-5)
    ranks = (probabilities[:, :-1] > expected + 1e-6).sum(2)
    assert torch.equal(found.next_ranks, ranks)
    words = [[f"w{token}" for token in row] for row in probabilities[0].topk(3).indices.tolist()]
    assert [list(words_of_lens) for words_of_lens in found.top[0]] == words
    assert float(found.divergences[-1].abs().max()) == 0


def test_gpt2_row_by_row(language_model, tokenizer):
    model = language_model("gpt2")
    found = logit_lens(model, tokenizer, PROMPT, top=3, embedding=True)
    assert found.layers == ("embedding", "0", "1", "2") and found.tokens == tuple(PROMPT.split())
    with torch.no_grad():
        check_table(found, model.lm_head(model.transformer.ln_f(states_of(model, embedding=True))))


def test_the_soft_cap_of_gemma_2_counts(language_model, tokenizer):
    model = language_model("gemma2")
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(states_of(model)))
    cap = model.config.final_logit_softcapping
    check_table(logit_lens(model, tokenizer, PROMPT, top=3), cap * torch.tanh(logits / cap))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_last_row_is_the_model(kind, language_model, tokenizer):
    model = language_model(kind)
    found = logit_lens(model, tokenizer, PROMPT, top=64, embedding=True)
    with torch.no_grad():
        wanted = model(torch.tensor([IDS])).logits[0].softmax(1)
    assert torch.allclose(found.top_probabilities[-1], wanted.sort(descending=True).values, atol=1e-5)
    assert len(found.layers) == 4


def test_middles_are_the_stream_after_attention(language_model, tokenizer):
    model = language_model("llama")
    found = logit_lens(model, tokenizer, PROMPT, top=3, middles=True)
    assert found.layers == ("0 mid", "0", "1 mid", "1", "2 mid", "2")
    with torch.no_grad():
        name = "model.layers.1.post_attention_layernorm"
        middle = run(model, torch.tensor([IDS]), record=[name], inputs=True)[name]
        wanted = model.lm_head(model.model.norm(middle))[0].softmax(1)
    assert torch.allclose(found.top_probabilities[2], wanted.topk(3).values, atol=1e-5)
    with pytest.raises(ArchitectureError, match="layer 0 of GPTNeoXForCausalLM .* parallel"):
        logit_lens(language_model("gpt_neox"), tokenizer, PROMPT, middles=True)


def test_few_vectors_at_once_give_the_same_table(language_model, tokenizer, monkeypatch):
    model = language_model("gpt2")
    whole = logit_lens(model, tokenizer, PROMPT)
    largest = []
    plain = read_out.ReadOut.__call__

    def watching(self, vectors):
        largest.append(len(vectors))
        return plain(self, vectors)

    monkeypatch.setattr(read_out, "_NUMBERS", 2 * 64)  # logits of two tokens
    monkeypatch.setattr(read_out.ReadOut, "__call__", watching)
    parted = logit_lens(model, tokenizer, PROMPT)
    assert set(largest) == {1, 2}
    assert parted.top == whole.top and torch.allclose(parted.divergences, whole.divergences, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_edits_of_the_engine_count(kind, language_model, tokenizer):
    model = language_model(kind)
    parts = anatomy(model)
    plain = logit_lens(model, tokenizer, PROMPT, top=3)
    with hooked(model, edit={parts.mlps[1]: lambda output: output * -3}):
        found = logit_lens(model, tokenizer, PROMPT, top=3)
        with torch.no_grad():
            wanted = model(torch.tensor([IDS])).logits[0].softmax(1)
    assert torch.equal(found.entropies[0], plain.entropies[0])
    assert not torch.allclose(found.entropies[1], plain.entropies[1], atol=1e-3)
    assert torch.allclose(found.top_probabilities[-1], wanted.topk(3).values, atol=1e-5)
    with hooked(model, edit={parts.blocks[0]: torch.zeros_like}):
        found = logit_lens(model, tokenizer, PROMPT, top=3)
    assert torch.allclose(found.entropies[0], found.entropies[0, :1].expand(5), atol=1e-5)


def test_edits_of_weights_count(language_model, tokenizer):
    model = language_model("gpt2")
    plain = logit_lens(model, tokenizer, PROMPT)
    weight = model.transformer.h[1].mlp.c_proj.weight
    with torch.no_grad():
        weight.neg_()
        found = logit_lens(model, tokenizer, PROMPT)
        weight.neg_()
    assert torch.equal(found.entropies[0], plain.entropies[0])
    assert not torch.allclose(found.entropies[1:], plain.entropies[1:], atol=1e-3)


def test_plots_and_files(language_model, tokenizer, tmp_path):
    found = logit_lens(language_model("gpt2"), tokenizer, PROMPT, embedding=True)
    ax = found.plot()
    assert [text.get_text() for text in ax.get_yticklabels()] == list(found.layers)
    assert [text.get_text() for text in ax.get_xticklabels()] == list(found.tokens)
    lowest = min(ax.texts, key=lambda text: text.get_position()[::-1])
    assert lowest.get_text() == found.top[0][0][0]
    assert sum(text.get_fontweight() == "bold" for text in ax.texts) >= 5 and "bold" in ax.get_title()
    chosen = found.plot(color="divergence", positions=[4, -4])
    assert [text.get_text() for text in chosen.get_xticklabels()] == ["w17", "w3"]
    meshes = [found.plot(color="entropy", limit=limit).collections[0] for limit in (None, 9.0)]
    assert [float(mesh.norm.vmax) for mesh in meshes] == [float(found.entropies.max()), 9.0]
    found.save(tmp_path / "table.safetensors")
    again = LensTable.load(tmp_path / "table.safetensors")
    assert again.top == found.top and torch.equal(again.next_ranks, found.next_ranks)
    assert len(repr(found)) <= 200 and str(found).count("\n") == 4


def test_bad_input(language_model, tokenizer):
    model = language_model("gpt2")
    with pytest.raises(ArgumentError, match="leave out the answer"):
        logit_lens(model, tokenizer, PROMPT, "w1", embedding=True)
    with pytest.raises(ArgumentError, match="65 tokens long"):
        logit_lens(model, tokenizer, "w1 " * 65)
    with pytest.raises(ArgumentError, match="expected a prompt"):
        logit_lens(model, tokenizer, "  ")
    with pytest.raises(ArgumentError, match="top is"):
        logit_lens(model, tokenizer, PROMPT, top=0)
    found = logit_lens(model, tokenizer, PROMPT)
    with pytest.raises(ArgumentError, match="among the 5 tokens"):
        found.plot(positions=[5])
    with pytest.raises(ArgumentError, match="limit is a number above 0"):
        found.plot(limit=0)
    with pytest.raises(ArgumentError, match="'probability', 'divergence', 'entropy'"):
        found.plot(color="rank")
