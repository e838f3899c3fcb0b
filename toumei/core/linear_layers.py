"""Linear layers as PyTorch and transformers have them, with adapters around them or not."""

from torch import nn


def without_adapter(module: nn.Module) -> nn.Module:
    """Returns the layer inside of an adapter's, as PEFT puts LoRA around it; any other module itself.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> without_adapter(linear) is linear
        True
    """
    while isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module


def projection_sizes(module: nn.Module) -> tuple[int, int] | None:
    """Returns (inputs, outputs) of a linear layer or a `Conv1D`, also where its weight is quantized.

    Example:
        >>> projection_sizes(nn.Linear(3, 5))
        (3, 5)
    """
    if is_conv1d(module):
        inputs, outputs = without_adapter(module).weight.shape  # type: ignore[misc]
        return int(inputs), int(outputs)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    return None


def is_conv1d(module: nn.Module) -> bool:
    """Returns whether a module is GPT-2's transposed linear layer (`transformers.pytorch_utils.Conv1D`).

    An adapter around one counts, too.
    """
    return any(base.__name__ == "Conv1D" for base in type(without_adapter(module)).__mro__)
