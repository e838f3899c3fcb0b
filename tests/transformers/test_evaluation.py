"""Scores of edits against their definitions, counted by hand on models whose answers are known."""

import json
import math

import numpy as np
import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.models.facts_world import FactsWorld
from toumei.transformers.lenses import LogitLens, logit_lens
from toumei.transformers.model.families import anatomy
from toumei.transformers.model.scoring import score_answers
from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.editing.requests import EditRequest, subject_text
from toumei.transformers.rome.evaluation import (
    METRICS,
    EditCase,
    Evaluation,
    counterfact_cases,
    entropy,
    evaluate,
    evaluate_edits,
    fitted_vectorizer,
    known_only,
    reference_score,
    world_cases,
)
from toumei.transformers.rome.statistics import collect_statistics

PROMPTS = ("w9 w3 w4", "w10 w11", "w12 w13 w14", "w15", "w16 w17")


def likelihood(model, tokenizer, prompt, answer):
    ids = tokenizer(f"{prompt} {answer}", return_tensors="pt").input_ids
    start = len(tokenizer(prompt).input_ids)
    with torch.no_grad():
        said = model(ids).logits[0].log_softmax(1)
    chosen = [float(said[place - 1, ids[0, place]]) for place in range(start, ids.shape[1])]
    return sum(chosen) / len(chosen), all(
        said[place - 1].argmax() == ids[0, place] for place in range(start, ids.shape[1])
    )


def best(model, tokenizer, prompt):
    with torch.no_grad():
        return tokenizer.decode(model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].argmax())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_answers_are_those_of_plain_forward_passes(kind, language_model, tokenizer):
    model = language_model(kind)
    questions = [(prompt, answer) for prompt in PROMPTS for answer in ("w1", "w2 w3 w4")]
    questions += [(PROMPTS[0], best(model, tokenizer, PROMPTS[0]))]
    found = score_answers(anatomy(model), tokenizer, questions, batch_size=3)
    for (prompt, answer), mine in zip(questions, found, strict=True):
        wanted, first = likelihood(model, tokenizer, prompt, answer)
        assert mine.log_probability == pytest.approx(wanted, abs=1e-4) and mine.likeliest == first
        assert mine.probability == pytest.approx(math.exp(wanted), abs=1e-4)
    assert found[-1].likeliest


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


def test_entropy_is_the_papers():
    words = "a b a b a c"
    pairs = [3 * [0.2 * 2] and 2 / 5, 2 / 5, 1 / 5]  # a b twice, b a twice, a c once
    triples = [1 / 2, 1 / 4, 1 / 4]  # a b a twice, b a b and b a c once
    two, three = (-sum(p * math.log2(p) for p in found) for found in (pairs, triples))
    assert entropy(words) == pytest.approx((2 / 3 * two + 4 / 3 * three) / 2)
    assert entropy("a a a a a") == 0 == entropy("")


def test_reference_scores_order_texts():
    vectorizer = fitted_vectorizer(["red apple", "red sky", "blue sky"])
    assert reference_score(["red apple"], ["red apple"], vectorizer) == pytest.approx(1)
    assert reference_score(["red apple"], ["blue sky"], vectorizer) == 0
    assert 0 < reference_score(["red sky"], ["red apple"], vectorizer) < 1


def test_rare_words_count_more_in_reference_scores():
    vectorizer = fitted_vectorizer(["red apple", "red sky", "red sea"])
    rare, common = (reference_score([text], ["red apple"], vectorizer) for text in ("apple", "red"))
    weights = 1 + np.log([4 / 2, 4 / 4])  # of words in one text of three and in all of them
    assert rare == pytest.approx(weights[0] / np.hypot(*weights))
    assert common == pytest.approx(weights[1] / np.hypot(*weights))
    with pytest.raises(ArgumentError, match="texts with words"):
        fitted_vectorizer([])


def test_records_in_counterfacts_format(tmp_path):
    record = {
        "case_id": 0,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "subject": "Danielle Darrieux",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "relation_id": "P103",
        },
        "paraphrase_prompts": ["Danielle Darrieux spoke the language"],
        "neighborhood_prompts": ["The mother tongue of Leon Blum is"],
        "generation_prompts": ["Danielle Darrieux was born in"],
    }
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([record]), encoding="utf-8")
    (case,) = counterfact_cases(path)
    assert case == counterfact_cases([record])[0]
    assert case.request == EditRequest("The mother tongue of {} is", "Danielle Darrieux", "English")
    assert case.neighbours == (("The mother tongue of Leon Blum is", "French"),) and case.truth == "French"
    snippets = [{"relation_id": "P103", "target_id": "Q1860", "samples": [{"text": "He speaks English."}]}]
    assert counterfact_cases(path, snippets)[0].references == ("He speaks English.",)
    with pytest.raises(ArgumentError, match="record 0"):
        counterfact_cases([{"prompt": "x"}])
    with pytest.raises(ArgumentError, match="record 0.*it is 'x'"):
        counterfact_cases(["x"])
    path.write_text(path.read_text()[:40])
    with pytest.raises(ArgumentError, match="cut short"):
        counterfact_cases(path)
    with pytest.raises(ArgumentError, match="got none"):
        counterfact_cases([])


def test_cases_of_the_world_are_fit_to_test_edits():
    world = FactsWorld()
    cases = world_cases(world, 20)
    assert cases == world_cases(world, 20) != world_cases(world, 20, seed=1)
    assert len({case.request.subject for case in cases}) == 20
    for case in cases:
        facts = {fact.relation: fact for fact in world.about(case.request.subject)}
        (fact,) = [fact for fact in facts.values() if fact.prompt == case.request.prompt]
        assert case.truth == fact.target != case.request.target
        assert case.request.target in world.alternatives(fact) and len(case.others) == len(facts) - 1
        assert case.request.text not in case.paraphrases
    with pytest.raises(ArgumentError, match="1 to 400"):
        world_cases(world, 401)


def test_no_cases_say_so(language_model, tokenizer):
    with pytest.raises(ArgumentError, match="got none"):
        evaluate(language_model("gpt2"), tokenizer, [])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "opt"])
def test_the_lens_ends_with_the_models_own_answer(kind, language_model, tokenizer, tmp_path):
    model = language_model(kind)
    found = logit_lens(model, tokenizer, "w9 w3 w4", "w11", top=4)
    with torch.no_grad():
        wanted = model(**tokenizer("w9 w3 w4", return_tensors="pt")).logits[0, -1].softmax(0)
    assert found.probabilities.shape == (3,) and found.top_probabilities.shape == (3, 4)
    assert float(found.probabilities[-1]) == pytest.approx(float(wanted[11]), abs=1e-5)
    assert int(found.ranks[-1]) == int((wanted > wanted[11]).sum())
    assert found.top[-1][0] == tokenizer.decode(wanted.argmax())
    found.save(tmp_path / "lens.safetensors")
    again = LogitLens.load(tmp_path / "lens.safetensors")
    assert again.top == found.top and torch.equal(again.ranks, found.ranks) and repr(again) == repr(found)
    assert found.plot().get_ylabel() == "probability"


def test_requests_from_what_users_have():
    fact = FactsWorld().facts[0]
    assert EditRequest.of(fact).text == fact.text
    assert EditRequest.of({"prompt": "{} is", "subject": " a ", "target": "b"}).text == "a is"
    with pytest.raises(ArgumentError, match="subject, target missing"):
        EditRequest.of({"prompt": "{} is"})


def test_the_subjects_last_token_with_special_and_multi_byte_tokens(realdata):
    from transformers import GPT2TokenizerFast

    folder = realdata / "gpt2_bpe"
    tokenizer = GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    for subject in ("Karlsruhe Institute of Technology", "東京タワー", "Zoë 🤖", "{weird} name"):
        for template in ("{} is in", "The place of {} is", "It is {},"):
            found = subject_text(tokenizer, template, subject, "New York City")
            text, end = template.replace("{}", subject), template.index("{}") + len(subject)
            assert tokenizer.decode(found.ids) == f"{text} New York City"
            assert found.target == 3 and tokenizer.decode(found.ids[-3:]) == " New York City"
            upto = tokenizer.decode(found.ids[: found.subject + 1])
            assert upto.startswith(text[:end]) and len(upto) <= end + 1


def test_a_tokenizer_that_adds_a_beginning_token(tokenizer):
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words.add_special_tokens(["<s>"])
    begin = words.token_to_id("<s>")
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    beginning = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="<s>")
    plain, shifted = (subject_text(each, "w1 {} w2", "w3 w4", "w5 w6") for each in (tokenizer, beginning))
    assert shifted.ids == (begin, *plain.ids) and shifted.subject == plain.subject + 1 and shifted.target == 2
