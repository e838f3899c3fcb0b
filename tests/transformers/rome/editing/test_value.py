"""The optimization of a value: its loss, its limits, what it holds, and how it ends."""

import copy

import pytest
import torch
from editing_helpers import (
    ASK,
    CONTEXTS,
    FACTS,
    TARGET,
    corpus,
    weights,
)

from toumei.core.errors import NonFiniteError
from toumei.core.hooks import hooked
from toumei.transformers.rome.editing import RankOneEditor, value
from toumei.transformers.rome.editing.requests import EditRequest
from toumei.transformers.rome.editing.settings import EditSettings
from toumei.transformers.rome.editing.value import optimize_values
from toumei.transformers.rome.statistics import collect_statistics

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")


def test_facts_that_are_optimized_side_by_side_do_not_see_each_other(editor):
    facts = [editor._fact_texts(fact, ("{}", *CONTEXTS), ()) for fact in FACTS[:3]]
    settings = EditSettings(layers=(1,), steps=6)
    together = optimize_values(editor.parts, 1, False, facts, settings)
    for fact, mine in zip(facts, together, strict=True):
        (alone,) = optimize_values(editor.parts, 1, False, [fact], settings, batch_size=1)
        assert torch.allclose(mine.delta, alone.delta, atol=1e-4) and torch.allclose(
            mine.losses, alone.losses, atol=1e-4
        )


def test_the_loss_is_the_papers(editor, tokenizer):
    fact = editor._fact_texts(EditRequest(**ASK), ("{}", *CONTEXTS), ())
    settings = EditSettings(layers=(1,), steps=2, lr=0.1, weight_decay=0.7, kl=0.3)
    (found,) = optimize_values(editor.parts, 1, False, [fact], settings)
    assert len(found.losses) == 2 and found.losses[0, 2] == 0  # nothing has changed before the first step
    site = editor.parts.down(1)

    def said(text, delta, places):
        def add(output):
            output[0, text.subject] += delta
            return output

        with hooked(editor.model, edit={site: add}), torch.no_grad():
            return editor.model(torch.tensor([text.ids])).logits[0, places].log_softmax(1)

    answer = tokenizer(TARGET).input_ids[0]
    target = -sum(said(text, found.delta, [-2])[0, answer] for text in fact.edits) / 3
    old, new = (
        said(fact.essence, delta, [fact.essence.subject])[0] for delta in (0 * found.delta, found.delta)
    )
    essence = (new.exp() * (new - old)).sum()
    loss = target + 0.3 * essence + 0.7 * found.delta.norm() / found.start.norm() ** 2
    assert torch.allclose(found.losses[1, :3], torch.stack([loss, target, essence]), atol=1e-4)


def test_the_value_stays_within_the_clamp_and_stops_early(editor):
    tight = editor.edit(**ASK, layer=1, clamp=0.1, lr=1.0).values[0]
    assert float(tight.delta.norm()) <= 0.1001 * float(tight.start.norm()) and tight.ended == "finished"
    early = editor.edit(**ASK, layer=1, stop=100.0).values[0]
    assert early.ended == "stopped" and len(early.losses) == 1 and not early.delta.any()


def test_held_continuations_drift_less(editor):
    held = ("{} w30", "{} w31 w32", "w33 {} w34")
    loose, tight = (
        editor.edit(**ASK, layer=1, hold=held, steps=15, hold_weight=w).values[0] for w in (0.0, 30.0)
    )
    drift = value.PARTS.index("hold")
    assert float(tight.losses[-1, drift]) < 0.5 * float(loose.losses[-1, drift])
    assert editor.edit(**ASK, layer=1, hold=2, steps=3).values[0].losses[1:, drift].min() > 0


def test_ctrl_c_keeps_what_there_is(editor, monkeypatch):
    step = value._Group._step
    calls = []

    def interrupted(group, index):
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        step(group, index)

    monkeypatch.setattr(value._Group, "_step", interrupted)
    found = editor.edit(**ASK, layer=1).values[0]
    assert found.ended == "interrupted" and len(found.losses) == 3 and found.delta.any()


def test_nan_in_the_optimization_names_the_fact_and_changes_nothing(language_model, tokenizer):
    model = copy.deepcopy(language_model("gpt2"))
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = torch.nan
    statistics = collect_statistics(model, tokenizer, corpus(20), [1], verbose=False)
    editor = RankOneEditor(model, tokenizer, statistics, contexts=CONTEXTS)
    before = weights(model)
    with pytest.raises(NonFiniteError, match="w3 w4 w5"):
        editor.edit(**ASK, layer=1)
    assert all(torch.equal(t.nan_to_num(), before[n].nan_to_num()) for n, t in model.state_dict().items())
