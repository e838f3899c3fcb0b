"""The mean and the covariance of vectors that come in batches, exactly."""

import torch
from torch import Tensor

_ROUNDING = 1e-5  # of the size of a layer's numbers: what batches of other sizes change in float32


class Moments:
    """The mean and the scatter of vectors, in memory that does not grow with their number.

    Batches are combined by the formula of Chan et al. (1983) in float64, so that a small variance about a
    large mean is not lost.

    Args:
        width: How many numbers a vector has.

    Attributes:
        count: How many vectors there were.
        mean: (width,).
        scatter: (width, width), the sum of the products of what differs from the mean.

    Example:
        >>> moments = Moments(1)
        >>> moments.add(torch.tensor([[1.0], [3.0]]))
        >>> moments.add(torch.tensor([[5.0]]))
        >>> moments.mean, moments.scatter
        (tensor([3.], dtype=torch.float64), tensor([[8.]], dtype=torch.float64))
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Adds vectors (vectors, width)."""
        values = vectors.double()
        total = self.count + len(values)
        mean = values.mean(0)
        centred, difference = values - mean, mean - self.mean
        self.scatter += centred.T @ centred
        self.scatter += torch.outer(difference, difference) * (self.count * len(values) / total)
        self.mean += difference * (len(values) / total)
        self.count = total

    @property
    def second(self) -> Tensor:
        """The sum of the products of the vectors as they are, (width, width)."""
        return self.scatter + self.count * torch.outer(self.mean, self.mean)

    @property
    def deviations(self) -> Tensor:
        """The standard deviation of each number, (width,); 0 where it is no more than rounding."""
        variances = self.scatter.diagonal() / self.count
        sizes = (variances + self.mean.square()).sqrt()
        least = _ROUNDING * torch.maximum(sizes, sizes.median())
        deviations = variances.sqrt()
        return torch.where(deviations > least, deviations, 0.0)
