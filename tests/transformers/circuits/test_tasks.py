"""Prompt pairs: their names, numbers of tokens and metrics, with a tokenizer of words and one of digits."""

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from toumei.core.errors import ArgumentError
from toumei.models import facts_gpt
from toumei.transformers import HookedModel
from toumei.transformers.circuits import greater_than, indirect_objects
from toumei.transformers.circuits.tasks import NAMES, NOUNS, OBJECTS, PLACES

OTHERS = ("When", "and", "went", "to", "the", ",", "gave", "a", "The", "lasted", "from", "year")
WORDS = (*NAMES, *PLACES, *OBJECTS, *NOUNS, *OTHERS)


def tokenizer_of(numbers, pattern):
    words = {word: index for index, word in enumerate(("?", *WORDS, *numbers))}
    inner = Tokenizer(models.WordLevel(words, "?"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")


DIGITS = tokenizer_of(list("0123456789"), r"\d|[A-Za-z]+|,")
PAIRS_OF_DIGITS = tokenizer_of([f"{number:02d}" for number in range(100)], r"\d\d|[A-Za-z]+|,")


def test_names_come_once_and_twice_and_corrupt_ones_are_all_different():
    pairs = indirect_objects(DIGITS, 20, seed=3)
    assert len({tuple(map(len, DIGITS([*pairs.clean, *pairs.corrupt])["input_ids"]))}) == 1
    first = 0
    for clean, corrupt in zip(pairs.clean, pairs.corrupt, strict=True):
        names = [word.strip(",") for word in clean.split() if word.strip(",") in NAMES]
        others = [word.strip(",") for word in corrupt.split() if word.strip(",") in NAMES]
        assert len(set(names)) == 2 and len(set(others)) == 3 and not set(names) & set(others)
        assert names[2] in names[:2] and clean.split()[-1] == "to"
        first += names[2] == names[1]
    assert first == 10
    assert pairs.clean == indirect_objects(DIGITS, 20, seed=3).clean
    assert pairs.clean != indirect_objects(DIGITS, 20, seed=4).clean


@pytest.mark.parametrize("tokenizer", [DIGITS, PAIRS_OF_DIGITS])
def test_later_years_count_and_earlier_ones_against_them(tokenizer, language_model):
    pairs = greater_than(tokenizer, 6)
    clean, corrupt, metric = pairs
    years = [int(text.split(" from the year ")[1][2:4]) for text in clean]
    assert all(text.split(" from the year ")[1][2:4] == "01" for text in corrupt)
    size = len(tokenizer)
    ids = tokenizer(clean, return_tensors="pt")["input_ids"]
    read = metric.reading(HookedModel(language_model("gpt2")), ids, torch.zeros(6, size))
    for row, year in enumerate(years):
        for guess in (0, year - 1, year, year + 1, 99):
            logits = torch.full((6, size), -100.0)
            text = f"{guess:02d}" if tokenizer is PAIRS_OF_DIGITS else f"{guess // 10}"
            logits[row, tokenizer(text)["input_ids"][0]] = 100.0
            same = tokenizer is DIGITS and guess // 10 == year // 10
            expected = 0.0 if same else 1.0 if guess > year else -1.0
            assert float(read(logits)[row]) == pytest.approx(expected)


def test_tokenizers_without_the_words_are_refused(tokenizer):
    with pytest.raises(ArgumentError, match="names, 8 places|as single tokens"):
        indirect_objects(tokenizer_of(["0"], r"."), 4)
    with pytest.raises(ArgumentError, match="how a year ends"):
        greater_than(tokenizer_of([], r"[A-Za-z]+|\d+"), 4)
    with pytest.raises(ArgumentError, match="none of war"):
        greater_than(tokenizer_of(list("0123456789"), r"."), 4)
    with pytest.raises(ArgumentError, match="has 1 name,"):
        indirect_objects(facts_gpt()[1], 4)  # to it all words are the same unknown one
    with pytest.raises(ArgumentError, match="count"):
        indirect_objects(DIGITS, 0)
