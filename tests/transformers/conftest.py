"""Tiny random language models, and a tokenizer that knows the words w0 to w63."""

import pytest
from architectures import TOKENS, build
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def language_model(watched):
    """From the name of an architecture to a tiny random model of it, which the test must leave as it is."""
    return lambda kind: watched(build(kind))


@pytest.fixture(scope="session")
def tokenizer():
    """The words w0 to w63, one token each."""
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(TOKENS)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
