"""DeepLift: contributions of differences from a baseline, which add up through any network."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.backward import differentiate
from ..base.baseline_samples import BaselineSamples
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, at, batches
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution, parts_of
from ..base.running_moments import Moments
from ..gradient.path import one_baseline
from .engine import Unknown, propagate


class DeepLift(Method):
    """DeepLift with the rescale rule (Shrikumar et al., 2017), for any operation.

    The difference of the score from that of a baseline is passed back through the network: linear maps pass
    it on, elementwise functions by the slope of the chord between both, products in equal halves, max-pooling
    to what was or becomes the maximum; softmax, normalizations and attention are decomposed into these.
    Functions are followed as they are called, so activations may be modules, functional, shared or in place.

    A warning says when contributions do not add up all the same, as where the network reads its input without
    a gradient (`detach`, a comparison, random numbers).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.
        unknown: What to do about an operation without a rule: ``"error"``, or ``"warn"`` and use its
            gradient.

    Example:
        >>> from torch import nn
        >>> method = DeepLift(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> bool(result.gap.abs().max() < 1e-5)
        True
    """

    differentiates = True

    def __init__(self, *args: Any, unknown: Unknown = "error", **options: Any) -> None:
        super().__init__(*args, **options)
        if unknown not in ("error", "warn"):
            raise ArgumentError(f"unknown is 'error' or 'warn', got {unknown!r}")
        self.unknown = unknown

    def attribute(
        self, problem: Problem, baselines: BaselineLike, *, batch_size: int = BATCH_SIZE
    ) -> Attribution:
        """Returns the contributions against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.
            batch_size: How many pairs of an input and its baseline pass through the network at a time.

        Raises:
            ArgumentError: An operation without a rule, baselines that differ from draw to draw, or inputs
                that are whole numbers.
        """
        references = one_baseline(problem, baselines, "DeepLift", "DeepLiftShap", batch_size)
        pieces = [
            _contributions(problem, at(problem.tensors, rows), at(references, rows), rows, self.unknown)
            for rows in batches(len(problem), batch_size)
        ]
        contributions, output, at_baseline = zip(*pieces, strict=True)
        return _checked(
            Attribution(
                problem.restore([torch.cat(parts, 1) for parts in zip(*contributions, strict=True)]),
                problem.per_input(torch.cat(output)),
                problem.per_input(torch.cat(at_baseline)),
                method="DeepLift",
                several=problem.several,
                complete=True,
            )
        )


class DeepLiftShap(DeepLift):
    """The mean of `DeepLift` over a distribution of baselines (Lundberg and Lee, 2017).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.
        unknown: As for `DeepLift`.

    Example:
        >>> from torch import nn
        >>> from toumei.attribution import FromData
        >>> method = DeepLiftShap(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, baselines=FromData(torch.randn(50, 4)), samples=20)
        >>> bool(result.gap.abs().max() < 1e-5), result.standard_error.shape
        (True, torch.Size([5, 4]))
    """

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        samples: int = 50,
        batch_size: int = 32,
        seed: int | None = 0,
    ) -> Attribution:
        """Returns the mean contributions over draws of baselines, and their standard error.

        Args:
            problem: The network and its inputs.
            baselines: A distribution, such as `FromData`.
            samples: Draws for each input.
            batch_size: Pairs of an input and a baseline at a time.
            seed: Seed of the draws.

        Raises:
            ArgumentError: Fewer than two samples, an operation without a rule, or integer inputs.
        """
        if samples < 2:
            raise ArgumentError(f"a mean over baselines needs at least 2 samples, got {samples}")
        count, drawn = len(problem), BaselineSamples(problem, baselines, samples, make_generator(seed))
        moments = [Moments(count) for _ in problem.tensors]
        outputs, at_baseline = Moments(count), Moments(count)
        for pairs in batches(samples * count, batch_size):
            draws, rows = pairs // count, pairs % count
            contributions, scores, scores0 = _contributions(
                problem, at(problem.tensors, rows), drawn(rows, draws), rows, self.unknown
            )
            for moment, contribution in zip(moments, contributions, strict=True):
                moment.add(contribution, rows)
            outputs.add(scores.T, rows)
            at_baseline.add(scores0.T, rows)
        kinds = [tensor.dtype for tensor in problem.tensors]
        return _checked(
            Attribution(
                problem.restore([m.mean().to(kind) for m, kind in zip(moments, kinds, strict=True)]),
                problem.per_input(outputs.mean().T.to(scores.dtype)),
                problem.per_input(at_baseline.mean().T.to(scores.dtype)),
                problem.restore([m.standard_error().to(k) for m, k in zip(moments, kinds, strict=True)]),
                method="DeepLiftShap",
                seed=seed,
                several=problem.several,
                complete=True,
            )
        )


def _contributions(
    problem: Problem,
    tensors: Sequence[Tensor],
    references: Sequence[Tensor],
    rows: Tensor,
    unknown: Unknown,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Contributions, each (T, B, ...), and the scores (B, T) at the inputs and at the baselines."""
    leaves = tuple(problem.leaves(tensors))
    output, at_baseline = propagate(
        lambda *inputs: problem.scores(inputs, rows), leaves, tuple(references), unknown
    )
    multipliers = differentiate(output, leaves)
    contributions = [
        multiplier * (leaf.detach() - reference)
        for multiplier, leaf, reference in zip(multipliers, leaves, references, strict=True)
    ]
    return contributions, output.detach(), at_baseline


def _checked(result: Attribution) -> Attribution:
    """The attribution, after a warning if its contributions do not add up within 1e-4 and rounding.

    Rounding of contributions that cancel is no excuse where it leaves nothing of what they add up to.
    """
    assert result.gap is not None and result.baseline_output is not None
    output, gap = result.output.double().abs(), result.gap.abs()
    scale = (result.output.double() - result.baseline_output.double()).abs().clamp(min=1e-3)
    axes = 2 if result.several else 1
    mass = torch.stack([part.double().abs().flatten(axes).sum(-1) for part in parts_of(result.values)]).sum(0)
    # of ResNets to transformers none is off by more than 1 instead of 8
    rounding = 8 * torch.finfo(result.output.dtype).eps
    why = None
    if (gap > 1e-4 * scale + rounding * (mass + output)).any():
        why = "the network reads its input without a gradient, or draws random numbers"
    elif not (gap <= 0.1 * scale + rounding * output).all():  # nan is not, either
        why = (
            f"contributions of {mass.max():.2g} in all cancel, more than {result.output.dtype} can tell: "
            "take another baseline, or a model and inputs in double()"
        )
    if why is not None:
        warnings.warn(
            f"contributions of {result.method} do not add up, the gap is {gap.max():.2g}: {why}", stacklevel=4
        )
    return result
