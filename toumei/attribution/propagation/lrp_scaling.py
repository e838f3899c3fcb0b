"""Layers that scale and shift each number by constants, such as a normalization, for relevance to pass."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_AFFINE = {"add", "sub", "rsub", "mul", "div", "neg", "clone"}


class Scaling(nn.Module):
    """A layer that is run as it is, and remembers whether all it does is to scale and shift each number.

    Args:
        layer: The layer.

    Attributes:
        layer: In a tuple, so that it is not a part of this module.
        called: Names of the functions that its last run called of what depends on the input.
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
        given = [own.clone() if isinstance(own, Tensor) else own for own in inputs]  # it may work in place
        with _Watching() as watched:
            output = self.layer[0](*given, **options)
        self.called = watched.called
        taken = bool(inputs) and isinstance(inputs[0], Tensor)
        self.scales = taken and watched.affine and isinstance(output, Tensor) and output.requires_grad
        if taken:
            self.source = inputs[0].grad_fn, inputs[0].output_nr
        return output


class _Watching(TorchFunctionMode):
    """Looks whether functions of what depends on the input are affine in each number, by constants."""

    def __init__(self) -> None:
        super().__init__()
        self.called: Counter[str] = Counter()
        self.affine = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.requires_grad:
            name = getattr(func, "__name__", str(func)).strip("_")
            self.called[name] += 1
            own = [one for one in args if isinstance(one, Tensor) and one.requires_grad]
            plain = name in _AFFINE and not kwargs and len(own) == 1 and own[0].shape == output.shape
            # a constant divided by the input is not affine in it
            self.affine = self.affine and plain and (name != "div" or args[0] is own[0])
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
        count += sum(own == source for own in following)
        new = {own for own, _ in following} - seen
        seen |= new
        steps += new
    return count
