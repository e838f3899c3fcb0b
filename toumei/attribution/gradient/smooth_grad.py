"""The mean and the variance of gradients at noisy copies of the input."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, at, batches
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution, parts_of
from ..base.running_moments import Moments
from .gradients import InputXGradient, Saliency


class SmoothGrad(Method):
    """The mean gradient over noisy copies of the input (Smilkov et al., 2017).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs; the noise is added there.
        preprocess: Applied to the inputs before the network.
        of: What is averaged: `Saliency`, `InputXGradient`, `GuidedBackprop` or a subclass of one. Of saliency
            it is the gradient with its sign, as in the paper, unless the option ``absolute=True`` is given.

    Raises:
        ArgumentError: Another method.

    Example:
        >>> method = SmoothGrad(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        >>> method(torch.randn(5, 4), target=1, samples=8).values.shape
        torch.Size([5, 4])
    """

    differentiates = True

    def __init__(
        self,
        model: nn.Module,
        layer: str | None = None,
        preprocess: Callable[..., Any] | None = None,
        of: type[Saliency] | type[InputXGradient] = Saliency,
    ) -> None:
        super().__init__(model, layer, preprocess)
        if not issubclass(of, Saliency | InputXGradient):
            raise ArgumentError(f"noise is for Saliency, InputXGradient and GuidedBackprop, got {of!r}")
        self.of = of(model, layer, preprocess)

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        samples: int = 50,
        noise: float = 0.15,
        absolute: bool = False,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
    ) -> Attribution:
        """Returns the means and their standard errors.

        Args:
            problem: The network and its inputs.
            baselines: Not used.
            samples: Noisy copies of each input.
            noise: Standard deviation of the noise as a share of the range of an input's numbers.
            absolute: Average absolute gradients.
            batch_size: How many noisy copies pass through the network at a time.
            seed: Seed of the noise, which is the same for each input.

        Raises:
            ArgumentError: Fewer than two samples, negative noise, or inputs that are whole numbers.
        """
        if samples < 2 or noise < 0 or batch_size < 1:
            raise ArgumentError(
                f"there are at least 2 samples, noise from 0 on and a batch size from 1 on, got {samples}, "
                f"{noise} and {batch_size}"
            )
        options: dict[str, Any] = {"absolute": absolute} if isinstance(self.of, Saliency) else {}
        moments = [Moments(len(problem)) for _ in problem.tensors]
        for rows, tensors in _noisy(problem, samples, noise, batch_size, make_generator(seed)):
            own = problem.take(rows, tensors)
            result = self.of.attribute(own, None, batch_size=batch_size, **options)
            found = parts_of(result.values)
            found = found if problem.layer else problem.moving(found)
            for moment, values in zip(moments, found, strict=True):
                moment.add(values if problem.several else values[None], rows)
        output = problem.outputs(problem.tensors, batch_size)
        means, errors = self._summary(moments)
        return Attribution(
            problem.restore([value.to(output.dtype) for value in means]),
            problem.per_input(output),
            standard_error=None
            if errors is None
            else problem.restore([error.to(output.dtype) for error in errors]),
            method=type(self).__name__,
            seed=seed,
            several=problem.several,
        )

    def _summary(self, moments: list[Moments]) -> tuple[list[Tensor], list[Tensor] | None]:
        return [moment.mean() for moment in moments], [moment.standard_error() for moment in moments]


class VarGrad(SmoothGrad):
    """The variance of the gradient over noisy copies of the input (Adebayo et al., 2018).

    Args:
        model: The network.
        layer: As for `SmoothGrad`.
        preprocess: Applied to the inputs before the network.
        of: As for `SmoothGrad`.

    Example:
        >>> linear = nn.Linear(4, 1)
        >>> VarGrad(linear)(torch.randn(1, 4)).values
        tensor([[0., 0., 0., 0.]])
    """

    def _summary(self, moments: list[Moments]) -> tuple[list[Tensor], list[Tensor] | None]:
        return [moment.variance() for moment in moments], None


def _noisy(
    problem: Problem, samples: int, noise: float, batch_size: int, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yields rows (B,) of the inputs and noisy copies (B, ...) of them, each input `samples` times in all."""
    count = len(problem)
    scales = [
        noise * (flat.amax(1) - flat.amin(1)).reshape(-1, *(1,) * (tensor.dim() - 1))
        for tensor in problem.tensors
        for flat in [tensor.flatten(1)]
    ]
    for draws in batches(samples, max(1, batch_size // count)):
        # one draw after the other, so that they do not depend on the size of batches
        drawn = [
            [torch.randn(tensor.shape[1:], generator=generator).to(tensor) for tensor in problem.tensors]
            for _ in draws
        ]
        noises = [torch.stack(own)[:, None] for own in zip(*drawn, strict=True)]
        for rows in batches(count, batch_size):
            pieces = zip(at(problem.tensors, rows), at(scales, rows), noises, strict=True)
            noisy = [(tensor + scale * moved).flatten(0, 1) for tensor, scale, moved in pieces]
            yield rows.repeat(len(draws)), noisy
