"""Running means and variances of samples, for each of several inputs."""

import torch
from torch import Tensor


class Moments:
    """The mean and the variance of samples for each of N inputs.

    Samples are added a batch at a time. Sums are kept in float64 (float32 on devices without it) of the
    differences from an input's first sample, so that a small variance about a large mean is not lost.

    Args:
        count: N.

    Example:
        >>> moments = Moments(2)
        >>> moments.add(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([0, 0, 1]))
        >>> moments.add(torch.tensor([[7.0]]), torch.tensor([1]))
        >>> moments.mean(), moments.variance()
        (tensor([[2., 7.]], dtype=torch.float64), tensor([[2., 0.]], dtype=torch.float64))
    """

    def __init__(self, count: int) -> None:
        self.samples = torch.zeros(count, dtype=torch.long)
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, values: Tensor, rows: Tensor) -> None:
        """Adds samples (T, B, ...) of the inputs in rows (B,)."""
        rows = rows.cpu()
        samples = values.detach().to(torch.float32 if values.device.type == "mps" else torch.float64)
        if self._sums is None:
            zeros = samples.new_zeros(len(samples), len(self.samples), *samples.shape[2:])
            self._sums = zeros, zeros.clone(), zeros.clone()
        first, total, square = self._sums
        seen: set[int] = set()
        for column, row in enumerate(rows.tolist() if (self.samples[rows] == 0).any() else ()):
            if not self.samples[row] and row not in seen:
                first[:, row] = samples[:, column]
                seen.add(row)
        index = rows.to(samples.device)
        difference = samples - first[:, index]
        total.index_add_(1, index, difference)
        square.index_add_(1, index, difference.square())
        self.samples.index_add_(0, rows, torch.ones_like(rows))

    def mean(self) -> Tensor:
        """Returns the means (T, N, ...)."""
        first, total, _ = self._parts()
        return first + total / self._count(total)

    def variance(self) -> Tensor:
        """Returns the unbiased variances (T, N, ...)."""
        _, total, square = self._parts()
        count = self._count(total)
        return ((square - total.square() / count) / (count - 1)).clamp(min=0)

    def standard_error(self) -> Tensor:
        """Returns the standard errors of the means, (T, N, ...)."""
        variance = self.variance()
        return (variance / self._count(variance)).sqrt()

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self._sums is not None, "no sample has been added"
        return self._sums

    def _count(self, like: Tensor) -> Tensor:
        return self.samples.to(like).reshape(1, -1, *(1,) * (like.dim() - 2))
