"""Contexts that are sampled from a model."""

import copy

import pytest

from toumei.transformers.model.families import anatomy


@pytest.fixture
def model(language_model):
    return copy.deepcopy(language_model("gpt2"))


def test_long_prefixes_do_not_repeat_the_short_ones(model, tokenizer):
    from toumei.transformers.model.sampling import sample_contexts

    contexts = sample_contexts(anatomy(model), tokenizer, ((4, 3), (4, 6)))
    short, long = ([context.split()[:3] for context in part] for part in (contexts[:4], contexts[4:]))
    assert len(contexts) == 8 and [[w.strip(".") for w in words] for words in short] != long
