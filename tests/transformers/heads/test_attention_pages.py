"""The page of a pass's attention: its own weights and tokens, without padding."""

import json
import re

import pytest
import torch

from toumei.core.errors import ArgumentError, LayerError
from toumei.plots import attention_page as page_of_weights
from toumei.transformers import ActivationCache, HookedModel, attention_page


@pytest.fixture
def hooked(language_model, tokenizer):
    return HookedModel(language_model("llama"), tokenizer)


def test_it_is_the_page_of_the_weights_and_tokens_of_the_pass(hooked):
    texts = ["w5 w6 w7 w8", "w9 w10"]
    cache = hooked.run_with_cache(texts)[1]
    patterns = {str(layer): cache["pattern", layer] for layer in range(3)}
    tokens = [["w5", "w6", "w7", "w8"], ["w9", "w10", "", ""]]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert attention_page(cache).html == page_of_weights(patterns, tokens, mask=mask).html
    one = attention_page(cache.rows(slice(0, 1)).remove_batch_dim(), 1, title="First")
    assert one.html == page_of_weights({"1": patterns["1"][:1]}, tokens[:1], title="First").html
    assert attention_page(cache, [0, -1]).layers == 2


def test_tokens_may_be_given_and_must_be_for_a_loaded_cache(hooked, tmp_path):
    hooked.run_with_cache("w5 w6", "pattern")[1].save(tmp_path / "cache.safetensors")
    loaded = ActivationCache.load(tmp_path / "cache.safetensors")
    with pytest.raises(ArgumentError, match="does not know the tokens"):
        attention_page(loaded, 0)
    page = attention_page(loaded, -1, tokens=["a", "b"])
    assert '"a"' in page.html and (page.layers, page.texts) == (1, 1)
    with pytest.raises(LayerError):
        attention_page(hooked.run_with_cache("w5 w6", "z")[1])
    with pytest.raises(LayerError, match="pattern"):
        attention_page(loaded, 5)


def test_token_ids_stand_for_themselves_without_a_tokenizer(language_model):
    cache = HookedModel(language_model("gpt2")).run_with_cache([3, 41], "pattern")[1]
    assert re.search(r'"41"', attention_page(cache, 0).html)
    assert json.dumps(cache.texts.tokens()) == '[["3", "41"]]'
