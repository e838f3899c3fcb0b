"""A tuned lens begins as the logit lens, learns what is planted, and is the same after it was saved."""

import signal

import pytest
import torch
from architectures import build
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from toumei.core.errors import ArgumentError, NonFiniteError
from toumei.core.hooks import hooked
from toumei.models import facts_gpt
from toumei.transformers.lenses import LensEvaluation, TunedLens, logit_lens
from toumei.transformers.lenses.training import LensTraining, translated

PROMPT = "w9 w3 w4 w22 w17"
FAST = {"steps": 4, "tokens_per_step": 64, "length": 16, "batch_size": 2, "verbose": False}


def corpus(count, seed=0):
    """Texts of random words."""
    draw = torch.Generator().manual_seed(seed)
    return [" ".join(f"w{token}" for token in torch.randint(64, (20,), generator=draw)) for _ in range(count)]


def untrained(model, tokenizer, **options):
    """A lens whose learning rate is as good as 0."""
    return TunedLens.train(model, tokenizer, corpus(9), **{**FAST, **options}, learning_rate=1e-30)


def same(one, other):
    """Whether two tables hold the same numbers, bit for bit."""
    names = ("top_probabilities", "entropies", "divergences", "next_probabilities", "next_ranks")
    return one.top == other.top and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in names
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "opt"])
def test_at_step_0_it_is_the_logit_lens(kind, dtype, watched, tokenizer):
    model = watched(
        build(kind) if dtype == torch.float32 else type(build(kind))(build(kind).config).to(dtype).eval()
    )
    lens = untrained(model, tokenizer)
    zero = TunedLens(lens.layers, 0 * lens.weights, 0 * lens.biases, lens.losses, lens.recipe, lens.model)
    assert same(zero(model, tokenizer, PROMPT), logit_lens(model, tokenizer, PROMPT, embedding=True))
    evaluated = zero.evaluate(model, tokenizer, corpus(9), verbose=False)
    assert torch.equal(evaluated.cross_entropies[:, 0], evaluated.cross_entropies[:, 1])


@pytest.mark.parametrize("loss", ["kl", "cross_entropy"])
def test_first_losses_are_those_of_the_logit_lens(loss, language_model, tokenizer):
    model = language_model("gpt2")
    texts = corpus(4)
    size = {**FAST, "steps": 1, "tokens_per_step": 64, "length": 64}
    lens = TunedLens.train(model, tokenizer, texts, loss=loss, **size)
    ids = [token for text in texts for token in tokenizer(text).input_ids][:64]
    table = logit_lens(model, tokenizer, ids, embedding=True)
    wanted = table.divergences if loss == "kl" else -table.next_probabilities.log()
    assert torch.allclose(lens.losses[0], wanted.mean(1)[:-1], rtol=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adam"}, {"bias_only": True}, {"loss": "cross_entropy"}]
)
def test_training_lowers_the_losses(options, watched):
    model, tokenizer, world = facts_gpt()
    watched(model)
    texts = [fact.text for fact in world.facts[:150]]
    size = {"steps": 8, "tokens_per_step": 256, "length": 32, "verbose": False}
    rate = {"learning_rate": 0.01} if "optimizer" in options else {}
    lens = TunedLens.train(model, tokenizer, texts, **size, **options, **rate)
    found = lens.evaluate(model, tokenizer, [fact.text for fact in world.facts[150:200]], verbose=False)
    losses = found.cross_entropies if "loss" in options else found.divergences
    assert (losses[:4, 0] < losses[:4, 1]).all()
    assert torch.equal(found.cross_entropies[-1, 0], found.cross_entropies[-1, 1])
    assert float(found.divergences[-1].abs().max()) == 0
    assert bool(lens.weights.any()) == ("bias_only" not in options) and bool(lens.biases.any())


class LinearConfig(PretrainedConfig):
    model_type = "linear_residual"
    vocab_size, hidden_size, num_hidden_layers = 64, 6, 3
    tie_word_embeddings = False


class LinearBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(6, 6)

    def forward(self, hidden_states):
        return hidden_states + self.mlp(hidden_states)


class LinearModel(PreTrainedModel):
    """A residual network without a nonlinearity: each block is h -> h + M h + c."""

    config_class = LinearConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(64, 6)
        self.layers = nn.ModuleList(LinearBlock() for _ in range(3))
        self.lm_head = nn.Linear(6, 64, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, use_cache=False):
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return {"logits": self.lm_head(hidden)}


def test_a_planted_linear_network_is_recovered(watched, tokenizer):
    model = LinearModel(LinearConfig()).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15, generator=draw)
        model.embed.weight.normal_(generator=draw)
        model.lm_head.weight.normal_(generator=draw)
    watched(model)
    size = {"steps": 120, "tokens_per_step": 256, "length": 256, "verbose": False}
    lens = TunedLens.train(model, tokenizer, corpus(60), **size, learning_rate=3.0, weight_decay=0.0)
    assert float(lens.losses[-1].max()) < 1e-5
    weight, bias = torch.eye(6), torch.zeros(6)
    for index in (2, 1, 0):  # what remains after layers 1, 0, and the embedding
        block = model.layers[index].mlp
        bias = bias + weight @ block.bias.detach()
        weight = weight @ (torch.eye(6) + block.weight.detach())
        assert torch.allclose(lens.weights[index], weight - torch.eye(6), atol=0.01), index
        assert torch.allclose(lens.biases[index], bias, atol=0.01), index


def test_a_seed_gives_one_lens(language_model, tokenizer):
    model = language_model("gpt2")
    first, second = (TunedLens.train(model, tokenizer, corpus(30), **FAST, seed=3) for _ in range(2))
    other = TunedLens.train(model, tokenizer, corpus(30), **FAST, seed=4)
    assert torch.equal(first.weights, second.weights) and not torch.equal(first.weights, other.weights)


def test_batches_and_read_out_sizes_do_not_matter(language_model, tokenizer, monkeypatch):
    model = language_model("gpt2")
    whole = TunedLens.train(model, tokenizer, corpus(30), **{**FAST, "batch_size": 4})
    monkeypatch.setattr("toumei.transformers.lenses.read_out._NUMBERS", 5 * 64)
    parted = TunedLens.train(model, tokenizer, corpus(30), **{**FAST, "batch_size": 1})
    assert torch.allclose(whole.losses, parted.losses, atol=1e-4)
    assert torch.allclose(whole.weights, parted.weights, atol=1e-4)


def test_saved_and_loaded(language_model, tokenizer, tmp_path):
    model = language_model("gpt2")
    lens = TunedLens.train(model, tokenizer, corpus(30), **FAST)
    path = tmp_path / "lens.safetensors"
    lens.save(path)
    again = TunedLens.load(path, model)
    assert torch.equal(again.weights, lens.weights) and again.recipe == lens.recipe
    assert same(again(model, tokenizer, PROMPT), lens(model, tokenizer, PROMPT))
    assert again(model, tokenizer, PROMPT).lens == "tuned lens"
    with pytest.raises(ArgumentError, match="other weights than this LlamaForCausalLM"):
        TunedLens.load(path, language_model("llama"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArgumentError, match="no saved TunedLens"):
        TunedLens.load(path)


def test_edits_count(language_model, tokenizer):
    model = language_model("gpt2")
    lens = TunedLens.train(model, tokenizer, corpus(30), **FAST)
    plain = lens(model, tokenizer, PROMPT)
    with hooked(model, edit={"transformer.h.1.mlp": torch.zeros_like}):
        edited = lens(model, tokenizer, PROMPT)
    assert torch.equal(plain.entropies[:2], edited.entropies[:2])
    assert not torch.allclose(plain.entropies[2], edited.entropies[2], atol=1e-3)


def test_ctrl_c_returns_the_finished_steps(language_model, tokenizer, monkeypatch):
    model = language_model("gpt2")
    wanted = TunedLens.train(model, tokenizer, corpus(30), **FAST)
    plain = LensTraining._gradients

    def interrupted(self, rows):
        if len(self.losses) == 3:
            signal.raise_signal(signal.SIGINT)
        return plain(self, rows)

    monkeypatch.setattr(LensTraining, "_gradients", interrupted)
    lens = TunedLens.train(model, tokenizer, corpus(30), **FAST)
    assert len(lens.losses) == 3 and torch.equal(lens.losses, wanted.losses[:3])
    monkeypatch.setattr(LensTraining, "_gradients", lambda self, rows: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        TunedLens.train(model, tokenizer, corpus(30), **FAST)


def test_texts_that_end_and_texts_that_begin_again(language_model, tokenizer, tmp_path):
    model = language_model("gpt2")
    ended = TunedLens.train(model, tokenizer, iter(corpus(10)), **FAST)  # 200 words, 64 a step
    assert len(ended.losses) == 3
    assert len(TunedLens.train(model, tokenizer, corpus(10), **FAST).losses) == 4
    (tmp_path / "texts.txt").write_text("\n".join(corpus(10)))
    from_file = TunedLens.train(model, tokenizer, tmp_path / "texts.txt", **FAST)
    rows = TunedLens.train(model, tokenizer, [{"text": text} for text in corpus(10)], **FAST)
    assert torch.equal(from_file.weights, rows.weights)


def test_an_evaluation_by_hand(language_model, tokenizer, tmp_path):
    model = language_model("gpt2")
    lens = TunedLens.train(model, tokenizer, corpus(30), **FAST)
    texts = corpus(4, seed=9)  # five chunks of 16 words
    found = lens.evaluate(model, tokenizer, texts, verbose=False)
    ids = [token for text in texts for token in tokenizer(text).input_ids]
    tables = [lens(model, tokenizer, ids[start : start + 16]) for start in range(0, 80, 16)]
    losses = -torch.stack([table.next_probabilities for table in tables]).log().mean((0, 2))
    assert torch.allclose(found.cross_entropies[:, 0].float(), losses, atol=1e-3)
    assert found.tokens == 75 and found.bytes_per_token == pytest.approx(len("".join(texts)) / 80)
    bits = losses / torch.log(torch.tensor(2.0)) / found.bytes_per_token
    assert torch.allclose(found.bits_per_byte[:, 0].float(), bits, atol=1e-3)
    less = lens.evaluate(model, tokenizer, texts, max_tokens=20, batch_size=1, verbose=False)
    assert less.tokens == 30
    ax = found.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["tuned lens", "logit lens", "model"]
    found.save(tmp_path / "found.safetensors")
    again = LensEvaluation.load(tmp_path / "found.safetensors")
    assert torch.equal(again.divergences, found.divergences)
    assert len(repr(found)) <= 200 and str(found).count("\n") == 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ArgumentError, "steps is a whole number from 1"),
        ({"length": 1}, ArgumentError, "length is a whole number from 2"),
        ({"optimizer": "muon"}, ArgumentError, "optimizer is"),
        ({"loss": "mse"}, ArgumentError, "loss is"),
        ({"learning_rate": -1.0}, ArgumentError, "learning_rate above 0"),
        ({"texts": []}, ArgumentError, "the texts have 0 tokens"),
        ({"texts": ["w1 w2"]}, ArgumentError, "the texts have 2 tokens"),
        ({"texts": [3]}, ArgumentError, "expected texts"),
        ({"texts": 7}, ArgumentError, "expected texts"),
        ({"learning_rate": 3e39}, NonFiniteError, "loss of step 1 is not finite"),
    ],
)
def test_bad_input(options, error, message, language_model, tokenizer):
    given = {**FAST, "texts": corpus(9), **options}
    with pytest.raises(error, match=message):
        TunedLens.train(language_model("gpt2"), tokenizer, given.pop("texts"), **given)


def test_another_model_is_refused(language_model, tokenizer):
    lens = untrained(language_model("gpt2"), tokenizer)
    model, words, world = facts_gpt()
    with pytest.raises(ArgumentError, match="6 layers of width 128"):
        lens(model, words, world.facts[0].text)
    with pytest.raises(ArgumentError, match="fill no chunk"):
        lens.evaluate(language_model("gpt2"), tokenizer, ["w1"], verbose=False)


def test_translated_vectors_keep_their_precision():
    vectors = torch.randn(3, 4, dtype=torch.bfloat16)
    found = translated(vectors, torch.zeros(4, 4), torch.zeros(4))
    assert found.dtype == torch.bfloat16 and torch.equal(found, vectors)
