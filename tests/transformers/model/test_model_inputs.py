"""Texts, chats, ids, encodings and pictures reach the model as its tokenizer means them."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from architectures import build
from encoders import build_encoder
from tokenizers.processors import TemplateProcessing

from toumei.core.errors import ArgumentError, ToumeiError
from toumei.transformers.model.hooked_model import HookedModel

CHAT = "w1 {% for message in messages %}{{ message['content'] }} {% endfor %}w9"


@pytest.fixture
def starting(tokenizer):
    """A tokenizer that begins every text with w1, and has chats that begin with it already."""
    tokenizer = deepcopy(tokenizer)
    tokenizer.bos_token, tokenizer.pad_token, tokenizer.chat_template = "w1", "w0", CHAT
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="w1 $A", special_tokens=[("w1", 1)]
    )
    return tokenizer


@pytest.fixture
def hooked_of(watched, starting):
    return lambda kind="gpt2": HookedModel(watched(build(kind)), starting)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ("w3 w4", [[1, 3, 4]]),
        ("w1 w3 w4", [[1, 3, 4]]),
        (["w3 w4", "w5 w6"], [[1, 3, 4], [1, 5, 6]]),
        ([3, 4], [[3, 4]]),
        ([[3, 4], [5, 6]], [[3, 4], [5, 6]]),
        (torch.tensor([3, 4]), [[3, 4]]),
        (np.array([[3, 4]]), [[3, 4]]),
        ([np.int64(3), np.int64(4)], [[3, 4]]),
        ([torch.tensor([3, 4]), np.array([5, 6])], [[3, 4], [5, 6]]),
        (np.array(["w3 w4", "w5 w6"]), [[1, 3, 4], [1, 5, 6]]),
        (("w3 w4", "w5 w6"), [[1, 3, 4], [1, 5, 6]]),
        ([{"role": "user", "content": "w3"}], [[1, 3, 9]]),
        ([[{"role": "user", "content": "w3"}], [{"role": "user", "content": "w4"}]], [[1, 3, 9], [1, 4, 9]]),
    ],
)
def test_every_kind_of_input_has_its_tokens(hooked_of, given, tokens):
    hooked = hooked_of()
    assert hooked.to_tokens(given).tolist() == tokens
    assert torch.equal(hooked(given), hooked.model(torch.tensor(tokens)).logits)


def test_encodings_go_in_as_they_are(hooked_of, starting):
    hooked = hooked_of()
    given = starting(["w3 w4", "w5"], return_tensors="pt", padding=True)
    given.pop("token_type_ids", None)
    assert torch.equal(hooked(given), hooked.model(**given).logits)


def test_texts_of_tokens(hooked_of):
    assert hooked_of().to_str_tokens("w3 w4") == ["w1", "w3", "w4"]
    with pytest.raises(ArgumentError, match="one text"):
        hooked_of().to_str_tokens(["w3", "w4"])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bloom", "opt"])
def test_a_padded_batch_has_the_values_of_each_text_alone(hooked_of, kind):
    hooked = hooked_of(kind)
    texts = ["w3 w4 w5 w6 w7", "w8 w9"]
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(texts, ["resid_post", "z", "pattern"])
        for row, text in enumerate(texts):
            alone, single = hooked.run_with_cache(text, ["resid_post", "z", "pattern"])
            length = alone.shape[1]
            torch.testing.assert_close(logits[row, :length], alone[0], rtol=1e-4, atol=1e-4)
            for name in ("resid_post", "z"):
                torch.testing.assert_close(
                    cache[name, 2][row, :length], single[name, 2][0], rtol=1e-4, atol=1e-4
                )
            pattern = cache["pattern", 1][row, :, :length, :length]
            torch.testing.assert_close(pattern, single["pattern", 1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox"])
def test_left_padding_with_the_positions_of_generation(hooked_of, starting, kind):
    hooked = hooked_of(kind)
    texts = ["w3 w4 w5 w6 w7", "w8 w9"]
    inputs = hooked.inputs(texts, left=True)
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        _, cache = hooked.run_with_cache({**inputs, "position_ids": positions}, ["z", "pattern"])
        for row, text in enumerate(texts):
            _, single = hooked.run_with_cache(text, ["z", "pattern"])
            length = single["z", 1].shape[1]
            torch.testing.assert_close(cache["z", 2][row, -length:], single["z", 2][0], rtol=1e-4, atol=1e-4)
            pattern = cache["pattern", 1][row, :, -length:, -length:]
            torch.testing.assert_close(pattern, single["pattern", 1][0], rtol=1e-4, atol=1e-5)
            assert not cache["pattern", 1][row, :, -length:, :-length].any()


def test_encoders_read_all_tokens_of_their_tokenizer(watched, starting):
    hooked = HookedModel(watched(build_encoder("bert")), starting)
    assert hooked.to_tokens("w1 w3").tolist() == [[1, 1, 3]]  # no document begins, the tokenizer counts
    with torch.no_grad():
        _, cache = hooked.run_with_cache(["w3 w4 w5", "w6"], ["z"])
        _, alone = hooked.run_with_cache("w6", ["z"])
    torch.testing.assert_close(cache["z", 2][1, :2], alone["z", 2][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        "",
        [],
        None,
        3,
        3.5,
        ["w3", ""],
        [3, "w4"],
        [[]],
        [[3], []],
        torch.ones(2, 3),
        torch.zeros(1, 2, 3).long(),
        [3.0, 4.0],
        [-1],
        [64],
        torch.tensor([[3, 99]]),
        {"input_ids": torch.tensor([[3, 99]])},
        torch.tensor(3),
        torch.zeros(0).long(),
        torch.tensor([True, False]),
        {"text": "w3"},
    ],
)
def test_what_is_no_input_is_refused(hooked_of, given):
    with pytest.raises(ToumeiError):
        hooked_of()(given)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gptj", "gpt_neo"])
def test_more_tokens_than_positions_are_refused(hooked_of, kind):
    hooked = hooked_of(kind)
    assert hooked([5] * 64).shape == (1, 64, 64)
    with pytest.raises(ArgumentError, match="reads at most 64"):
        hooked([5] * 65)


@pytest.mark.parametrize(("kind", "most"), [("bert", 40), ("roberta", 38), ("clip_text_model", 40)])
def test_encoders_have_their_positions(watched, kind, most):
    hooked = HookedModel(watched(build_encoder(kind)))
    hooked([5] * most)
    with pytest.raises(ArgumentError, match=f"reads at most {most}"):
        hooked([5] * (most + 1))


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_models_that_compute_positions_read_more_of_them(hooked_of, kind):
    assert hooked_of(kind)([5] * 70).shape == (1, 70, 64)


def test_t5_computes_its_positions_too(watched):
    assert HookedModel(watched(build_encoder("t5")))([5] * 600).shape == (1, 600, 32)


def test_without_a_tokenizer_only_ids_go_in(watched):
    hooked = HookedModel(watched(build("gpt2")))
    assert hooked([3, 4]).shape == (1, 2, 64)
    for given in ("w3", ["w3"], [{"role": "user", "content": "w3"}]):
        with pytest.raises(ArgumentError, match="no tokenizer"):
            hooked(given)
    with pytest.raises(ArgumentError, match="no tokenizer"):
        hooked.to_str_tokens([3])


def test_a_tokenizer_without_chats_says_so(watched, tokenizer):
    with pytest.raises(ArgumentError, match="chat"):
        HookedModel(watched(build("gpt2")), tokenizer)([{"role": "user", "content": "w3"}])
