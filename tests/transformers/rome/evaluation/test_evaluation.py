"""Scores of edits against their definitions, counted by hand on models whose answers are known."""

import math

import pytest
import torch
from answer_likelihood import best, likelihood

from toumei.core.errors import ArgumentError
from toumei.transformers.model.families import anatomy
from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.editing.requests import EditRequest
from toumei.transformers.rome.evaluation import (
    METRICS,
    EditCase,
    Evaluation,
    evaluate,
    evaluate_edits,
    known_only,
)
from toumei.transformers.rome.statistics import collect_statistics

PROMPTS = ("w9 w3 w4", "w10 w11", "w12 w13 w14", "w15", "w16 w17")


def test_scores_are_counterfacts(language_model, tokenizer):
    model = language_model("gpt2")
    case = EditCase(
        EditRequest("{} w4", "w9 w3", "w1"),
        "w2",
        PROMPTS[1:3],
        tuple((prompt, "w2") for prompt in PROMPTS[3:]),
        others=((PROMPTS[1], best(model, tokenizer, PROMPTS[1])), (PROMPTS[2], "w1 w1")),
        namesakes=((PROMPTS[3], "w1 w1"),),
    )
    found = evaluate(model, tokenizer, [case])
    new, old = ([math.exp(likelihood(model, tokenizer, p, a)[0]) for p in PROMPTS] for a in ("w1", "w2"))
    wins = [float(a > b) for a, b in zip(new, old, strict=True)]
    gaps = [a - b for a, b in zip(new, old, strict=True)]
    wanted = {
        "efficacy": wins[0],
        "efficacy_magnitude": gaps[0],
        "paraphrase": sum(wins[1:3]) / 2,
        "paraphrase_magnitude": sum(gaps[1:3]) / 2,
        "neighbourhood": 1 - sum(wins[3:]) / 2,
        "neighbourhood_magnitude": -sum(gaps[3:]) / 2,
        "others": 0.5,
        "namesakes": 0.0,
    }
    for metric, value in wanted.items():
        assert found.mean(metric) == pytest.approx(value, abs=1e-4), metric
    assert math.isnan(found.mean("entropy"))
    (kept,) = known_only(anatomy(model), tokenizer, [case])
    assert kept.others == case.others[:1] and kept.namesakes == ()


def test_means_intervals_and_the_harmonic_mean():
    nan = float("nan")
    found = Evaluation(
        {
            "efficacy": torch.tensor([1.0, 1.0, 0.0, nan]),
            "paraphrase": torch.tensor([0.5]),
            "neighbourhood": torch.ones(2),
            "entropy": torch.full((2,), nan),
        }
    )
    assert found.mean("efficacy") == pytest.approx(2 / 3)
    deviation = math.sqrt(((1 / 3) ** 2 * 2 + (2 / 3) ** 2) / 2)
    assert found.interval("efficacy") == pytest.approx(1.96 * deviation / math.sqrt(3))
    assert found.score == pytest.approx(3 / (3 / 2 + 2 + 1))
    assert found.text("paraphrase") == "50.0 %" and "entropy" not in found.table()
    assert repr(found).startswith("Evaluation(4 cases: efficacy 66.7 +- 65.3 %")
    with pytest.raises(ArgumentError, match="no metric 'speed'"):
        found.mean("speed")


def test_saved_read_back_and_drawn(tmp_path):
    found = Evaluation({metric: torch.rand(5) for metric in METRICS})
    found.save(tmp_path / "folder" / "evaluation.safetensors")
    again = Evaluation.load(tmp_path / "folder" / "evaluation.safetensors")
    assert all(torch.equal(again.values[metric], found.values[metric]) for metric in METRICS)
    axes = found.plot()
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(
        [100 * found.mean(m) for m in ("efficacy", "paraphrase", "neighbourhood", "namesakes", "others")]
    )


def test_edits_are_measured_one_by_one_and_taken_back(language_model, tokenizer):
    model = language_model("gpt2")
    words = [" ".join(f"w{(7 * i + j * j) % 64}" for j in range(20)) for i in range(30)]
    statistics = collect_statistics(model, tokenizer, words, [1], verbose=False)
    editor = RankOneEditor(model, tokenizer, statistics, contexts=())
    cases = [EditCase(EditRequest("w8 {}", f"w{i} w{i + 1}", "w40"), "w41") for i in (3, 5)]
    options = {"verbose": False, "generate_tokens": 6}
    found = evaluate_edits(editor, cases, layer=1, **options)
    assert found.values["efficacy"].tolist() == [1.0, 1.0] and "entropy" in METRICS
    single = [editor.edit("w8 {}", f"w{i} w{i + 1}", "w40", layer=1) for i in (3, 5)]
    for edit, case, mine in zip(single, cases, found.values["efficacy_magnitude"], strict=True):
        with edit:
            assert evaluate(model, tokenizer, [case]).mean("efficacy_magnitude") == pytest.approx(
                float(mine), abs=1e-4
            )
    together = evaluate_edits(editor, cases, together=True, layers=[1], ridge=1e-3, **options)
    assert together.mean("efficacy_magnitude") > evaluate(model, tokenizer, cases).mean("efficacy_magnitude")


def test_generated_texts_are_scored(language_model, tokenizer):
    case = EditCase(EditRequest("w8 {}", "w3", "w4"), "w5", generation=("w1 w2",), references=("w1 w2 w3",))
    found = evaluate(language_model("gpt2"), tokenizer, [case], generate_tokens=12)
    assert found.mean("entropy") > 0 and 0 < found.mean("reference") <= 1
    again = evaluate(language_model("gpt2"), tokenizer, [case], generate_tokens=12)
    assert again.mean("entropy") == found.mean("entropy")


def test_no_cases_say_so(language_model, tokenizer):
    with pytest.raises(ArgumentError, match="got none"):
        evaluate(language_model("gpt2"), tokenizer, [])
