"""FLOPs of attention are the same whatever kernel computes it, on every version of torch."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from toumei.bench.kernel_flops import attention_flops, attention_formulas
from toumei.bench.profiling import profile_call


class Attention(nn.Module):
    def forward(self, queries, keys, values):
        return scaled_dot_product_attention(queries, keys, values, enable_gqa=True)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_grouped_heads_cost_what_whole_ones_cost(heads):
    model = Attention()
    shapes = (2, 4, 5, 8), (2, heads, 7, 8), (2, heads, 7, 8)
    given = [torch.ones(shape) for shape in shapes]
    _, found = profile_call(model, lambda: model(*given))
    assert found.whole.flops == 2 * 4 * (5 * 8 * 7 + 5 * 7 * 8) * 2 == attention_flops(*shapes)


def test_only_kernels_of_attention_get_a_formula():
    assert all("scaled_dot_product" in str(kernel) for kernel in attention_formulas())
