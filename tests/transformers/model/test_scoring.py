"""Scores of answers against plain forward passes."""

import math

import pytest
from answer_likelihood import best, likelihood

from toumei.transformers.model.families import anatomy
from toumei.transformers.model.scoring import score_answers

PROMPTS = ("w9 w3 w4", "w10 w11", "w12 w13 w14", "w15", "w16 w17")


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
