"""Layers that scale and shift each number by constants, such as a normalization, for relevance to pass."""

from collections import Counter
from typing import Any

from torch import Tensor, nn

from ...core.functions import Function, canonical_name, intercepted

_AFFINE = {"add", "sub", "rsub", "mul", "div", "neg", "positive", "clone"}


class Scaling(nn.Module):
    """A layer that is run as it is, and remembers whether all it does is to scale and shift each number.

    Args:
        layer: The layer.

    Attributes:
        layer: In a tuple, so that it is not a part of this module.
        called: Names of the functions that its last run called with tensors that depend on the input.
        scales: Whether that run only scaled and shifted.
        source: The step of the backward pass, and which of its outputs, that its last input came from.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = (layer,)
        self.called: Counter[str] = Counter()
        self.scales = True
        self.source: tuple[Any, int] = (None, 0)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Returns what the layer does."""
        # copies, since the layer may work in place
        given = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
        watched = _Watched()
        with intercepted(watched.handle):
            output = self.layer[0](*given, **options)
        self.called = watched.called
        taken = bool(inputs) and isinstance(inputs[0], Tensor)
        self.scales = taken and watched.affine and isinstance(output, Tensor) and output.requires_grad
        if taken:
            self.source = inputs[0].grad_fn, inputs[0].output_nr
        return output


class _Watched:
    """Whether the functions that get tensors from the input are affine in each number."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()
        self.affine = True

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns what the function returns, and notes its name and whether it is affine."""
        output = function(*args, **kwargs)
        if isinstance(output, Tensor) and output.requires_grad:
            name, _ = canonical_name(function)
            self.called[name] += 1
            moving = [value for value in args if isinstance(value, Tensor) and value.requires_grad]
            plain = name in _AFFINE and not kwargs and len(moving) == 1 and moving[0].shape == output.shape
            # a constant divided by the input is not affine in it
            self.affine = self.affine and plain and (name != "div" or args[0] is moving[0])
        return output


def uses(output: Tensor, source: tuple[Any, int]) -> int:
    """Returns how many steps on the way to an output take what a step of its graph gave.

    Example:
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True).exp()
        >>> uses(x + 3 * x.sin(), (x.grad_fn, 0)), uses(x.sin(), (x.grad_fn, 0))
        (2, 1)
    """
    count, steps = 0, [output.grad_fn]
    seen = set(steps)
    for step in steps:
        following = () if step is None else step.next_functions
        count += sum(taken == source for taken in following)
        new = {below for below, _ in following} - seen
        seen |= new
        steps += new
    return count
