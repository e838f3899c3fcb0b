"""Integrated gradients averaged over a distribution of baselines (Erion et al., 2021)."""

import torch
from torch import nn

from ...core.checks import check_counts
from ...core.seeding import make_generator
from ..base.baseline_samples import BaselineSamples
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, batches, take_rows
from ..base.inputs import Layers, Preprocess
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from ..base.running_moments import Moments
from .path import between


class ExpectedGradients(Method):
    """Expected gradients: the mean of integrated gradients over baselines, estimated by samples.

    Each sample is a baseline and a point on the path from it. The contributions sum to the difference from
    the mean score of the baselines in expectation, so the gap shrinks as the standard error does.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        samples: Samples for each input.
        batch_size: How many pairs of an input and a sample pass through the network at a time.
        seed: Seed of the samples, which are the same for each input.

    Example:
        >>> from toumei.attribution import FromData
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> method = ExpectedGradients(model, samples=64)
        >>> result = method(torch.randn(5, 4), target=1, baselines=FromData(torch.randn(50, 4)))
        >>> result.standard_error.shape
        torch.Size([5, 4])
    """

    differentiates = True
    complete = True

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        samples: int = 200,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
    ) -> None:
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        check_counts(2, samples=samples)
        self.samples = samples
        self.seed = seed

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the mean contributions over samples of the baseline, and their standard error.

        Args:
            problem: The network and its inputs.
            baselines: A distribution, such as `FromData` with training data.

        Raises:
            ArgumentError: Inputs that are whole numbers.
        """
        generator, count = make_generator(self.seed), len(problem)
        shares = torch.rand(self.samples, generator=generator, dtype=torch.float64)
        baseline_samples = BaselineSamples(problem, baselines, self.samples, generator)
        moments = [Moments(count) for _ in problem.tensors]
        # a sample for all inputs, then the next: a shared sample passes through the network once
        for pairs in batches(count * self.samples, self.batch_size):
            samples, rows = pairs // count, pairs % count
            start, end = baseline_samples(rows, samples), take_rows(problem.tensors, rows)
            gradients = problem.gradients(between(start, end, shares[samples]), rows)[1]
            for moment, gradient, first, last in zip(moments, gradients, start, end, strict=True):
                moment.add(gradient * (last - first), rows)
        output = problem.outputs(problem.tensors, self.batch_size)
        return self.result(
            problem,
            [moment.mean().to(output.dtype) for moment in moments],
            output,
            baseline_samples.outputs(self.batch_size).to(output.dtype),
            [moment.standard_error().to(output.dtype) for moment in moments],
        )
