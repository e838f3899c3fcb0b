"""The main tensor of whatever a module returns, and the way to put another one in its place.

Modules return a tensor, a tuple (attention blocks: hidden states first) or a mapping (the `ModelOutput` of
Hugging Face). The main tensor is the tensor itself, the first tensor of a sequence, or the logits, the last
hidden state or else the first tensor of a mapping.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .errors import OutputError

_PREFERRED_KEYS = ("logits", "last_hidden_state")


def main_tensor(output: Any) -> Tensor:
    """Returns the main tensor of a module's output.

    Args:
        output: A tensor, a tuple or list, or a mapping such as a Hugging Face `ModelOutput`.

    Raises:
        OutputError: There is no tensor in the output.

    Example:
        >>> import torch
        >>> main_tensor((torch.ones(2), None))
        tensor([1., 1.])
    """
    if isinstance(output, Tensor):
        return output
    tensor: Tensor = output[_main_key(output)]
    return tensor


def with_main_tensor(output: Any, tensor: Tensor) -> Any:
    """Returns an output of the same kind with the main tensor replaced; the given output is left as it is.

    Args:
        output: What a module returned.
        tensor: The tensor to put in the place of its main tensor.

    Raises:
        OutputError: There is no tensor in the output.

    Example:
        >>> import torch
        >>> with_main_tensor((torch.ones(2), "cache"), torch.zeros(2))
        (tensor([0., 0.]), 'cache')
    """
    if isinstance(output, Tensor):
        return tensor
    key = _main_key(output)
    if isinstance(output, Mapping):
        fields = {**output, key: tensor}
        return (
            fields if type(output) is dict else type(output)(**fields)
        )  # a ModelOutput takes fields by name
    items = list(output)
    items[key] = tensor
    return output._make(items) if hasattr(output, "_make") else type(output)(items)


def _main_key(output: Any) -> Any:
    if isinstance(output, Mapping):
        keys = [*(key for key in _PREFERRED_KEYS if key in output), *output]
    else:
        keys = list(range(len(output))) if isinstance(output, (tuple, list)) else []
    for key in keys:
        if isinstance(output[key], Tensor):
            return key
    raise OutputError(
        f"expected a tensor, or a tuple, list or mapping that holds one, as the output of a module; "
        f"got {type(output).__name__}"
    )
