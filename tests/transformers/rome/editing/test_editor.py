"""Edits of tiny models write what they should, and leave everything else as it was."""

import copy

import pytest
import torch
from editing_helpers import (
    ASK,
    CONTEXTS,
    EDITABLE,
    FACTS,
    MANY,
    PROMPT,
    SUBJECT,
    TARGET,
    corpus,
    probability,
    same,
    weights,
)

from toumei.core.errors import ArchitectureError
from toumei.core.hooks import run
from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.editing.requests import EditRequest, subject_text
from toumei.transformers.rome.statistics import collect_statistics

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")


@pytest.mark.parametrize("kind", EDITABLE)
def test_an_edit_writes_the_fact_and_only_inside_the_block(kind, editor_of, tokenizer):
    editor = editor_of(kind, contexts=())
    request, before = EditRequest(**ASK), weights(editor.model)
    low = probability(editor.model, tokenizer, request)
    edit = editor.edit(**ASK, layer=1)
    assert same(editor.model, before) and not edit.applied
    with edit:
        assert edit.applied and not same(editor.model, before)
        assert probability(editor.model, tokenizer, request) > max(0.05, 5 * low)
        with torch.no_grad():  # tied names read the same weights, and only the down-projection differs
            changed = [n for n, t in editor.model.state_dict().items() if not torch.equal(t, before[n])]
    assert changed == [f"{editor.parts.down(1)}.weight"] and same(editor.model, before)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["rome", "r-rome"])
def test_the_edited_layer_gives_the_key_its_value(kind, method, editor_of, tokenizer):
    editor = editor_of(kind)
    edit = editor.edit(**ASK, layer=1, method=method)
    down = editor.parts.down(1)
    rows = [subject_text(tokenizer, context.replace("{}", PROMPT), SUBJECT) for context in ("{}", *CONTEXTS)]
    keys = [
        run(editor.model, torch.tensor([r.ids]), record=[down], inputs=True, detach=True)[down][0, r.subject]
        for r in rows
    ]
    key = keys[0] if method == "rome" else torch.stack(keys).mean(0)
    module = editor.parts.module(down)
    with torch.no_grad():
        old = module(key[None])[0]
        with edit:
            new = module(key[None])[0]
    assert torch.allclose(new - old, edit.values[0].delta, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", MANY)
@pytest.mark.parametrize("layers", [[1], [0, 1, 2]])
def test_many_facts_are_written_at_once(method, layers, editor_of, tokenizer):
    editor = editor_of("llama", count=120, contexts=())
    options = {"ridge": 1e-3, "null_threshold": 1.0, "null_ridge": 1e-3}
    edit = editor.edit_many(FACTS, layers=layers, method=method, verbose=False, steps=25, **options)
    assert edit.layers == tuple(layers) and all(change.left.shape[1] == 4 for change in edit.changes.values())
    before = [probability(editor.model, tokenizer, fact) for fact in FACTS]
    with edit:
        after = [probability(editor.model, tokenizer, fact) for fact in FACTS]
    assert all(high > low + 0.2 for high, low in zip(after, before, strict=True))


@pytest.mark.parametrize("kind", EDITABLE)
def test_methods_for_many_facts_need_an_mlp_that_joins_the_stream_as_it_is(kind, editor_of):
    editor = editor_of(kind, contexts=())
    options = {"layers": [1], "ridge": 1e-3, "steps": 2, "verbose": False}
    if kind in ("gemma2", "olmo2"):
        with pytest.raises(ArchitectureError, match="joins the residual stream"):
            editor.edit_many(FACTS, **options)
    else:
        assert editor.edit_many(FACTS, **options).layers == (1,)


def test_one_seed_gives_one_edit(language_model, tokenizer):
    model = language_model("gpt2")
    statistics = collect_statistics(model, tokenizer, corpus(20), [1], verbose=False)
    state = torch.get_rng_state()
    edits = [
        RankOneEditor(model, tokenizer, statistics, seed=seed).edit(
            **ASK, layer=1, steps=3, prefixes=((2, 4),)
        )
        for seed in (0, 0, 1)
    ]
    first, second, third = (edit.changes[1].dense for edit in edits)
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_edited(dtype, language_model, tokenizer, watched):
    model = watched(copy.deepcopy(language_model("llama")).to(dtype))
    statistics = collect_statistics(model, tokenizer, corpus(20), [1], verbose=False)
    edit = RankOneEditor(model, tokenizer, statistics, contexts=()).edit(**ASK, layer=1)
    with edit:
        assert probability(model, tokenizer, EditRequest(**ASK)) > 0.3


def test_edits_in_sequence_build_on_each_other(exact, tokenizer):
    with exact.edit(**ASK, layer=1), exact.edit("w8 {}", "w6 w2", "w12", layer=1):
        assert probability(exact.model, tokenizer, EditRequest("w8 {}", "w6 w2", "w12")) > 0.3
        assert probability(exact.model, tokenizer, EditRequest(**ASK)) > 0.2


def test_alphaedit_spares_what_it_wrote_before(editor_of):
    editor = editor_of("llama", count=120)
    options = {
        "layers": [1],
        "method": "alphaedit",
        "null_threshold": 1.0,
        "null_ridge": 1e-3,
        "verbose": False,
        "steps": 4,
    }
    with editor.edit_many(FACTS[:2], **options) as first:
        aware = editor.edit_many(FACTS[2:], **options).changes[1]
    moved = (first.changes[1].keys @ aware.right.T).norm() / first.changes[1].keys.norm()
    unaware = editor.edit_many(FACTS[2:], **options).changes[1]
    assert moved < 0.2 * (first.changes[1].keys @ unaware.right.T).norm() / first.changes[1].keys.norm()


def test_the_layer_of_a_trace(editor):
    edit = editor.edit(**ASK, layer="trace", steps=2)
    assert len(edit.layers) == 1 and edit.layers[0] in range(3)


@pytest.mark.parametrize("prompt", ["{}", "w1 w2 {}", "{} w1"])
def test_subjects_at_the_very_end_and_the_very_start(prompt, exact, tokenizer):
    request = EditRequest(prompt, SUBJECT, TARGET)
    low = probability(exact.model, tokenizer, request)
    with exact.edit(prompt, SUBJECT, TARGET, layer=1):
        assert probability(exact.model, tokenizer, request) > 2 * low


def test_a_target_of_several_tokens(exact, tokenizer):
    ids = tokenizer("w9 w8 w3 w4 w5 w11 w12 w13", return_tensors="pt").input_ids

    def likelihood():
        with torch.no_grad():
            said = exact.model(ids).logits[0].log_softmax(1)
        return float(sum(said[place - 1, ids[0, place]] for place in (5, 6, 7)))

    before = likelihood()
    with exact.edit(PROMPT, SUBJECT, "w11 w12 w13", layer=1, steps=40):
        assert likelihood() > before + 2


def test_a_target_that_is_the_answer_already_stays_it(exact, tokenizer):
    ids = tokenizer(EditRequest(**ASK).text, return_tensors="pt").input_ids
    with torch.no_grad():
        answer = tokenizer.decode(exact.model(ids).logits[0, -1].argmax())
    with exact.edit(PROMPT, SUBJECT, answer, layer=1), torch.no_grad():
        assert tokenizer.decode(exact.model(ids).logits[0, -1].argmax()) == answer
