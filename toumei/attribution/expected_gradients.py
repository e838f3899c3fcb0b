"""Integrated gradients averaged over a distribution of baselines (Erion et al., 2021)."""

import torch

from ..core.errors import ArgumentError
from ..core.seeding import make_generator
from .baselines import BaselineLike, as_baselines
from .method import Method
from .moments import Moments
from .path import between
from .problem import Problem, parts
from .result import Attribution


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
        batch_size: int = 64,
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
        if batch_size < 1:
            raise ArgumentError(f"batch_size is a number from 1 on, got {batch_size}")
        generator = make_generator(seed)
        drawn = as_baselines(baselines, parts(problem.inputs))
        shares = torch.rand(samples, generator=generator, dtype=torch.float64)
        references = problem.baselines(drawn, samples, generator)
        moments = [Moments(len(problem)) for _ in problem.tensors]
        at_baseline = Moments(len(problem))
        for pairs in torch.arange(len(problem) * samples).split(batch_size):
            rows, draw = pairs // samples, pairs % samples
            own = [tensor[rows.to(tensor.device)] for tensor in problem.tensors]
            start = [
                reference[draw.to(reference.device), rows.to(reference.device)] for reference in references
            ]
            gradients = problem.gradients(between(start, own, shares[draw]), rows)[1]
            for moment, gradient, first, last in zip(moments, gradients, start, own, strict=True):
                moment.add(gradient * (last - first), rows)
            with torch.no_grad():
                at_baseline.add(problem.scores(start, rows).T, rows)
        with torch.no_grad():
            output = problem.scores(problem.tensors)
        return Attribution(
            problem.restore([moment.mean().to(output.dtype) for moment in moments]),
            problem.per_input(output),
            problem.per_input(at_baseline.mean().T.to(output.dtype)),
            problem.restore([moment.standard_error().to(output.dtype) for moment in moments]),
            method="ExpectedGradients",
            seed=seed,
            several=problem.several,
            complete=True,
        )
