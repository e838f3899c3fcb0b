"""The perplexity by layer is that of the model after each surgery, and of the texts."""

from math import log

import pytest
import torch
from architectures import TOKENS, build
from matplotlib import pyplot
from torch.nn.functional import cross_entropy

from toumei.core.errors import ArgumentError
from toumei.transformers.surgery import (
    LayerPerplexities,
    block_orders,
    delete_layers,
    permute_layers,
    perplexity_by_layer,
    repeat_layers,
)

SURGERIES = {
    "delete": lambda model, layer: delete_layers(model, [layer]),
    "swap": lambda model, layer: permute_layers(model, [[1, 0, 2], [0, 2, 1]][layer]),
    "repeat": lambda model, layer: repeat_layers(model, [layer]),
}


@pytest.fixture
def texts():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(3, TOKENS, (5, 12), generator=draw)
    return [" ".join(f"w{token}" for token in row) for row in rows.tolist()]


def loss_of(model, tokens):
    with torch.no_grad():
        logits = model(tokens).logits[:, :-1]
    losses = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return losses.mean(1).double()


def tokens_of(texts, length):
    words = [int(word[1:]) for text in texts for word in text.split()]
    return torch.tensor(words[: len(words) // length * length]).unflatten(0, (-1, length))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("change", list(SURGERIES))
def test_losses_are_those_of_the_changed_model(language_model, tokenizer, texts, kind, change):
    model = language_model(kind)
    found = perplexity_by_layer(model, tokenizer, texts, change, length=10, batch_size=4)
    tokens = tokens_of(texts, 10)
    assert torch.allclose(found.before, loss_of(model, tokens), atol=1e-4)
    assert len(found) == (2 if change == "swap" else 3) and found.losses.shape[1] == len(tokens) == 6
    for row, layer in zip(found.losses, found.layers, strict=True):
        with SURGERIES[change](model, layer):
            assert torch.allclose(row, loss_of(model, tokens), atol=1e-4)


def test_models_whose_blocks_cannot_be_called_run_as_a_whole(language_model, tokenizer, texts, monkeypatch):
    model = language_model("llama")
    expected = perplexity_by_layer(model, tokenizer, texts, length=10)

    def refuse(parts):
        raise RuntimeError("no blocks")

    monkeypatch.setattr(block_orders, "BlockwiseRunner", refuse)
    found = perplexity_by_layer(model, tokenizer, texts, length=10)
    assert torch.allclose(found.losses, expected.losses, atol=1e-4)


def test_numbers_of_the_result_and_the_picture(tmp_path):
    before = torch.tensor([log(2.0), log(8.0)], dtype=torch.float64)
    rises = torch.tensor([[0.5, 0.7], [0.1, 0.1], [2.0, 1.0]], dtype=torch.float64)
    found = LayerPerplexities(
        change="delete", layers=(0, 1, 2), losses=before + rises, before=before, length=4
    )
    assert found.baseline == pytest.approx(4)
    assert torch.allclose(found.perplexities, 4 * rises.mean(1).exp())
    assert found.least(2) == (1, 0) and torch.allclose(found.rises, rises.mean(1))
    low, high = found.intervals[1].tolist()
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)
    middle = found.intervals.mean(1)
    assert torch.allclose(middle, rises.mean(1))
    found.save(tmp_path / "curve.safetensors")
    loaded = LayerPerplexities.load(tmp_path / "curve.safetensors")
    assert torch.equal(loaded.losses, found.losses) and str(loaded) == str(found)
    ax = found.plot()
    assert ax.lines[0].get_ydata().tolist() == found.perplexities.tolist() and ax.get_yscale() == "log"
    assert found.plot(ax) is ax
    pyplot.close("all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, "0 to 2"),
        ({"layers": []}, "0 to 2"),
        ({"change": "swap", "layers": [2]}, "0 to 1"),
        ({"change": "move"}, "change"),
        ({"length": 1}, "length"),
        ({"length": 60}, None),
        ({"length": 61, "max_tokens": 9}, "fill no chunk"),
        ({"length": 99}, "reads at most 64"),
        ({"texts": []}, "fill no chunk"),
    ],
)
def test_bad_input(tokenizer, texts, options, message):
    given = {"texts": texts, "length": 10, "layers": [0], **options}
    if message is None:
        assert perplexity_by_layer(build("gpt2"), tokenizer, **given).losses.shape == (1, 1)
        return
    with pytest.raises(ArgumentError, match=message):
        perplexity_by_layer(build("gpt2"), tokenizer, **given)
