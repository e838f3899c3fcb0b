"""How the numbers of a weight are stored: plainly, spread over processes, or quantized."""

import torch
from torch import Tensor

WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def whole(weight: Tensor) -> Tensor:
    """Returns a weight, or what a layer is given, as one plain tensor: itself, put together, dequantized.

    Example:
        >>> import torch
        >>> whole(torch.nn.Parameter(torch.ones(2)))
        tensor([1., 1.])
    """
    if is_sharded(weight):
        result: Tensor = weight.detach().full_tensor()  # type: ignore[attr-defined]
        return result
    return weight.detach() if in_place(weight) else weight.detach().dequantize()


def in_place(weight: Tensor) -> bool:
    """Returns whether a weight takes any numbers in place: it is plain or sharded, not quantized."""
    return type(weight.data) is Tensor or is_sharded(weight)


def is_sharded(weight: Tensor) -> bool:
    """Returns whether a weight is a `DTensor`, which is spread over processes."""
    return hasattr(weight, "full_tensor")
