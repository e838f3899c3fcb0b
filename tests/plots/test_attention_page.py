"""The page of attention holds the weights, needs no network, and shows them in a browser if there is one."""

import json
import re
import subprocess
from base64 import b64decode
from html import unescape
from shutil import which

import numpy as np
import pytest
import torch

from toumei.core.errors import ArgumentError, NonFiniteError, ShapeError
from toumei.plots import attention_page

BROWSER = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
ODD = ("</script><!--", "<b>", " a\n", "\t", "", "\u202e", "é\u00a0", '"&')


def random_layers(*heads, batch=1, queries=8, keys=8, causal=False):
    generator = torch.Generator().manual_seed(0)
    layers = [2 * torch.randn(batch, count, queries, keys, generator=generator) for count in heads]
    hidden = torch.ones(queries, keys).triu(1) == 1
    return [(scores.masked_fill(hidden, -torch.inf) if causal else scores).softmax(-1) for scores in layers]


def data_of(page):
    return json.loads(re.search(r"^const data = (.*);$", page.html, re.MULTILINE).group(1))


def weights_of(text):
    """All weights of a text, (heads, query, key), decoded from the page."""
    shares = (np.frombuffer(b64decode(text["weights"]), np.uint8) / 255) ** 2
    rows, columns = len(text["queries"]), len(text["keys"] or text["queries"])
    if not text["triangle"]:
        return shares.reshape(-1, rows, columns)
    whole = np.zeros((len(shares) // (rows * (rows + 1) // 2), rows, rows))
    for packed, square in zip(shares.reshape(len(whole), -1), whole, strict=True):
        square[np.tril_indices(rows)] = packed
    return whole


def assert_near(found, expected):
    assert (np.abs(found - expected.numpy()) <= 0.004 * np.sqrt(expected.numpy()) + 1e-5).all()


@pytest.mark.parametrize("causal", [True, False])
def test_the_page_holds_all_weights(causal):
    layers = random_layers(3, 2, causal=causal)
    page = attention_page(layers, ODD)
    data = data_of(page)
    (text,) = data["texts"]
    assert text["triangle"] is causal and data["layers"] == [
        {"name": "0", "heads": 3},
        {"name": "1", "heads": 2},
    ]
    assert_near(weights_of(text), torch.cat([layer[0] for layer in layers]))
    assert (page.layers, page.heads, page.texts) == (2, 5, 1) and len(repr(page)) < 200


def test_tokens_are_shown_as_they_are_and_do_not_change_the_page():
    page = attention_page(random_layers(2), ODD, title="<i>Title</i>")
    assert data_of(page)["texts"][0]["queries"] == [token.replace("\u202e", "\ufffd") for token in ODD]
    assert page.html.count("<script") == page.html.count("</script>") == 1
    assert "<b></b>" in page.html and "<i>Title" not in page.html and "\u202e" not in page.html


def test_the_page_needs_no_other_file(tmp_path):
    page = attention_page(random_layers(2), ODD)
    assert not re.search(r"https?:|//[a-z]|@import|\bsrc=|\bhref=|url\(", page.html)
    page.save(tmp_path / "new" / "attention.html")
    assert (tmp_path / "new" / "attention.html").read_text(encoding="utf-8") == page.html


def test_names_of_layers_and_the_first_head():
    layers = random_layers(2, 2)
    data = data_of(attention_page({"h.3": layers[0], "h.7": layers[1]}, ODD, head=(1, 0)))
    assert [layer["name"] for layer in data["layers"]] == ["h.3", "h.7"] and data["head"] == [1, 0]
    stacked = attention_page(torch.stack(layers), ODD)
    assert stacked.html == attention_page(tuple(layers), ODD).html


def test_padding_is_left_out_on_either_side():
    (layer,) = random_layers(2, batch=2)
    mask = torch.ones(2, 8)
    mask[0, :3] = 0
    layer[0, :, :3] = torch.nan
    layer[0, :, 3:] = random_layers(2, queries=5)[0][0]
    tokens = list("abcdefgh")
    for given in ([tokens, tokens], [tokens[3:], tokens]):
        first, second = data_of(attention_page([layer], given, mask=mask))["texts"]
        assert first["queries"] == tokens[3:] and second["queries"] == tokens
        assert_near(weights_of(first), layer[0, :, 3:, 3:])
        assert_near(weights_of(second), layer[1])
    assert first["name"] == "1: defgh"


def test_cross_attention_has_keys_of_its_own():
    (layer,) = random_layers(2, batch=2, queries=3, keys=5)
    key_mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    queries, keys = [["a", "b", "c"]] * 2, [["u", "v", "w"], list("uvwxy")]
    first, second = data_of(attention_page([layer], queries, keys=keys, key_mask=key_mask))["texts"]
    assert first["keys"] == ["u", "v", "w"] and second["counts"] == [3, 5] and not second["triangle"]
    assert_near(weights_of(first), layer[0, :, :, :3])
    assert_near(weights_of(second), layer[1])
    square = attention_page(
        random_layers(1, queries=3, keys=3, causal=True), queries[0], keys=["u", "v", "w"]
    )
    assert data_of(square)["texts"][0]["triangle"] is False


@pytest.mark.parametrize("causal", [True, False])
def test_long_texts_are_shown_in_blocks_whose_rows_keep_their_sums(causal):
    layers = random_layers(2, 1, queries=50, keys=50, causal=causal)
    tokens = [chr(97 + place % 26) for place in range(50)]
    (text,) = data_of(attention_page(layers, tokens, most_tokens=16))["texts"]
    assert text["block"] == [4, 4] and text["counts"] == [50, 50] and text["triangle"] is causal
    assert text["queries"][0] == "abcd" and text["queries"][-1] == "wx" and len(text["queries"]) == 13
    found = weights_of(text)
    for head, whole in enumerate(torch.cat([layer[0] for layer in layers]).double().numpy()):
        for query, key in ((0, 0), (5, 2), (12, 12), (12, 3)):
            rows, columns = slice(4 * query, 4 * query + 4), slice(4 * key, 4 * key + 4)
            expected = whole[rows, columns].sum() / len(whole[rows])
            assert found[head, query, key] == pytest.approx(expected, abs=0.004)
    assert found.sum(-1) == pytest.approx(np.ones((3, 13)), abs=0.02)


def test_blocks_of_a_head_that_steps_back():
    """Of four tokens in a block, one attends to a token in the block before."""
    previous = torch.eye(32).roll(-1, 1)
    previous[0] = torch.eye(32)[0]
    found = weights_of(
        data_of(attention_page([previous[None, None]], ["a"] * 32, most_tokens=8))["texts"][0]
    )[0]
    assert found[3, 3] == pytest.approx(0.75, abs=0.004) and found[3, 2] == pytest.approx(0.25, abs=0.002)


def test_a_model_of_12_layers_of_12_heads_takes_less_than_a_megabyte():
    layers = random_layers(*[12] * 12, queries=64, keys=64)
    page = attention_page(layers, [f" {place}" for place in range(64)])
    assert len(page.html) < 1e6


def test_a_notebook_shows_pages_in_frames_of_their_own():
    pages = [attention_page(random_layers(count), ODD) for count in (1, 2)]
    for page in pages:
        frame = re.fullmatch(r'<iframe srcdoc="([^"]*)"[^<>]*></iframe>', page._repr_html_())
        assert unescape(frame.group(1)) == page.html


@pytest.mark.parametrize(
    ("attentions", "tokens", "options", "error", "message"),
    [
        ([], ODD, {}, ArgumentError, "there is no layer"),
        ([torch.rand(1, 8, 8)], ODD, {}, ShapeError, r"\(batch, heads, query, key\) of layer '0'"),
        (
            [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 7, 7)],
            ODD,
            {},
            ShapeError,
            "the same texts and tokens",
        ),
        (
            [torch.zeros(1, 2, 8, 8)],
            ODD[:3],
            {},
            ShapeError,
            "text 0 has 3 tokens, its attention weights have 8",
        ),
        ([torch.zeros(2, 2, 8, 8)], ODD, {}, ShapeError, "tokens of 2 texts, got 1"),
        ([torch.zeros(1, 2, 8, 9)], ODD, {}, ArgumentError, "8 and 9: give the keys"),
        ([torch.randn(1, 2, 8, 8)], ODD, {}, ArgumentError, "from 0 to 1, got"),
        ([torch.full((1, 2, 8, 8), torch.nan)], ODD, {}, NonFiniteError, "NaN"),
        ([torch.zeros(1, 2, 8, 8)], ODD, {"head": (0, 2)}, ArgumentError, "no head 2 in layer 0"),
        ([torch.zeros(1, 2, 8, 8)], ODD, {"mask": torch.zeros(1, 8)}, ArgumentError, "text 0 has no tokens"),
        ([torch.zeros(1, 2, 8, 8)], ODD, {"mask": torch.ones(1, 7)}, ShapeError, "a mask of tokens"),
        ([torch.zeros(1, 2, 8, 8)], ODD, {"most_tokens": 1}, ArgumentError, "most_tokens"),
    ],
)
def test_what_cannot_be_shown_is_refused(attentions, tokens, options, error, message):
    with pytest.raises(error, match=message):
        attention_page(attentions, tokens, **options)


def answered(page, script, folder):
    """What a browser makes of a script in the page, by way of its title."""
    end = f"document.title = encodeURIComponent(JSON.stringify((() => {{ {script} }})()));</script>"
    (folder / "page.html").write_text(page.html.replace("</script>", end), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = [BROWSER, *options, "--dump-dom", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    from urllib.parse import unquote

    return json.loads(unquote(re.search("<title>(.*?)</title>", done.stdout).group(1)))


@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
def test_a_browser_opens_the_page_soon_and_answers_to_the_pointer(tmp_path):
    layers = random_layers(*[12] * 12, queries=64, keys=64, causal=True)
    tokens = ["<b>", " the\n", *(f" {place}" for place in range(62))]
    script = """
    document.body.getBoundingClientRect();
    const opened = performance.now(), all = (css) => [...document.querySelectorAll(css)];
    const alphas = (one, style) => Number((getComputedStyle(one)[style].match(/[\\d.]+(?=\\)$)/) || [0])[0]);
    all("#grid button")[29].click();
    all("#queries .token")[40].dispatchEvent(new PointerEvent("pointerenter"));
    const tokens = all("#queries .token");
    const to = tokens.map((one) => alphas(one, "backgroundColor"));
    const by = tokens.map((one) => alphas(one, "borderBottomColor"));
    const lists = ["to", "by"].map((id) => all(`#${id} li`).map((one) => one.innerText.replace("\\n", " ")));
    tokens[7].click();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
    const kept = all("#queries .at").map((one) => one.dataset.at);
    const heads = all("#grid canvas").length;
    return { opened, heads, words: tokens.slice(0, 2).map((one) => one.textContent),
      to, by, lists, kept, name: element("name").textContent };"""
    found = answered(attention_page(layers, tokens), script, tmp_path)
    assert found["opened"] < 3000 and found["heads"] == 144
    assert found["words"] == ["<b>", "·the↵"]
    head = layers[2][0, 5]
    assert found["to"] == pytest.approx((0.7 * head[40].sqrt()).tolist(), abs=0.01)
    assert found["by"] == pytest.approx(head[:, 40].sqrt().tolist(), abs=0.01)
    most = int(head[40].argmax())
    assert re.search(rf" {most}\b", found["lists"][0][0])
    assert float(found["lists"][0][0].split()[-1]) == pytest.approx(float(head[40].max()), abs=0.01)
    assert found["kept"] == ["7"] and found["name"] == "layer 3 · head 5", "the arrow key goes a layer down"
