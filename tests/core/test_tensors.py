"""Weights are read whole, however they are stored."""

import pytest
import torch
from torch import nn

from toumei.core.tensors import in_place, is_sharded, whole


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_plain_weight_is_itself_and_a_subclass_is_rebuilt():
    weight = nn.Parameter(torch.randn(2, 3))
    assert whole(weight).data_ptr() == weight.data_ptr() and not whole(weight).requires_grad
    assert in_place(weight) and not is_sharded(weight)

    class Half(torch.Tensor):
        def dequantize(self):
            return self.as_subclass(torch.Tensor) * 2

    quantized = torch.ones(2).as_subclass(Half)
    assert not in_place(quantized) and torch.equal(whole(quantized), torch.full((2,), 2.0))
