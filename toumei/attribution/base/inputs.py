"""Inputs of a network: a tensor, a tuple of tensors, or a dictionary of those that it takes by name."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...core.outputs import main_tensor

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def parts(inputs: Inputs) -> tuple[Tensor, ...]:
    """Returns the tensors of inputs in any structure."""
    if isinstance(inputs, Tensor):
        return (inputs,)
    return tuple(inputs.values()) if isinstance(inputs, dict) else tuple(inputs)


def like(inputs: Inputs, tensors: Sequence[Tensor]) -> Any:
    """Returns tensors in the structure of inputs."""
    if isinstance(inputs, Tensor):
        return tensors[0]
    return dict(zip(inputs, tensors, strict=True)) if isinstance(inputs, dict) else tuple(tensors)


def output_of(model: nn.Module, inputs: Inputs, preprocess: Callable[..., Any] | None) -> Tensor:
    """Returns the main tensor of what a model returns for inputs, after a preprocessing if there is one."""
    if isinstance(inputs, dict):
        output = model(**(inputs if preprocess is None else preprocess(**inputs)))
    else:
        given = parts(inputs)
        if preprocess is not None:
            prepared = preprocess(*given)
            given = prepared if isinstance(prepared, tuple) else (prepared,)
        output = model(*given)
    return main_tensor(output)
