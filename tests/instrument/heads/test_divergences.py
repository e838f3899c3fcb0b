"""The divergences of heads against a restatement with loops, and what must not change them."""

from itertools import combinations
from math import log

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from toumei.core.errors import ShapeError
from toumei.instrument.heads.divergences import divergences_of_text, head_divergences


def distributions(*shape, seed=0, sharpness=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1).to(dtype)


def restated(weights):
    """Clark et al. 2019, pair by pair and row by row, by SciPy, whose distance is the root."""
    heads, rows, keys = weights.shape
    p = weights.double().numpy() * 0.999 + 0.001 / keys
    sums = np.zeros((heads, heads))
    for i, j in combinations(range(heads), 2):
        sums[i, j] = sums[j, i] = sum(jensenshannon(p[i, row], p[j, row]) ** 2 for row in range(rows))
    return torch.from_numpy(sums)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("keys", [1, 2, 17, 60])
def test_divergences_are_those_of_loops_to_a_millionth(dtype, keys):
    weights = distributions(6, keys, keys, dtype=dtype)
    expected = restated(weights)
    atol = (
        0.0 if dtype == torch.float64 else 1e-6 * float(expected.max())
    )  # a few numbers average no rounding
    torch.testing.assert_close(head_divergences(weights), expected, rtol=1e-6, atol=atol)


def test_so_they_are_for_causal_heads_which_never_attend_to_later_keys():
    weights = distributions(5, 30, 30).tril()
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(head_divergences(weights), restated(weights), rtol=1e-6, atol=1e-12)


def test_they_are_exactly_symmetric_and_zero_on_the_diagonal():
    found = head_divergences(distributions(7, 20, 20, dtype=torch.float32))
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize("tile", [1, 7, 64, 10**6])
def test_the_size_of_tiles_does_not_change_them(tile):
    weights = distributions(4, 12, 12)
    torch.testing.assert_close(
        head_divergences(weights, tile), head_divergences(weights), rtol=1e-12, atol=1e-12
    )


def test_several_threads_find_the_same(monkeypatch):
    weights = distributions(4, 12, 12)
    alone = head_divergences(weights, 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(head_divergences(weights, 10), alone)


def test_heads_that_attend_alike_have_none():
    one = distributions(1, 25, 25, dtype=torch.float32)
    assert head_divergences(one.expand(3, 25, 25)).max() < 1e-6


@pytest.mark.parametrize("keys", [2, 10, 100])
def test_heads_that_attend_to_other_keys_have_the_closed_form_near_ln_2(keys):
    """With b = 0.001 / n and a = 0.999 + b, two keys have a and b, and (a + b) / 2 in the mixture."""
    weights = torch.eye(keys, dtype=torch.float64)[:2, None]
    b = 0.001 / keys
    a = 0.999 + b
    expected = a * log(2 * a / (a + b)) + b * log(2 * b / (a + b))
    found = head_divergences(weights)[0, 1].item()
    assert found == pytest.approx(expected, rel=1e-9)
    assert log(2) - 0.01 < found < log(2)


def test_sampled_rows_estimate_all_of_them_without_bias():
    weights = distributions(4, 40, 40, sharpness=1.0)
    weights[1, :20] = weights[0, :20]  # rows differ much
    exact = head_divergences(weights)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([divergences_of_text(weights, 10, generator).total for _ in range(400)])
    error = drawn.std(0) / 20
    assert ((drawn.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    assert drawn.std(0)[0, 1] > 0


def test_as_many_rows_as_there_are_give_exactly_all():
    weights = distributions(3, 9, 9)
    found = divergences_of_text(weights, 9, torch.Generator())
    assert torch.equal(found.total, head_divergences(weights))
    assert (found.rows, found.compared) == (9, 9)


def test_the_standard_error_is_that_of_many_samples_of_texts():
    """The spread of the mean over repeated samples of 30 texts, of 5 to 14 tokens."""
    generator = torch.Generator().manual_seed(1)

    def sample():
        sums = None
        for _ in range(30):
            tokens = int(torch.randint(5, 15, (), generator=generator))
            weights = torch.randn(2, tokens, tokens, generator=generator).mul(3).softmax(-1)
            found = divergences_of_text(weights)
            sums = found if sums is None else sums + found
        return sums.mean[0, 1], sums.standard_errors[0, 1]

    means, errors = map(torch.stack, zip(*(sample() for _ in range(60)), strict=True))
    assert errors.mean().item() == pytest.approx(means.std().item(), rel=0.3)


def test_one_text_tells_no_standard_error():
    assert divergences_of_text(distributions(2, 4, 4)).standard_errors.isnan().all()


def test_weights_of_another_rank_are_refused():
    with pytest.raises(ShapeError, match=r"expected weights \(heads, rows, keys\), got \(3, 3\)"):
        head_divergences(torch.eye(3))
