"""Inputs of a network: a tensor, a tuple of tensors, or a dictionary of tensors by the names of arguments."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...core.errors import ArgumentError, ShapeError
from ...core.forward import forward_errors
from ...core.recurrent_layers import differentiable_recurrent

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Values = Tensor | tuple[Tensor, ...] | dict[str, Tensor]  # contributions, in the structure of the inputs
Preprocess = Callable[..., Any]  # from the inputs to what the network takes
Layers = str | Sequence[str] | None  # a layer, several in a list, or the inputs


def parts_of(inputs: Inputs | Values) -> tuple[Tensor, ...]:
    """Returns the tensors of inputs or values in any structure.

    Example:
        >>> import torch
        >>> len(parts_of({"ids": torch.zeros(1, 4), "mask": torch.ones(1, 4)}))
        2
    """
    if isinstance(inputs, Tensor):
        return (inputs,)
    return tuple(inputs.values()) if isinstance(inputs, dict) else tuple(inputs)


def row_count(inputs: Inputs) -> int:
    """Returns how many rows inputs have.

    Raises:
        ArgumentError: They are no tensors.
        ShapeError: They have no rows, or not all the same number.
    """
    parts = parts_of(inputs)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise ArgumentError(
            f"inputs are a tensor, a tuple or a dictionary of tensors, got {type(inputs).__name__}"
        )
    sizes = {part.shape[0] if part.dim() else 0 for part in parts}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ShapeError(f"inputs are batches of the same, positive length, got {shapes}")
    return sizes.pop()


def like(inputs: Inputs, tensors: Sequence[Tensor]) -> Any:
    """Returns tensors in the structure of the inputs."""
    if isinstance(inputs, Tensor):
        return tensors[0]
    return dict(zip(inputs, tensors, strict=True)) if isinstance(inputs, dict) else tuple(tensors)


def output_of(model: nn.Module, inputs: Inputs, preprocess: Preprocess | None) -> Any:
    """Returns what a model returns for inputs, which are preprocessed first if asked.

    Raises:
        ForwardError: The model cannot run on them.
    """
    with forward_errors(model, parts_of(inputs)), differentiable_recurrent(model):
        if isinstance(inputs, dict):
            return model(**(inputs if preprocess is None else preprocess(**inputs)))
        given = parts_of(inputs)
        if preprocess is not None:
            prepared = preprocess(*given)
            given = prepared if isinstance(prepared, tuple) else (prepared,)
        return model(*given)
