"""What stands for the absence of a part of the input; the same objects serve every method.

Sturmfels, Lundberg and Lee (Visualizing the Impact of Feature Attribution Baselines, 2020) compare them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import ArgumentError, ShapeError


class Baseline(ABC):
    """Inputs in which nothing is there; for a distribution, draws of them.

    Attributes:
        is_random: Whether draws differ.
    """

    is_random = False

    @abstractmethod
    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns baselines (count, N, ...) for inputs (N, ...), on their device."""

    def fill(self, inputs: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns inputs (B, ...) whose parts that are not kept are replaced.

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
        baseline: Drawn for the activation, such as `Constant` for embeddings that are zero.
    """

    baseline: Baseline

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        """Whether draws differ."""
        return self.baseline.is_random

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) draws for activations (N, ...)."""
        return self.baseline.draw(inputs, count, generator)


BaselineLike = Baseline | Tensor | float | Sequence["Baseline | Tensor | float | None"] | None


@dataclass(frozen=True)
class Constant(Baseline):
    """The same value everywhere. What has that value itself gets no contribution.

    Example:
        >>> Constant(0.5).draw(torch.zeros(1, 2), 1)
        tensor([[[0.5000, 0.5000]]])
    """

    value: float = 0.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the value."""
        return torch.full_like(inputs, self.value).expand(count, *inputs.shape)


@dataclass(frozen=True, eq=False)
class Fixed(Baseline):
    """A tensor that was given: one baseline for all inputs (1, ...) or (...), or one for each (N, ...).

    Raises:
        ShapeError: When it is used with inputs that it does not fit.
    """

    tensor: Tensor

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) copies."""
        tensor = self.tensor.detach().to(inputs.device)
        shape = tuple(inputs.shape)
        if tuple(tensor.shape) not in (shape, shape[1:], (1, *shape[1:])):
            raise ShapeError(
                f"a baseline for inputs {shape} is {shape}, {(1, *shape[1:])} or {shape[1:]}, "
                f"got {tuple(tensor.shape)}; rows to draw from are FromData(tensor)"
            )
        return tensor.to(inputs.dtype).expand(count, *shape)


@dataclass(frozen=True)
class Mean(Baseline):
    """Each picture's mean colour, or each input's mean over all axes behind the second."""

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the means."""
        axes = tuple(range(2, inputs.dim())) or (1,)
        return inputs.mean(axes, keepdim=True).expand(count, *inputs.shape)


@dataclass(frozen=True)
class Blur(Baseline):
    """The picture without what is small, a Gaussian blur; biased to high frequencies.

    Args:
        sigma: Standard deviation in pixels.
    """

    sigma: float = 20.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, C, H, W) blurred copies.

        Raises:
            ShapeError: The inputs are not pictures (N, C, H, W).
        """
        return _blurred(inputs, self.sigma).expand(count, *inputs.shape)


@dataclass(frozen=True)
class MaxDistance(Baseline):
    """The valid input that is farthest away: for each number the far end of its range.

    Args:
        low: Smallest valid value.
        high: Largest valid value.
    """

    low: float = 0.0
    high: float = 1.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the ends."""
        nearer_low = inputs < (self.low + self.high) / 2
        far = torch.where(nearer_low, self.high, self.low).to(inputs.dtype)
        return far.expand(count, *inputs.shape)


@dataclass(frozen=True)
class Uniform(Baseline):
    """Noise between two values."""

    low: float = 0.0
    high: float = 1.0
    is_random = True

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) draws."""
        noise = torch.rand(count, *inputs.shape, generator=generator, dtype=inputs.dtype)
        return noise.to(inputs.device) * (self.high - self.low) + self.low


@dataclass(frozen=True)
class Gaussian(Baseline):
    """Noise about the input, or about a value, truncated to a range if one is given.

    Args:
        sigma: Standard deviation.
        mean: Its mean; None for the input itself.
        low: Smallest value, None for no bound.
        high: Largest value, None for no bound.
    """

    sigma: float = 1.0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    is_random = True

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) draws."""
        centre = inputs.cpu() if self.mean is None else torch.full_like(inputs, self.mean, device="cpu")
        draws = centre.expand(count, *inputs.shape).clone()
        noise = torch.empty_like(draws)
        if self.low is None and self.high is None:
            return (draws + self.sigma * noise.normal_(generator=generator)).to(inputs.device)
        root = 2**0.5 * self.sigma
        ends = [-1.0 if self.low is None else torch.erf((self.low - draws) / root)]
        ends.append(1.0 if self.high is None else torch.erf((self.high - draws) / root))
        shares = ends[0] + (ends[1] - ends[0]) * noise.uniform_(generator=generator)
        return (draws + root * torch.erfinv(shares)).clamp(self.low, self.high).to(inputs.device)


@dataclass(frozen=True, eq=False)
class FromData(Baseline):
    """Rows drawn from data, such as training images: the recommended choice for a distribution.

    Args:
        data: (rows, ...) shaped as the inputs behind their batch axis.
        replace: Draw with replacement; without it, and with as many draws as rows, every row is used once.

    Raises:
        ShapeError: There are no rows.
    """

    data: Tensor
    replace: bool = True
    is_random = True

    def __post_init__(self) -> None:
        if self.data.dim() == 0 or len(self.data) == 0:
            raise ShapeError(f"baselines from data need at least one row, got {tuple(self.data.shape)}")

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) rows, each input its own draw.

        Raises:
            ShapeError: Rows of another shape than the inputs.
        """
        if self.data.shape[1:] != inputs.shape[1:]:
            raise ShapeError(
                f"rows of data are {tuple(inputs.shape[1:])} as the inputs, got {tuple(self.data.shape[1:])}"
            )
        if self.replace or count > len(self.data):
            rows = torch.randint(len(self.data), (count, len(inputs)), generator=generator)
        else:
            orders = [torch.randperm(len(self.data), generator=generator)[:count] for _ in range(len(inputs))]
            rows = torch.stack(orders, 1)
        return self.data[rows.to(self.data.device)].to(inputs)


@dataclass(frozen=True)
class Inpaint(Baseline):
    """Parts that are taken away are filled from their surroundings: a blur of what is kept.

    As a whole baseline, with nothing kept, it is the mean colour.

    Args:
        sigma: Standard deviation of the blur in pixels.
    """

    sigma: float = 5.0

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) of the means."""
        return Mean().draw(inputs, count)

    def fill(self, inputs: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns pictures (B, C, H, W) whose parts that are not kept are filled from around them."""
        weight = keep.to(inputs.dtype).expand(inputs.shape)
        # a trace of the mean colour, so that the middle of a large hole has one
        known = _blurred(weight, self.sigma) + 1e-4
        around = (_blurred(inputs * weight, self.sigma) + 1e-4 * Mean().draw(inputs, 1)[0]) / known
        return mixed(keep, inputs, around)


def as_baselines(given: BaselineLike, tensors: Sequence[Tensor]) -> tuple[Baseline, ...]:
    """Returns a baseline for each of several inputs, for what users write in the place of one.

    Args:
        given: None for zeros, a number, a tensor, a `Baseline`, or a sequence of one for each input.
        tensors: The inputs.

    Raises:
        ArgumentError: A sequence of another length, or something else.
    """
    if isinstance(given, list | tuple):
        if len(given) != len(tensors):
            raise ArgumentError(f"{len(given)} baselines for {len(tensors)} inputs")
        return tuple(_as_baseline(own) for own in given)
    if isinstance(given, Tensor) and len(tensors) > 1:
        raise ArgumentError(f"one tensor as baseline for {len(tensors)} inputs: give one for each")
    return tuple(_as_baseline(given) for _ in tensors)


def draws(baseline: Baseline, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Returns draws (count, N, ...) of a baseline in which each input has those that it has alone.

    Args:
        baseline: The baseline.
        inputs: (N, ...).
        count: How many.
        generator: Where randomness comes from; each input starts at its state.
    """
    if generator is None or not baseline.is_random:
        return baseline.draw(inputs, count, generator)
    state, drawn = generator.get_state(), []
    for own in inputs.split(1):
        generator.set_state(state)
        drawn.append(baseline.draw(own, count, generator))
    return torch.cat(drawn, 1)


def mixed(keep: Tensor, inputs: Tensor, absent: Tensor) -> Tensor:
    """Returns inputs where they are kept, else what stands for their absence, or a mixture by shares."""
    if keep.dtype == torch.bool:
        return torch.where(keep, inputs, absent)
    return torch.lerp(absent, inputs, keep.to(inputs.dtype))


def _as_baseline(given: object) -> Baseline:
    if isinstance(given, Baseline):
        return given
    if given is None:
        return Constant()
    if isinstance(given, Tensor):
        return Fixed(given)
    if isinstance(given, int | float):
        return Constant(float(given))
    raise ArgumentError(f"a baseline is a number, a tensor or an object of this module, got {given!r}")


def _blurred(images: Tensor, sigma: float) -> Tensor:
    if images.dim() != 4:
        raise ShapeError(f"a blur is for pictures (N, C, H, W), got {tuple(images.shape)}")
    from kornia.filters import gaussian_blur2d

    size = [2 * min(int(4 * sigma + 0.5), side - 1) + 1 for side in images.shape[2:]]
    blurred: Tensor = gaussian_blur2d(images, (size[0], size[1]), (sigma, sigma), border_type="reflect")
    return blurred
