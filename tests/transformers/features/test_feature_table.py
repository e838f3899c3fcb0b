"""Features as one can read them, against plain passes over the texts."""

from dataclasses import replace

import pytest
import torch
from architectures import build

from toumei.core.errors import ArgumentError
from toumei.plots import shade
from toumei.transformers import HookedModel
from toumei.transformers.features import FeatureTable, SparseAutoencoder, direct_logits, show_features

NAME = "blocks.1.hook_resid_post"
TEXTS = [
    " ".join(f"w{(7 * text + place * place) % 64}" for place in range(4 + text % 4)) for text in range(12)
]


@pytest.fixture
def model(watched, tokenizer):
    return HookedModel(watched(build("gpt2")), tokenizer)


@pytest.fixture
def dictionary():
    draw = torch.Generator().manual_seed(0)
    directions = torch.randn(6, 32, generator=draw)
    return SparseAutoencoder.of_directions(directions, reads=NAME)


def test_the_strongest_texts_are_those_of_plain_passes(model, dictionary):
    table = show_features(dictionary, model, TEXTS, [4, 1], top=3, before=2, after=1, batch_size=5)
    assert table.features == (4, 1)
    with torch.no_grad():
        active = [dictionary.encode(model.activations(text, [NAME])[NAME])[0] for text in TEXTS]
    for row, feature in enumerate(table.features):
        best = sorted(
            (
                (float(one[1:, feature].max()), text, int(one[1:, feature].argmax()) + 1)
                for text, one in enumerate(active)
            ),
            reverse=True,
        )
        for place, (value, text, at) in enumerate(best[:3]):
            assert float(table.values[row, place]) == pytest.approx(max(value, 0.0), abs=1e-5)
            words = TEXTS[text].split()[max(0, at - 2) : at + 2]
            assert [word.strip() for word in table.texts[row][place]] == words
            around = active[text][max(0, at - 2) : at + 2, feature].clone()
            if at <= 2:
                around[0] = 0 if at - 2 <= 0 else around[0]  # the first token does not count
            torch.testing.assert_close(
                table.activations[row, place, : len(words)], around, atol=1e-5, rtol=1e-5
            )
        total = torch.cat([one[1:, feature] for one in active])
        assert float(table.rates[row]) == pytest.approx(float((total > 0).float().mean()))


def test_a_feature_that_is_never_active_has_no_texts(model, dictionary):
    silent = replace(dictionary, b_enc=torch.tensor([-1e6, 0, 0, 0, 0, 0]))
    table = show_features(silent, model, TEXTS, [0, 1])
    assert not any(table.texts[0]) and table.values[0].max() == table.rates[0] == 0
    assert any(table.texts[1]) and str(table).count("never active") == 1


def test_direct_logits_go_through_final_norm_and_unembedding(model, dictionary):
    found = direct_logits(dictionary, model, [2, 5])
    inner = model.model
    for row, feature in enumerate((2, 5)):
        direction = dictionary.W_dec[feature]
        expected = inner.lm_head.weight @ ((direction - direction.mean()) * inner.transformer.ln_f.weight)
        torch.testing.assert_close(found[row], (expected - expected.mean()).detach(), atol=1e-5, rtol=1e-4)
    table = show_features(dictionary, model, TEXTS, [2, 5], tokens=3)
    for row in range(2):
        assert table.promoted_logits[row].tolist() == pytest.approx(
            found[row].topk(3).values.tolist(), rel=1e-5
        )
        worst = [f"w{index}" for index in found[row].topk(3, largest=False).indices.tolist()]
        assert [word.strip() for word in table.suppressed[row]] == worst


def test_a_table_is_a_page_a_picture_and_a_file(model, dictionary, tmp_path):
    table = show_features(dictionary, model, TEXTS, top=2)
    page = table.page()
    assert page.count("<h2>") == 6 and page.count('class="text"') == int((table.values > 0).sum())
    table.save_page(tmp_path / "new" / "features.html")
    assert (tmp_path / "new" / "features.html").read_text() == page
    table.save(tmp_path / "table.safetensors")
    again = FeatureTable.load(tmp_path / "table.safetensors")
    assert again.texts == table.texts and torch.equal(again.activations, table.activations)
    assert table.plot(feature=3, texts=2).get_title().startswith("feature 3: promotes")
    shown = table.plot(feature=3, texts=2)
    assert len({text.get_text() for text in shown.texts[1::2]}) > 2
    shades = {}
    for patch, number in zip(shown.patches, shown.texts[1::2], strict=True):
        shades.setdefault(number.get_text(), set()).add(patch.get_facecolor())
    strongest = max(shades, key=lambda number: abs(float(number)))
    full = tuple(byte / 255 for byte in shade(1.0))
    assert [number for number, colors in shades.items() if (*full, 1.0) in colors] == [strongest]
    assert len(str(table).splitlines()) == 7 and "iframe" in table._repr_html_()
    with pytest.raises(ArgumentError, match="there are features"):
        table.plot(feature=99)


def test_features_that_do_not_exist_or_write_elsewhere_are_refused(model, dictionary):
    with pytest.raises(ArgumentError, match="features are"):
        show_features(dictionary, model, TEXTS, [6])
    with pytest.raises(ArgumentError, match="empty"):
        show_features(dictionary, model, [])
    name = "blocks.1.mlp.hook_post"
    width = model.activations("w1", [name])[name].shape[-1]
    neurons = SparseAutoencoder.of_directions(torch.eye(width)[:4], reads=name)
    with pytest.raises(ArgumentError, match="residual stream"):
        direct_logits(neurons, model, [0])
    assert show_features(neurons, model, TEXTS).promoted == ((), (), (), ())
