"""Changes weights of linear layers, plain, sharded or quantized, and restores them bit for bit.

A plain weight is changed in place. A sharded weight too; each process changes its part. A quantized weight
cannot store a small change. If it can be dequantized, the dequantized weight replaces it during an edit.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import EditError
from ...core.linear_layers import is_conv1d
from ...core.tensors import in_place, is_sharded, whole

_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def editable(module: nn.Module) -> Tensor:
    """Returns the weight of a module if it can be edited.

    Raises:
        EditError: It is offloaded, or it is quantized and cannot be dequantized.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta:
        raise EditError(
            f"the weight of {module} is not in memory ({type(weight).__name__}): load the model without "
            f"offloading to edit it"
        )
    if weight.dtype not in _PRECISIONS or not (in_place(weight) or _can_stand_in(module, weight)):
        raise EditError(
            f"the weight of {module} is a {type(weight.data).__name__} of {weight.dtype}: a quantized weight "
            f"is edited only where `dequantize()` rebuilds it and the layer is a plain nn.Linear; load the "
            f"model in float32, bfloat16 or float16"
        )
    return weight


def backup(weight: Tensor) -> Tensor:
    """Returns what restores a weight: a copy of it, or a quantized weight itself."""
    return weight.detach().clone() if in_place(weight) else weight


@torch.no_grad()
def set_weight(module: nn.Module, value: Tensor) -> None:
    """Sets the weight of a module to the result of `backup`, or to a plain tensor.

    Inside `torch.autocast` torch keeps copies of weights in lower precision; they are forgotten.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    if not in_place(weight):  # the dequantized weight replaces it
        module.weight = nn.Parameter(value.to(weight.dtype), requires_grad=False)
    elif isinstance(value, nn.Parameter):  # the quantized weight is restored
        module.weight = value
    elif is_sharded(weight) and not is_sharded(value):
        from torch.distributed.tensor import distribute_tensor

        layout: Any = weight
        weight.copy_(distribute_tensor(value.to(weight.dtype), layout.device_mesh, layout.placements))
    else:
        weight.copy_(value)
    torch.clear_autocast_cache()


def _can_stand_in(module: nn.Module, weight: Tensor) -> bool:
    """Whether the layer works with a plain weight too, and its weight can be dequantized."""
    if not (is_conv1d(module) or type(module).forward is nn.Linear.forward):
        return False
    try:
        return type(whole(weight)) is Tensor
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
