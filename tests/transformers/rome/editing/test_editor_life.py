"""An editor and its statistics over time: gradient modes, changed weights, Ctrl-C, whole models."""

import copy

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.transformers.model.families import anatomy
from toumei.transformers.rome.editing import Edit, EditRequest, RankOneEditor, suffix, value
from toumei.transformers.rome.statistics import collect_statistics
from toumei.transformers.rome.weight_edits.low_rank import LowRank

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")

ASK = {"prompt": "w9 w8 {}", "subject": "w3 w4 w5", "target": "w11"}

FACTS = [("w8 {}", f"w{a} w{a + 1}", f"w{a + 20}") for a in range(2, 14, 2)]

TEXTS = [" ".join(f"w{(7 * i + k * k) % 64}" for k in range(12)) for i in range(80)]


@pytest.fixture
def model(language_model):
    return copy.deepcopy(language_model("gpt2"))


@pytest.fixture
def editor(model, tokenizer):
    statistics = collect_statistics(model, tokenizer, TEXTS, [0, 1, 2], verbose=False)
    return RankOneEditor(model, tokenizer, statistics, contexts=())


def random_edit(model, layers=(0, 1, 2), seed=0):
    draw = torch.Generator().manual_seed(seed)
    changes = {
        layer: LowRank(torch.randn(32, 1, generator=draw), torch.randn(1, 128, generator=draw))
        for layer in layers
    }
    return Edit(anatomy(model), "random", (EditRequest(**ASK),), changes)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_edits_are_made_in_any_gradient_mode(editor, mode):
    expected = editor.edit(**ASK, layer=1, steps=4).changes[1].dense
    with mode():
        assert torch.equal(editor.edit(**ASK, layer=1, steps=4).changes[1].dense, expected)


def test_statistics_that_became_stale_are_refused_at_the_next_edit(editor):
    with random_edit(editor.model, (2,)):  # an edit does not make them stale
        editor.edit(**ASK, layer=1, steps=2)
    with torch.no_grad():
        editor.model.transformer.h[0].attn.c_attn.weight[0, 0] += 1e-3
    with pytest.raises(ArgumentError, match="collect them again"):
        editor.edit(**ASK, layer=1, steps=2)


def test_statistics_of_an_edited_model_are_not_those_of_the_model(model, tokenizer):
    edit = random_edit(model, (0,))
    with edit:
        statistics = collect_statistics(model, tokenizer, TEXTS, [1], verbose=False)
        RankOneEditor(model, tokenizer, statistics)
    with pytest.raises(ArgumentError, match="other weights"):
        RankOneEditor(model, tokenizer, statistics)


def test_ctrl_c_ends_all_facts_without_an_edit(editor, monkeypatch):
    editor.batch_size, step, calls = 4, value._Group._step, []

    def interrupted(group, index):
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        step(group, index)

    monkeypatch.setattr(value._Group, "_step", interrupted)
    before = {name: tensor.clone() for name, tensor in editor.model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        editor.edit_many(FACTS, layers=[1], ridge=1.0, verbose=False)
    assert len(calls) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in editor.model.state_dict().items())


def test_a_model_whose_blocks_cannot_be_called_alone_is_optimized_as_a_whole(editor, monkeypatch):
    expected = editor.edit(**ASK, layer=1, steps=6)
    monkeypatch.setattr(suffix, "nearly_equal", lambda *_: False)
    whole = editor.edit(**ASK, layer=1, steps=6)
    torch.testing.assert_close(whole.values[0].losses, expected.values[0].losses, rtol=1e-4, atol=1e-5)
    many = editor.edit_many(FACTS[:2], layers=[1], ridge=1.0, verbose=False, steps=4)
    monkeypatch.undo()
    again = editor.edit_many(FACTS[:2], layers=[1], ridge=1.0, verbose=False, steps=4)
    torch.testing.assert_close(many.changes[1].dense, again.changes[1].dense, rtol=1e-3, atol=1e-5)


def test_the_search_for_unused_directions_is_made_once_a_layer(editor, monkeypatch):
    calls, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix) or eigh(matrix))
    for _ in range(2):
        editor.edit_many(
            FACTS[:2], layers=[1], method="alphaedit", null_threshold=10.0, steps=2, verbose=False
        )
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": [1]}, "one layer"),
        ({"layer": [1]}, "no layer"),
        ({"layer": 1, "hold": -1}, "from 0 on"),
        ({"layer": 1, "prompt": "w8 " * 70 + "{}"}, "tokens long, GPT2LMHeadModel reads at most 64"),
    ],
)
def test_what_makes_no_sense_is_said(editor, given, message):
    with pytest.raises(ArgumentError, match=message):
        editor.edit(**{**ASK, **given})


def test_contexts_that_are_too_long_for_the_model_say_so(model, tokenizer):
    with pytest.warns(UserWarning), pytest.raises(ArgumentError, match="reads at most 64"):
        RankOneEditor(model, tokenizer).edit(**ASK, layer=1, prefixes=((1, 200),))
    with pytest.raises(ArgumentError, match="batch_size"):
        RankOneEditor(model, tokenizer, batch_size=0)
    with pytest.raises(ArgumentError, match="statistics is a KeyStatistics or None, got"):
        RankOneEditor(model, tokenizer, {1: torch.eye(4)})


def test_layers_are_whole_numbers_of_any_kind(editor):
    np = pytest.importorskip("numpy")
    assert editor.edit(**ASK, layer=np.int64(1), steps=2).layers == (1,)
