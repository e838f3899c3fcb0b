"""Caches of many texts: those of single passes, with all that a cache knows, kept and found again."""

import pytest
import torch

from toumei.core.errors import ArgumentError, LayerError
from toumei.models import facts_gpt
from toumei.transformers import HookedModel, cache_many

NAMES = ["resid_pre", "attn_out", "mlp_out", "resid_post", "pattern"]


@pytest.fixture(scope="module")
def hooked():
    return HookedModel(*facts_gpt()[:2])


@pytest.fixture(scope="module")
def texts():
    return [fact.text for fact in facts_gpt()[2].facts[:3]]


def many(*given, **options):
    return cache_many(*given, verbose=False, **options)


def test_each_cache_is_that_of_a_pass(hooked, texts):
    for text, cache in zip(texts, many(hooked, texts, NAMES), strict=True):
        _, wanted = hooked.run_with_cache(text, NAMES)
        assert list(cache) == list(wanted) and all(torch.equal(cache[name], wanted[name]) for name in wanted)
        assert torch.equal(cache.texts.ids, wanted.texts.ids)
        assert torch.equal(cache.decompose_resid()[0], wanted.decompose_resid()[0])
        assert not any(one.requires_grad for one in cache.values())


def test_batches_are_padded_as_in_a_pass_of_them(hooked, texts):
    rows = [[3, 4, 5], [6, 7], [8]]
    first, last = many(hooked, rows, ("z", 1), batch_size=2)
    assert torch.equal(first["z", 1], hooked.run_with_cache(rows[:2], ("z", 1))[1]["z", 1])
    assert first.rows(slice(1, 2))["z", 1].shape[:2] == (1, 3) and last["z", 1].shape[:2] == (1, 1)


def test_finished_caches_are_found_and_those_of_other_names_are_not(hooked, texts, tmp_path):
    def made(given, names):
        found = many(hooked, given, names, folder=tmp_path)
        return len(list(tmp_path.glob("*.result"))), found

    (count, first), (again, second) = made(texts, ("z", 1)), made(texts, ("z", 1))
    assert (count, again) == (3, 3)
    assert all(torch.equal(one["z", 1], two["z", 1]) for one, two in zip(first, second, strict=True))
    assert made([*texts, [3, 4]], ("z", 1))[0] == 4 and made(texts, ("z", 2))[0] == 7


def test_what_is_no_list_of_texts_and_what_has_no_such_name(hooked, texts):
    for wrong in ("one text", {"text": "a"}, 3, None):
        with pytest.raises(ArgumentError, match="several texts"):
            many(hooked, wrong, ("z", 1))
    with pytest.raises(ArgumentError, match="got none"):
        many(hooked, [], ("z", 1))
    with pytest.raises(LayerError):
        many(hooked, texts, ("z", 9))
