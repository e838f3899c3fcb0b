"""What stands for the absence of a part of the input; the same objects serve every method.

Sturmfels, Lundberg and Lee (Visualizing the Impact of Feature Attribution Baselines, 2020) compare them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.checks import checked
from ...core.conversions import MISFIT, as_tensor
from ...core.errors import ArgumentError, ShapeError
from ...core.kinds import shown
from ...core.seeding import make_generator
from .channels import channels_of


class Baseline(ABC):
    """An input in which nothing is there, or a distribution of such inputs.

    Attributes:
        is_random: Whether samples differ.
        is_shared: Whether a sample is the same for every input.

    Example:
        >>> class Darkest(Baseline):
        ...     def draw(self, inputs, count, generator=None):
        ...         return inputs.flatten(1).amin(1)[:, None].expand(count, *inputs.shape)
        >>> Darkest().draw(torch.tensor([[0.2, 0.5]]), 1)
        tensor([[[0.2000, 0.2000]]])
    """

    is_random = False
    is_shared = False

    @abstractmethod
    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns baselines (count, N, ...) for inputs (N, ...), on their device."""

    def numbers(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns a whole number for each sample, (count,): samples with the same number are the same."""
        if not self.is_random:
            return torch.zeros(count, dtype=torch.long)
        return torch.randint(2**62, (count,), generator=generator)

    def numbered(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """Returns the samples (B, ...) with some numbers (B,), each for one of the inputs (B, ...)."""
        pairs = zip(inputs.split(1), numbers.tolist(), strict=True)
        return torch.cat([self.draw(one, 1, make_generator(number))[0] for one, number in pairs])

    def fill(self, inputs: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns inputs (B, ...) with the parts replaced that are not kept.

        Args:
            inputs: (B, ...).
            keep: Broadcasts to them: booleans, or shares between the baseline (0) and the input (1).
            generator: Where randomness comes from.
        """
        return mixed(keep, inputs, self.draw(inputs, 1, generator)[0])


@dataclass(frozen=True)
class AtLayer(Baseline):
    """A baseline for the activation of the layer that is attributed to, not for the inputs.

    Args:
        baseline: For the activation: a baseline, a tensor or a number, such as 0 for embeddings of zero.

    Raises:
        ArgumentError: Something else.

    Example:
        >>> AtLayer(0.5).draw(torch.zeros(1, 2), 1)
        tensor([[[0.5000, 0.5000]]])
    """

    baseline: "OneBaseline"

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", as_baseline(self.baseline))

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        """Whether samples differ."""
        return as_baseline(self.baseline).is_random

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) samples for activations (N, ...)."""
        return as_baseline(self.baseline).draw(inputs, count, generator)


OneBaseline = Baseline | Tensor | np.ndarray | float
BaselineLike = OneBaseline | Sequence["OneBaseline | None"] | Mapping[str, "OneBaseline | None"] | None


@checked
@dataclass(frozen=True)
class Constant(Baseline):
    """The same value everywhere. A number of the input that has this value gets no contribution.

    Example:
        >>> Constant(0.5).draw(torch.zeros(1, 2), 1)
        tensor([[[0.5000, 0.5000]]])
    """

    value: float = 0.0
    is_shared = True

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the value."""
        return held(torch.tensor(self.value, dtype=torch.float64), inputs).expand(count, *inputs.shape)


@dataclass(frozen=True, eq=False)
class Fixed(Baseline):
    """A tensor that was given: one baseline for all inputs (1, ...) or (...), or one for each (N, ...).

    Raises:
        ShapeError: When it is used with inputs that it does not fit.
    """

    tensor: Tensor

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) copies."""
        tensor = self.tensor.detach()
        shape = tuple(inputs.shape)
        if tuple(tensor.shape) not in (shape, shape[1:], (1, *shape[1:])):
            raise ShapeError(
                f"a baseline for inputs {shape} is {shape}, {(1, *shape[1:])} or {shape[1:]}, "
                f"got {tuple(tensor.shape)}; rows to draw from are FromData(tensor)"
            )
        return held(tensor, inputs).expand(count, *shape)


@checked
@dataclass(frozen=True)
class Mean(Baseline):
    """Each picture's mean colour: for each channel of an input its mean over all positions.

    Args:
        channel_axis: The axis of the channels; by default axis 1 of maps (N, C, H, W) and videos
            (N, C, T, H, W), the last of tokens (N, T, C). For signals (N, C, L) give 1.

    Example:
        >>> Mean().draw(torch.arange(4.0).reshape(1, 1, 2, 2), 1).unique()
        tensor([1.5000])
    """

    channel_axis: int | None = None

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the means.

        Raises:
            ArgumentError: Whole numbers, or tabular inputs (N, M), whose columns may have different units.
        """
        check_floating(self, inputs)
        channels = channels_of(inputs, self.channel_axis)
        if channels is None:
            raise ArgumentError(
                f"the mean of a row {tuple(inputs.shape[1:])} would mix its columns: for tabular inputs give "
                f"a tensor of the columns' means, or rows to draw from, FromData(rows)"
            )
        axes = [axis for axis in range(1, inputs.dim()) if axis != channels]
        return inputs.mean(axes, keepdim=True).expand(count, *inputs.shape)


@checked
@dataclass(frozen=True)
class MaxDistance(Baseline):
    """The valid input that is farthest from the input: for each number the far end of its range.

    Args:
        low: Smallest valid value.
        high: Largest valid value.

    Example:
        >>> MaxDistance().draw(torch.tensor([[0.2, 0.7]]), 1)
        tensor([[[1., 0.]]])
    """

    low: float = 0.0
    high: float = 1.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the ends."""
        nearer_low = inputs < (self.low + self.high) / 2
        low, high = (held(torch.tensor(end, dtype=torch.float64), inputs) for end in (self.low, self.high))
        return torch.where(nearer_low, high, low).expand(count, *inputs.shape)


def held(values: Tensor, inputs: Tensor) -> Tensor:
    """Returns values on the device and in the dtype of inputs.

    Raises:
        ArgumentError: Values that the dtype cannot hold, such as 35.5 in whole numbers.

    Example:
        >>> held(torch.tensor([2.0]), torch.tensor([7]))
        tensor([2])
    """
    if values.dtype == inputs.dtype:
        return values.to(inputs.device)
    result = values.to(inputs.dtype)
    if inputs.is_floating_point() or inputs.is_complex():
        kept = values.isfinite() <= result.isfinite()
    else:
        kept = result.to(values.dtype) == values
    if not kept.all():
        raise ArgumentError(
            f"inputs of {inputs.dtype} cannot hold the baseline {values[~kept].flatten()[0].item():g}: give "
            f"inputs of another dtype, such as inputs.float(), or another baseline"
        )
    return result.to(inputs.device)


def mixed(keep: Tensor, inputs: Tensor, absent: Tensor) -> Tensor:
    """Returns the inputs where they are kept and the absent values elsewhere, or a mixture by shares."""
    if keep.dtype == torch.bool:
        return torch.where(keep, inputs, absent)
    # the inputs come first: what is mixed has their layout in memory, such as channels last, which is faster
    return torch.lerp(inputs, absent, 1 - keep.to(inputs.dtype))


def as_baseline(given: Any) -> Baseline:
    """Returns the baseline that a user's argument stands for.

    Args:
        given: A number, a tensor, an array, a row or a table of pandas, or a `Baseline`; None stands for
            zeros.

    Raises:
        ArgumentError: Something else.
    """
    if isinstance(given, Baseline):
        return given
    if given is None:
        return Constant()
    several = isinstance(given, Tensor | np.ndarray) or hasattr(given, "to_numpy")  # also of pandas
    if several and (tensor := as_tensor(given)) is not MISFIT:
        return Fixed(tensor)
    if isinstance(given, int | float | np.number):
        return Constant(float(given))
    raise ArgumentError(
        f"a baseline is a number, a tensor, an array, or one of toumei.attribution, such as Mean(), "
        f"Blur() or FromData(rows), got {shown(given)}"
    )


def check_floating(baseline: Baseline, inputs: Tensor) -> None:
    """Raises an error for inputs of whole numbers.

    Raises:
        ArgumentError: Inputs of whole numbers.
    """
    if not inputs.is_floating_point():
        raise ArgumentError(
            f"there is no {type(baseline).__name__} baseline of inputs of {inputs.dtype}: give a number or a "
            f"tensor, such as the token that stands for absence, or rows to draw from, FromData(rows)"
        )
