"""What the kernels of attention cost: torch counts that on a CPU, and for grouped heads, from 2.15 on."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry


def attention_formulas() -> dict[Any, Callable[..., int]]:
    """Returns the formulas of kernels that the `FlopCounterMode` of this torch lacks, by kernel.

    Example:
        >>> from torch.utils.flop_counter import FlopCounterMode
        >>> heads = torch.ones(1, 4, 5, 8)
        >>> with FlopCounterMode(display=False, custom_mapping=attention_formulas()) as counter:
        ...     _ = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
        >>> counter.get_total_flops()  # 2 products of 4 heads, 5 x 5 x 8 multiplications and additions each
        3200
    """
    aten = torch.ops.aten
    if aten._scaled_dot_product_flash_attention_for_cpu in flop_registry:
        return {}
    kernels = (
        aten._scaled_dot_product_flash_attention_for_cpu,
        aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_efficient_attention,
        aten._scaled_dot_product_cudnn_attention,
    )
    return dict.fromkeys(kernels, attention_flops)


def attention_flops(
    queries: Sequence[int], keys: Sequence[int], values: Sequence[int], *_: Any, **__: Any
) -> int:
    """Returns the FLOPs of attention, all pairs of positions counted, as those of its two matrix products.

    Args:
        queries: The shape (batch, heads, positions, width) of the queries.
        keys: That of the keys, maybe with fewer heads.
        values: That of the values.

    Example:
        >>> attention_flops((1, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8))  # 4 heads, 5 x 7 pairs, 8 + 8 products
        4480
    """
    batch, heads, positions, width = queries
    return 2 * batch * heads * positions * keys[2] * (width + values[3])
