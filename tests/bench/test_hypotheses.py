"""Tests of hypotheses reject as often as they say, and refuse what tells nothing."""

from itertools import combinations
from math import sqrt

import numpy as np
import pytest
import torch
from scipy import stats

from toumei.bench import HypothesisFamily, HypothesisTest, adjusted, compare_family, compare_samples
from toumei.bench.effects import detectable_effect
from toumei.core.errors import ArgumentError, NonFiniteError

FAST = {"resamples": 199}


def draws(seed, count=(12, 9), shift=0.0, spread=(1.0, 2.0)):
    draw = np.random.default_rng(seed)
    return draw.normal(0, spread[0], count[0]), draw.normal(shift, spread[1], count[1])


@pytest.mark.parametrize("method", ["welch", "paired", "permutation", "bootstrap"])
def test_a_true_null_hypothesis_is_rejected_as_often_as_alpha_says(method):
    settings = {"count": (10, 10), "spread": (1.0, 1.0)}
    groups = [draws(seed, **settings) for seed in range(80)]
    p_values = [compare_samples(*pair, method=method, **FAST).p_value for pair in groups]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p_values) <= 0.05) < 0.14


@pytest.mark.parametrize("method", ["welch", "paired", "permutation", "bootstrap"])
def test_a_difference_is_found_on_its_side_only(method):
    first, second = draws(0, (20, 20), shift=2.0)
    p_values = {
        side: compare_samples(first, second, method=method, alternative=side, **FAST).p_value
        for side in ("two-sided", "greater", "less")
    }
    assert p_values["greater"] <= p_values["two-sided"] < 0.05 and p_values["less"] > 0.9
    flipped = compare_samples(second, first, method=method, alternative="less", **FAST)
    assert flipped.p_value == pytest.approx(p_values["greater"], abs=0.01)


def test_welch_is_the_difference_over_its_standard_error_with_the_degrees_of_freedom_of_satterthwaite():
    first, second = draws(1)
    parts = [group.var(ddof=1) / len(group) for group in (first, second)]
    statistic = (second.mean() - first.mean()) / sqrt(sum(parts))
    df = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (first, second), strict=True)
    )
    found = compare_samples(first, second)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(statistic), df))
    half = stats.t.isf(0.025, df) * sqrt(sum(parts))
    assert found.interval == pytest.approx((found.difference - half, found.difference + half))


def test_the_permutation_test_counts_all_ways_to_divide_few_samples():
    first, second = draws(2, (4, 5), shift=1.0)
    everything = np.concatenate([first, second])
    observed = second.mean() - first.mean()
    differences = []
    for chosen in combinations(range(9), 5):
        inside = np.isin(np.arange(9), chosen)
        differences.append(everything[inside].mean() - everything[~inside].mean())
    greater = np.mean(np.array(differences) >= observed - 1e-12)
    found = compare_samples(first, second, method="permutation", alternative="greater")
    assert found.p_value == pytest.approx(greater)


def test_intervals_hold_the_difference_and_the_effect_as_often_as_they_say():
    held, effects = [], []
    for seed in range(120):
        test = compare_samples(*draws(seed, (15, 15), shift=0.8, spread=(1.0, 1.0)))
        held.append(test.interval[0] <= 0.8 <= test.interval[1])
        effects.append(test.effect_interval[0] <= 0.8 <= test.effect_interval[1])
    assert 0.89 < np.mean(held) < 0.995 and 0.89 < np.mean(effects) < 0.995
    pairs = [draws(seed, (8, 8), 1.0, (1.0, 1.0)) for seed in range(120)]
    intervals = [compare_samples(*pair, method="paired").effect_interval for pair in pairs]
    assert 0.89 < np.mean([low <= 1 / sqrt(2) <= high for low, high in intervals]) < 0.995


def test_effects_are_those_of_hedges():
    first, second = draws(3, (6, 8))
    pooled = sqrt((5 * first.var(ddof=1) + 7 * second.var(ddof=1)) / 12)
    found = compare_samples(first, second)
    assert found.effect == pytest.approx((second.mean() - first.mean()) / pooled * (1 - 3 / 47))
    pairs = compare_samples(first, second[:6], method="paired")
    differences = second[:6] - first
    assert pairs.effect == pytest.approx(differences.mean() / differences.std(ddof=1) * (1 - 3 / 19))
    far = compare_samples(first, second + 1e4)
    assert far.effect_interval[0] < far.effect < far.effect_interval[1]


@pytest.mark.parametrize(("count", "shift"), [(6, 3.5), (6, 20.0), (3, 400.0), (26, 0.4), (200, 2.0)])
def test_intervals_of_effects_are_the_exact_ones_of_the_noncentral_distribution(count, shift):
    """Also where the noncentral t distribution of SciPy is NaN on the way; here it is integrated."""
    first, second = draws(0, (count, count), shift, (1.0, 1.0))
    found = compare_samples(first, second)
    df, size = 2 * count - 2, count / 2
    scale = sqrt(size) / (1 - 3 / (4 * df - 1))
    ratio = (np.arange(20000) + 0.5) / 20000
    deviations = np.sqrt(stats.chi2.ppf(ratio, df) / df)
    for end, share in zip(found.effect_interval, (0.975, 0.025), strict=True):
        below = stats.norm.cdf(found.effect * scale * deviations - end * scale).mean()
        assert below == pytest.approx(share, abs=1e-4)


def test_effects_that_can_be_found_are_those_of_the_tables_of_cohen():
    for count, effect in ((26, 0.8), (64, 0.5), (394, 0.2)):  # the fewest that show the effect
        found = [detectable_effect(each / 2, 2 * each - 2, 0.05, 2) for each in (count, count - 1)]
        assert found[0] <= effect < found[1]
    assert detectable_effect(34, 33, 0.05, 2) == pytest.approx(0.5, abs=0.01)
    assert compare_samples(*draws(0, (64, 64))).detectable == pytest.approx(0.5, abs=0.005)


def test_holm_and_benjamini_hochberg_are_what_they_are_defined_as():
    p_values = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]
    order = np.argsort(p_values, kind="stable")
    ranked = np.array(p_values)[order]
    holm = [max((6 - i) * ranked[i] for i in range(place + 1)) for place in range(6)]
    false_share = [min(6 / (i + 1) * ranked[i] for i in range(place, 6)) for place in range(6)]
    assert adjusted(p_values, "holm")[order].numpy() == pytest.approx(np.minimum(holm, 1))
    assert adjusted(p_values, "benjamini-hochberg")[order].numpy() == pytest.approx(
        np.minimum(false_share, 1)
    )


def test_a_family_of_true_null_hypotheses_is_rarely_rejected(tmp_path):
    alone, holm = 0, 0
    for seed in range(15):
        groups = {str(index): draws(100 * seed + index, (8, 8), spread=(1.0, 1.0)) for index in range(10)}
        family = compare_family(groups)
        alone += bool((family.p_values <= 0.05).any())
        holm += bool((family.holm <= 0.05).any())
    assert alone > 2 and holm <= 3
    family.save(tmp_path / "family.safetensors")
    assert torch.equal(HypothesisFamily.load(tmp_path / "family.safetensors").holm, family.holm)
    assert len(str(family).splitlines()) == 11 and len(family.plot().lines) > 20
    assert "95% interval" in family.plot().get_xlabel()


def test_a_test_can_be_saved_and_drawn(tmp_path):
    found = compare_samples(*draws(0, (8, 8)), method="paired", names=("before", "after"))
    found.save(tmp_path / "test.safetensors")
    again = HypothesisTest.load(tmp_path / "test.safetensors")
    assert str(again) == str(found) and "after against before" in str(found)
    assert [text.get_text() for text in found.plot().get_xticklabels()] == ["before", "after"]


@pytest.mark.parametrize(
    ("first", "second", "method", "message"),
    [
        ([1.0], [2.0, 3.0], "welch", "welch needs 2 samples or more in each group, got 1 and 2"),
        ([1.0, 2.0, 3.0], [2.0, 3.0], "paired", "samples are pairs, got 3 and 2"),
        ([1.0, 2.0], [2.0, 3.0], "paired", "all pairs differ by the same amount"),
        ([1.0, 1.0], [2.0, 2.0], "welch", "without variation there is no test"),
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], "permutation", "20 permutations, so no p-value is below 0.1"),
        ([1.0, 2.0], [2.0, 3.5], "bootstrap", "bootstrap needs 5 samples or more"),
        ([[1.0]], [2.0, 3.5], "welch", "a number for each sample"),
        ([1.0, 2.0], [2.0, 3.5], "t", "method is one of 'welch'"),
    ],
)
def test_what_tells_nothing_is_refused(first, second, method, message):
    with pytest.raises(ArgumentError, match=message):
        compare_samples(first, second, method=method)


def test_samples_that_are_no_numbers_are_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError):
            compare_samples([1.0, bad], [2.0, 3.0])
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        adjusted([0.5, 1.5])
    with pytest.raises(ArgumentError, match="no tests"):
        compare_family({})
    with pytest.raises(ArgumentError, match="^head 1: welch needs"):
        compare_family({"head 1": ([1.0], [2.0])})


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_samples_whose_squares_no_float_holds_are_refused(size):
    for method in ("welch", "paired"):
        with pytest.raises(ArgumentError, match="have squares that no float holds: scale them"):
            compare_samples([size, 2 * size, 3 * size], [size, 2 * size, 4 * size], method=method)
