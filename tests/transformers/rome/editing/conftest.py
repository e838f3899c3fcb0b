"""Editors of tiny random models."""

import pytest
from editing_helpers import CONTEXTS, corpus

from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.statistics import collect_statistics


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
