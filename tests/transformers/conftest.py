"""Tiny random language models with a tokenizer that knows the words w0 to w63, their tracers and editors."""

import pytest
from architectures import SHARED, TOKENS, build
from editing_helpers import CONTEXTS, corpus
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from toumei.transformers import CausalTracer, RankOneEditor, collect_statistics
from toumei.transformers.model import hooked_model
from toumei.transformers.model.trial import hook_points_of
from toumei.transformers.surgery.surgery import forget_captures


@pytest.fixture(scope="session", autouse=True)
def known_hook_points():
    """Hook points of the models that tests share are searched for once, for each way to compute attention."""
    found = {}

    def once(model):
        if id(model) not in SHARED:
            return hook_points_of(model)
        kind = model.config._attn_implementation, *map(id, model.modules())
        if kind not in found:
            found[kind] = hook_points_of(model)
        return found[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooked_model, "hook_points_of", once)
        yield


@pytest.fixture
def language_model(watched):
    """From the name of an architecture to a tiny random model of it, which the test must leave as it is."""

    # transformers puts up hooks when hidden states are asked for; they stay, and cannot be pickled
    given = []

    def fresh(kind):
        forget_captures(build(kind))
        given.append(build(kind))
        return watched(build(kind))

    yield fresh
    for model in given:
        forget_captures(model)


@pytest.fixture(scope="session")
def tokenizer():
    """The words w0 to w63, one token each."""
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(TOKENS)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


@pytest.fixture
def tracer_of(language_model, tokenizer):
    """From the name of an architecture to a tracer of a tiny random model of it."""
    return lambda kind="gpt2": CausalTracer(language_model(kind), tokenizer)


@pytest.fixture
def editor_of(language_model, tokenizer):
    """From the name of an architecture to an editor with statistics of all layers of a tiny model of it."""

    def build(kind, count=20, contexts=CONTEXTS):
        model = language_model(kind)
        statistics = collect_statistics(model, tokenizer, corpus(count), [0, 1, 2], verbose=False)
        return RankOneEditor(model, tokenizer, statistics, contexts=contexts)

    return build


@pytest.fixture
def editor(editor_of):
    return editor_of("gpt2")


@pytest.fixture
def exact(editor_of):
    """An editor that reads a subject in the bare prompt only, where an edit is exact then."""
    return editor_of("gpt2", contexts=())
