"""Integrated gradients averaged over a distribution of baselines (Erion et al., 2021)."""

import torch

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.baseline_samples import BaselineSamples
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, at, batches
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from ..base.running_moments import Moments
from .path import between


class ExpectedGradients(Method):
    """Expected gradients: the mean of integrated gradients over baselines, by samples of both.

    Each sample is a baseline and a point on the way from it. The contributions add up to the difference from
    the mean score of the baselines in expectation, so the gap shrinks as the standard error does.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> from toumei.attribution import FromData
        >>> method = ExpectedGradients(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, baselines=FromData(torch.randn(50, 4)), samples=64)
        >>> result.standard_error.shape
        torch.Size([5, 4])
    """

    differentiates = True

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        samples: int = 200,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
    ) -> Attribution:
        """Returns the mean contributions over draws of baselines, and their standard error.

        Args:
            problem: The network and its inputs.
            baselines: A distribution, such as `FromData` with training data.
            samples: Draws for each input.
            batch_size: How many pairs of an input and a draw pass through the network at a time.
            seed: Seed of the draws, which are the same for each input.

        Raises:
            ArgumentError: Fewer than two samples, or inputs that are whole numbers.
        """
        if samples < 2:
            raise ArgumentError(f"a mean over baselines needs at least 2 samples, got {samples}")
        generator, count = make_generator(seed), len(problem)
        shares = torch.rand(samples, generator=generator, dtype=torch.float64)
        drawn = BaselineSamples(problem, baselines, samples, generator)
        moments = [Moments(count) for _ in problem.tensors]
        # a draw for all inputs, then the next: where they share it, a layer's activation at it is needed once
        for pairs in batches(count * samples, batch_size):
            draws, rows = pairs // count, pairs % count
            start, end = drawn(rows, draws), at(problem.tensors, rows)
            gradients = problem.gradients(between(start, end, shares[draws]), rows)[1]
            for moment, gradient, first, last in zip(moments, gradients, start, end, strict=True):
                moment.add(gradient * (last - first), rows)
        output = problem.outputs(problem.tensors, batch_size)
        return Attribution(
            problem.restore([moment.mean().to(output.dtype) for moment in moments]),
            problem.per_input(output),
            problem.per_input(drawn.outputs(batch_size).to(output.dtype)),
            problem.restore([moment.standard_error().to(output.dtype) for moment in moments]),
            method="ExpectedGradients",
            seed=seed,
            several=problem.several,
            complete=True,
        )
