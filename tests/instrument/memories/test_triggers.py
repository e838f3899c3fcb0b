"""Triggers and moments from a stream are those of all coefficients together."""

import itertools

import pytest
import torch

from toumei.core.errors import NonFiniteError
from toumei.instrument.memories.coefficient_moments import CoefficientMoments
from toumei.instrument.memories.triggers import BatchCoefficients, TopTriggers


def texts_of(count, neurons, seed=0):
    """Coefficients of texts of several lengths, (tokens, neurons) each."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [torch.randn(length, neurons, generator=generator, dtype=torch.float64) for length in lengths]


def batch_of(texts, left, extra):
    """Texts padded with a huge number on one side, by more than the longest needs."""
    longest = max(map(len, texts)) + extra
    values = torch.full((len(texts), longest, texts[0].shape[1]), 1e9, dtype=torch.float64)
    mask = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        place = slice(longest - len(text), None) if left else slice(len(text))
        values[row, place], mask[row, place] = text, True
    return BatchCoefficients.of("mlp", values, mask)


def streamed(texts, splits, count, lowest, left=False, extra=0):
    top = TopTriggers(texts[0].shape[1], count, lowest=lowest, dtype=torch.float64)
    for start, end in itertools.pairwise([0, *splits, len(texts)]):
        top.add(batch_of(texts[start:end], left, extra), torch.arange(start, end))
    return top.result()


def restated(texts, count, lowest):
    """For each neuron (value, text, position), the most extreme first, by sorting everything."""
    sign = -1 if lowest else 1
    found = []
    for neuron in range(texts[0].shape[1]):
        rows = []
        for number, text in enumerate(texts):
            column = (sign * text[:, neuron]).tolist()
            rows.append((sign * max(column), number, column.index(max(column))))
        found.append(sorted(rows, key=lambda row: (-sign * row[0], row[1]))[:count])
    return found


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize(
    ("splits", "left", "extra"), [([], False, 0), ([1, 2, 30], True, 0), (range(1, 60), False, 3)]
)
def test_they_are_those_of_all_texts_whatever_the_batches_and_the_padding(lowest, splits, left, extra):
    texts = texts_of(60, neurons=7)
    found = streamed(texts, splits, 5, lowest, left, extra)
    rows = zip(found.values.tolist(), found.texts.tolist(), found.positions.tolist(), strict=True)
    assert [list(zip(*row, strict=True)) for row in rows] == restated(texts, 5, lowest)


@pytest.mark.parametrize("lowest", [False, True])
def test_among_equal_texts_the_earlier_one_stays_and_of_equal_prefixes_the_shorter(lowest):
    texts = [text.sign() for text in texts_of(40, neurons=6)]
    expected = restated(texts, 8, lowest)
    for splits in ([], range(1, 40), [3, 20]):
        found = streamed(texts, splits, 8, lowest)
        rows = zip(found.values.tolist(), found.texts.tolist(), found.positions.tolist(), strict=True)
        assert [list(zip(*row, strict=True)) for row in rows] == expected


def test_where_there_are_fewer_texts_the_rest_is_empty():
    found = streamed(texts_of(2, neurons=3), [1], 4, False)
    assert (found.texts[:, 2:] == -1).all() and found.values[:, 2:].isnan().all()
    assert (found.texts[:, :2] >= 0).all()


def test_numbers_that_are_not_finite_count_only_in_tokens():
    values, mask = torch.zeros(2, 3, 2), torch.tensor([[True, True, True], [True, True, False]])
    values[1, 2] = torch.nan
    assert BatchCoefficients.of("mlp", values, mask).of_tokens().shape == (5, 2)
    values[0, 1, 1] = torch.inf
    with pytest.raises(NonFiniteError, match="coefficients of layer 'mlp'"):
        BatchCoefficients.of("mlp", values, mask)


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [30, 1, 69]])
def test_moments_are_those_of_all_samples(sizes):
    samples = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) * 1e-2 + 1e3
    moments = CoefficientMoments(4)
    for part in samples.split(sizes):
        moments.add(part)
    exact = samples.double()
    assert moments.count == 100
    torch.testing.assert_close(moments.mean, exact.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.variance(), exact.var(0), rtol=1e-7, atol=0)


def test_one_sample_has_no_variance():
    moments = CoefficientMoments(2)
    moments.add(torch.ones(1, 2))
    assert moments.variance().isnan().all()
