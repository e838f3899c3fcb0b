"""One vector for each text, wherever the padding is."""

import pytest
import torch

from toumei.core.errors import ArgumentError, ShapeError
from toumei.transformers.areas.pooling import pooled

ROWS = [torch.randn(count, 4, generator=torch.Generator().manual_seed(count)) for count in (1, 3, 5)]


def padded(left):
    states, mask = torch.full((3, 5, 4), torch.nan), torch.zeros(3, 5, dtype=torch.bool)
    for text, row in enumerate(ROWS):
        real = slice(5 - len(row), None) if left else slice(len(row))
        states[text, real], mask[text, real] = row, True
    return states, mask


@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_does_not_count(left):
    states, mask = padded(left)
    assert torch.equal(pooled(states, mask, "last"), torch.stack([row[-1] for row in ROWS]))
    assert torch.equal(pooled(states, mask, "first"), torch.stack([row[0] for row in ROWS]))
    assert torch.allclose(pooled(states, mask, "mean"), torch.stack([row.mean(0) for row in ROWS]))


def test_tokens_in_a_row_and_one_vector_for_each_text():
    states, mask = padded(left=False)
    assert torch.equal(pooled(states.flatten(0, 1), mask, "last"), pooled(states, mask, "last"))
    assert torch.equal(pooled(states[:, 0], mask, "mean"), states[:, 0])


def test_what_is_no_vector_for_each_token_is_refused():
    states, mask = padded(left=False)
    with pytest.raises(ShapeError, match=r"3 texts of 5 tokens, got \(3, 4, 4\)"):
        pooled(states[:, :4], mask, "last")
    with pytest.raises(ArgumentError, match="text 1 has no tokens"):
        pooled(states, mask & torch.tensor([[True], [False], [True]]), "last")
