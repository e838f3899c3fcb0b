"""Gradients of which only what speaks for the score passes an activation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..base.batching import BATCH_SIZE
from ..base.inputs import Preprocess
from ..base.problem import Problem
from .gradients import Saliency

_RECTIFIERS = {"relu", "relu6", "leaky_relu", "gelu", "silu", "elu", "celu", "selu", "hardswish", "mish"}


class GuidedBackprop(Saliency):
    """Guided backpropagation: negative gradients stop at every ReLU (Springenberg et al., 2014).

    Pictures are sharp, but hardly depend on what the network has learned (Adebayo et al., 2018). ReLUs are
    found where they are called: modules, functional, shared or in place. Smooth and leaky relatives, such
    as GELU and SiLU, stop negative gradients too.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
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
        layer: str | None = None,
        preprocess: Preprocess | None = None,
        *,
        absolute: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model, layer, preprocess, absolute=absolute, batch_size=batch_size)

    def gradients(self, problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (N, T) and the guided gradients, each (T, N, ...)."""
        with _Guiding():
            return super().gradients(problem)


class _Positive(torch.autograd.Function):
    """The identity, through which only positive gradients come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


class _Guiding(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name not in _RECTIFIERS or not args:
            return func(*args, **kwargs)
        # in place of the copy, if at all: what an activation saves for its backward pass must stay
        copy = args[0].clone()
        output = func(copy, *args[1:], **kwargs)
        guided = _Positive.apply(output)
        return args[0].copy_(guided) if output is copy else guided
