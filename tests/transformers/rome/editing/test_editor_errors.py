"""The editor names bad input before anything runs."""

import pytest
from editing_helpers import ASK, FACTS, corpus, probability

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.editing.requests import EditRequest
from toumei.transformers.rome.statistics import collect_statistics

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "w1 w2"}, "one {}"),
        ({"prompt": "{} and {}"}, "one {}"),
        ({"subject": " "}, "subject with words"),
        ({"target": ""}, "target with words"),
        ({"layer": 3}, "no layer 3"),
        ({"layer": -1}, "no layer -1"),
        ({"layer": None}, "give the layer"),
        ({"method": "mend"}, "no method 'mend'"),
        ({"speed": 3}, "no setting 'speed'"),
        ({"hold": ["w1"]}, "one {}"),
    ],
)
def test_bad_input_is_named_before_anything_runs(given, message, editor):
    with pytest.raises(ArgumentError, match=message):
        editor.edit(**{**ASK, "layer": 1, **given})


def test_bad_input_of_many_facts(editor):
    with pytest.raises(ArgumentError, match="got none"):
        editor.edit_many([], layers=[1])
    with pytest.raises(ArgumentError, match="at once"):
        editor.edit_many([FACTS[0], EditRequest(FACTS[0].prompt, FACTS[0].subject, "w60")], layers=[1])
    with pytest.raises(ArgumentError, match="one fact at a time"):
        editor.edit_many(FACTS, layers=[1], method="rome")
    with pytest.raises(ArgumentError, match="target missing"):
        editor.edit_many([{"prompt": "{} w1", "subject": "w2"}], layers=[1])
    with pytest.raises(ArgumentError, match="edits one layer"):
        editor.edit_many(FACTS[:1], layers=[0, 1], method="rome")


def test_contexts_and_statistics_that_do_not_fit(language_model, tokenizer, editor):
    with pytest.raises(ArgumentError, match="one {}"):
        RankOneEditor(editor.model, tokenizer, contexts=["no place"])
    with pytest.raises(ArgumentError, match="other weights"):
        RankOneEditor(language_model("llama"), tokenizer, editor.statistics)
    partial = collect_statistics(editor.model, tokenizer, corpus(20), [0], verbose=False)
    with pytest.raises(ArgumentError, match="no statistics of layer 1"):
        RankOneEditor(editor.model, tokenizer, partial).edit(**ASK, layer=1)


def test_a_trace_that_finds_a_layer_without_statistics(language_model, tokenizer, editor):
    found = editor.edit(**ASK, layer="trace", steps=1).layers[0]
    others = [layer for layer in range(3) if layer != found]
    partial = collect_statistics(editor.model, tokenizer, corpus(20), others, verbose=False)
    with pytest.raises(ArgumentError, match=f"the trace finds layer {found}, which has no statistics"):
        RankOneEditor(editor.model, tokenizer, partial).edit(**ASK, layer="trace")


@pytest.mark.parametrize(("kind", "message"), [("mixtral", "mixture of experts"), ("mamba", "state-space")])
def test_models_without_a_down_projection_say_why(kind, message, language_model, tokenizer):
    with pytest.raises(ArchitectureError, match=message):
        RankOneEditor(language_model(kind), tokenizer).edit(**ASK, layer=1)


def test_without_statistics_it_says_what_that_costs(language_model, tokenizer):
    editor = RankOneEditor(language_model("gpt2"), tokenizer, contexts=())
    with pytest.warns(UserWarning, match="identity"):
        edit = editor.edit(**ASK, layer=1)
    with edit:
        assert probability(editor.model, tokenizer, EditRequest(**ASK)) > 0.3
