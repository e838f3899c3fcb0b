"""Gradients that pass an activation only where they are positive."""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.function_kinds import RECTIFIERS, rectifier_ceiling
from ...core.functions import Function, FunctionMode, canonical_name
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.problem import Problem
from .gradients import Saliency


class GuidedBackprop(Saliency):
    """Guided backpropagation: negative gradients stop at every ReLU (Springenberg et al., 2014).

    Pictures are sharp, but hardly depend on what the network has learned (Adebayo et al., 2018). ReLUs are
    found where they are called, under any name: modules, functional, shared or in place, ``clamp(min=0)``.
    Smooth and leaky relatives, such as GELU and SiLU, stop negative gradients too.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        absolute: Take absolute values.
        batch_size: How many inputs pass through the network at a time.

    Example:
        >>> relu = nn.ReLU()
        >>> method = GuidedBackprop(nn.Sequential(relu, nn.Linear(2, 1), relu))
        >>> method(torch.randn(5, 2)).values.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        absolute: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model, layer, preprocess, absolute=absolute, batch_size=batch_size)

    def gradients(self, problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (N, T) and the guided gradients, each (T, N, ...)."""
        with FunctionMode(_guide):
            return super().gradients(problem)


class _Positive(torch.autograd.Function):
    """The identity, through which only positive gradients come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


def _guide(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function; negative gradients stop at a rectifier."""
    name, _ = canonical_name(function)
    rectifies = name in RECTIFIERS or rectifier_ceiling(name, args, kwargs) is not None
    if not rectifies or not torch.is_grad_enabled():  # as in the backward pass
        return function(*args, **kwargs)
    x = args[0] if args else kwargs["input"]
    options = {key: value for key, value in kwargs.items() if key != "input"}
    # in place of the copy, if at all: what an activation saves for its backward pass must stay
    copy = x.clone()
    output = function(copy, *args[1:], **options)
    guided = _Positive.apply(output)
    return x.copy_(guided) if output is copy else guided
