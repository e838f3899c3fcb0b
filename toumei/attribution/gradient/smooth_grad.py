"""The mean and the variance of gradients at noisy copies of the input."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...core.checks import check_counts
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, batches, take_rows
from ..base.inputs import Layers, Preprocess, parts_of
from ..base.method import Method
from ..base.problem import Problem
from ..base.reliability import check_scores
from ..base.result import Attribution
from ..base.running_moments import Moments
from .gradients import InputXGradient, Saliency


class SmoothGrad(Method):
    """The mean gradient over noisy copies of the input (Smilkov et al., 2017).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs; the
            noise is added there.
        preprocess: Applied to the inputs before the network.
        of: What is averaged: `Saliency`, `InputXGradient`, `GuidedBackprop` or a subclass of one.
        samples: Noisy copies of each input.
        noise: Standard deviation of the noise as a share of the range of an input's numbers, or of the
            magnitude of an input that is one number.
        absolute: Average absolute gradients; by default gradients with their signs, as in the paper. For
            `Saliency` and `GuidedBackprop`.
        batch_size: How many noisy copies pass through the network at a time.
        seed: Seed of the noise, which is the same for each input.

    Raises:
        ArgumentError: Another method, fewer than two samples, or negative noise.

    Example:
        >>> method = SmoothGrad(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), samples=8)
        >>> method(torch.randn(5, 4), target=1).values.shape
        torch.Size([5, 4])
    """

    differentiates = True

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        of: type[Saliency] | type[InputXGradient] = Saliency,
        samples: int = 50,
        noise: float = 0.15,
        absolute: bool = False,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
    ) -> None:
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        if not (isinstance(of, type) and issubclass(of, Saliency | InputXGradient)):
            raise ArgumentError(f"noise is for Saliency, InputXGradient and GuidedBackprop, got {of!r}")
        check_counts(2, samples=samples)
        if not noise >= 0:
            raise ArgumentError(f"noise is a number from 0 on, got {noise}")
        self.of = of
        self.samples = samples
        self.noise = noise
        self.absolute = absolute
        self.seed = seed

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the means and their standard errors.

        Args:
            problem: The network and its inputs.
            baselines: Not used.

        Raises:
            ArgumentError: Inputs that are whole numbers.
        """
        output = problem.outputs(problem.tensors, self.batch_size)
        check_scores(output, "the scores of the inputs")
        method = self._averaged()
        moments = [Moments(len(problem)) for _ in problem.tensors]
        for rows, tensors in self._noisy(problem):
            result = method.attribute(problem.take(rows, tensors), None)
            found = parts_of(result.values)
            found = found if problem.layer else problem.moving(found)
            for moment, values in zip(moments, found, strict=True):
                moment.add(values if problem.several else values[None], rows)
        means, errors = self._summary(moments)
        return self.result(
            problem,
            [mean.to(output.dtype) for mean in means],
            output,
            standard_error=None if errors is None else [error.to(output.dtype) for error in errors],
        )

    def _averaged(self) -> Method:
        """The method that is averaged."""
        if issubclass(self.of, Saliency):
            return self.of(
                self.model, self.layer, self.preprocess, absolute=self.absolute, batch_size=self.batch_size
            )
        return self.of(self.model, self.layer, self.preprocess, batch_size=self.batch_size)

    def _summary(self, moments: list[Moments]) -> tuple[list[Tensor], list[Tensor] | None]:
        return [moment.mean() for moment in moments], [moment.standard_error() for moment in moments]

    def _noisy(self, problem: Problem) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yields rows (B,) of the inputs and noisy copies (B, ...), `samples` copies of each input in all."""
        count, generator = len(problem), make_generator(self.seed)
        scales = [
            self.noise * _range(tensor).reshape(-1, *(1,) * (tensor.dim() - 1)) for tensor in problem.tensors
        ]
        for samples in batches(self.samples, max(1, self.batch_size // count)):
            # drawn one sample after the other, so that they do not depend on the batch size
            drawn = [
                [torch.randn(tensor.shape[1:], generator=generator).to(tensor) for tensor in problem.tensors]
                for _ in samples
            ]
            noises = [torch.stack(of_tensor)[:, None] for of_tensor in zip(*drawn, strict=True)]
            for rows in batches(count, self.batch_size):
                pieces = zip(take_rows(problem.tensors, rows), take_rows(scales, rows), noises, strict=True)
                noisy = [(tensor + scale * noise).flatten(0, 1) for tensor, scale, noise in pieces]
                yield rows.repeat(len(samples)), noisy


def _range(tensor: Tensor) -> Tensor:
    """The range of each input's numbers, (N,), or the magnitude of an input that is one number."""
    flat = tensor.reshape(len(tensor), -1)
    return flat.amax(1) - flat.amin(1) if flat.shape[1] > 1 else flat[:, 0].abs()


class VarGrad(SmoothGrad):
    """The variance of the gradient over noisy copies of the input (Adebayo et al., 2018).

    Its settings are those of `SmoothGrad`.

    Example:
        >>> linear = nn.Linear(4, 1)
        >>> VarGrad(linear)(torch.randn(1, 4)).values
        tensor([[0., 0., 0., 0.]])
    """

    def _summary(self, moments: list[Moments]) -> tuple[list[Tensor], list[Tensor] | None]:
        return [moment.variance() for moment in moments], None
