"""Baselines that are drawn: from noise, or from data such as training inputs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.conversions import MISFIT, as_tensor
from ...core.errors import NotATensorError, ShapeError
from ...core.kinds import shown
from ...core.summaries import line_of
from .baselines import Baseline, check_floating, held
from .names import is_table, numbers_of


@checked
@dataclass(frozen=True)
class Uniform(Baseline):
    """Noise between two values.

    Args:
        low: The smallest value.
        high: The largest value.

    Example:
        >>> Uniform(0.0, 0.5).draw(torch.rand(2, 3, 8, 8), 4).amax() <= 0.5
        tensor(True)
    """

    low: float = 0.0
    high: float = 1.0
    is_random = True
    is_shared = True

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) samples.

        Raises:
            ArgumentError: Whole numbers.
        """
        check_floating(self, inputs)
        noise = torch.rand(count, *inputs.shape, generator=generator, dtype=inputs.dtype)
        return noise.to(inputs.device) * (self.high - self.low) + self.low


@checked
@dataclass(frozen=True)
class Gaussian(Baseline):
    """Noise about the input, or about a value, truncated to a range if one is given.

    Args:
        sigma: Standard deviation.
        mean: Its mean; None for the input itself.
        low: Smallest value, None for no bound.
        high: Largest value, None for no bound.

    Example:
        >>> Gaussian(0.1, low=0.0, high=1.0).draw(torch.rand(2, 3, 8, 8), 4).shape
        torch.Size([4, 2, 3, 8, 8])
    """

    sigma: float = 1.0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    is_random = True

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        """Whether a sample is the same for every input: not if its mean is the input."""
        return self.mean is not None

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) samples.

        Raises:
            ArgumentError: Whole numbers.
        """
        check_floating(self, inputs)
        centre = inputs.cpu() if self.mean is None else torch.full_like(inputs, self.mean, device="cpu")
        means = centre.expand(count, *inputs.shape).clone()
        noise = torch.empty_like(means)
        if self.low is None and self.high is None:
            return (means + self.sigma * noise.normal_(generator=generator)).to(inputs.device)
        root = 2**0.5 * self.sigma
        ends = [-1.0 if self.low is None else torch.erf((self.low - means) / root)]
        ends.append(1.0 if self.high is None else torch.erf((self.high - means) / root))
        shares = ends[0] + (ends[1] - ends[0]) * noise.uniform_(generator=generator)
        return (means + root * torch.erfinv(shares)).clamp(self.low, self.high).to(inputs.device)


@checked
@dataclass(frozen=True, eq=False)
class FromData(Baseline):
    """Rows drawn from data, such as training images: the recommended choice for a distribution.

    It is what shap calls the background: every input is compared with rows that are drawn from all of it.

    Rows of several inputs belong together: the same row numbers are drawn for all of them.

    Args:
        data: (rows, ...) with rows in the shape of one input; also an array or a table of pandas.
        replace: Draw with replacement; without it every row is used once before any is used again.
        columns: The names of the columns; by default those of a table of pandas.

    Raises:
        ShapeError: There are no rows.
        ArgumentError: A table with columns that are no numbers.

    Example:
        >>> FromData(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).draw(torch.zeros(1, 2), 5).shape
        torch.Size([5, 1, 2])
    """

    data: Tensor | Any  # a tensor, once it is made
    replace: bool = True
    columns: tuple[str, ...] | None = None

    __repr__ = line_of
    is_random = True
    is_shared = True

    def __post_init__(self) -> None:
        data: Any = self.data
        if is_table(data):
            object.__setattr__(self, "columns", self.columns or tuple(map(str, data.columns)))
            data = numbers_of(data)
        data = as_tensor(data)
        if data is MISFIT:
            raise NotATensorError(f"data is a tensor, an array or a table, got {shown(self.data)}")
        object.__setattr__(self, "data", data)
        if self.data.dim() == 0 or len(self.data) == 0:
            raise ShapeError(f"baselines from data need at least one row, got {tuple(self.data.shape)}")

    def draw(self, inputs: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns (count, N, ...) rows, drawn for each input separately.

        Raises:
            ShapeError: Rows of another shape than the inputs.
        """
        return self._rows(inputs, torch.stack([self.numbers(count, generator) for _ in inputs], 1))

    def numbers(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns which rows are drawn, (count,)."""
        rows = len(self.data)
        if self.replace:
            return torch.randint(rows, (count,), generator=generator)
        rounds = -(-count // rows)
        return torch.cat([torch.randperm(rows, generator=generator) for _ in range(rounds)])[:count]

    def numbered(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """Returns the rows (B, ...) of these numbers.

        Raises:
            ShapeError: Rows of another shape than the inputs.
        """
        return self._rows(inputs, numbers)

    def _rows(self, inputs: Tensor, rows: Tensor) -> Tensor:
        if self.data.shape[1:] != inputs.shape[1:]:
            raise ShapeError(
                f"rows of data are {tuple(inputs.shape[1:])} as the inputs, got {tuple(self.data.shape[1:])}"
            )
        return held(self.data.detach()[(rows % len(self.data)).to(self.data.device)], inputs)
