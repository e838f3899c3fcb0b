"""The running mean and variance of the coefficients of each neuron of a layer."""

import torch
from torch import Tensor


class CoefficientMoments:
    """The mean and the variance of numbers that come in batches.

    Batches are summed and combined in float64 (float32 on devices without it) by the formula of Chan et al.
    (1983), so a small variance about a large mean is not lost.

    Args:
        neurons: How many numbers a sample has.
        device: Where the samples are.

    Example:
        >>> moments = CoefficientMoments(1)
        >>> moments.add(torch.tensor([[1.0], [3.0]]))
        >>> moments.add(torch.tensor([[5.0]]))
        >>> moments.count, moments.mean.tolist(), moments.variance().tolist()
        (3, [3.0], [4.0])
    """

    def __init__(self, neurons: int, device: torch.device | str = "cpu") -> None:
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.count = 0
        self.mean = torch.zeros(neurons, dtype=dtype, device=device)
        self._squares = torch.zeros_like(self.mean)

    def add(self, samples: Tensor) -> None:
        """Adds samples (samples, neurons)."""
        added, total = len(samples), self.count + len(samples)
        values = samples.to(self.mean.dtype, copy=True)
        mean = values.mean(0)
        squares = values.sub_(mean).square_().sum(0)
        difference = mean - self.mean
        self._squares += squares + difference.square() * (self.count * added / total)
        self.mean += difference * (added / total)
        self.count = total

    def variance(self) -> Tensor:
        """Returns the unbiased variances, (neurons,); NaN for fewer than two samples."""
        return self._squares / (self.count - 1) if self.count > 1 else torch.full_like(self.mean, torch.nan)
