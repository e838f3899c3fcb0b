"""Scores of generated texts against their definitions."""

import math

import numpy as np
import pytest

from toumei.core.errors import ArgumentError
from toumei.transformers.rome.evaluation import (
    entropy,
    fitted_vectorizer,
    reference_score,
)


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
