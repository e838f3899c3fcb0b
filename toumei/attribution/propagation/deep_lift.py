"""DeepLift: contributions of differences from a baseline, which add up through any network."""

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from ...core.checks import check_choice, check_counts
from ...core.seeding import make_generator
from ...core.user_warnings import warn
from ..base.backward import leaves_of
from ..base.baseline_samples import BaselineSamples, one_baseline
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, batches, take_rows
from ..base.inputs import Layers, Preprocess, parts_of
from ..base.method import Method
from ..base.precision import ROUNDING, gap_is_rounding
from ..base.problem import Problem
from ..base.result import Attribution
from ..base.running_moments import Moments
from ..gradient.path import sums
from .engine import Unknown, propagate


class DeepLift(Method):
    """DeepLift with the rescale rule (Shrikumar et al., 2017), for any operation.

    The difference of the score from that of a baseline is passed back through the network: linear maps pass
    it on, elementwise functions by the slope of the chord between both, products in equal halves, max-pooling
    to what was or becomes the maximum; softmax, normalizations, attention, recurrent layers, losses and
    distances are decomposed into these. What is picked by its rank belongs to the numbers that passed it.
    Functions are followed as they are called, so activations may be modules, functional, shared or in place.

    A warning says when contributions do not add up all the same, as where the network reads its input without
    a gradient (`detach`, a comparison, random numbers).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        unknown: What happens at an operation without a rule: ``"error"``, or ``"warn"`` and use its gradient.
        batch_size: How many pairs of an input and its baseline pass through the network at a time.

    Example:
        >>> method = DeepLift(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> bool(result.gap.abs().max() < 1e-5)
        True
    """

    differentiates = True
    complete = True

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        unknown: Unknown = "error",
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        check_choice("unknown", unknown, get_args(Unknown))
        self.unknown: Unknown = unknown

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the contributions against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.

        Raises:
            ArgumentError: An operation without a rule, a distribution of baselines, or inputs that are whole
                numbers.
        """
        references = one_baseline(problem, baselines, "DeepLift", "DeepLiftShap", self.batch_size)
        pieces = [
            _contributions(
                problem, take_rows(problem.tensors, rows), take_rows(references, rows), rows, self.unknown
            )
            for rows in batches(len(problem), self.batch_size)
        ]
        contributions, output, at_baseline = zip(*pieces, strict=True)
        values = [torch.cat(batch, 1) for batch in zip(*contributions, strict=True)]
        result = self.result(problem, values, torch.cat(output), torch.cat(at_baseline))
        return _checked(result, problem, lambda rows: take_rows(references, rows))


class DeepLiftShap(DeepLift):
    """The mean of `DeepLift` over a distribution of baselines (Lundberg and Lee, 2017).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        unknown: As for `DeepLift`.
        samples: Baseline samples for each input.
        batch_size: How many pairs of an input and a baseline pass through the network at a time.
        seed: Seed of the baseline samples.

    Example:
        >>> from toumei.attribution import FromData
        >>> method = DeepLiftShap(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), samples=20)
        >>> result = method(torch.randn(5, 4), target=1, baselines=FromData(torch.randn(50, 4)))
        >>> bool(result.gap.abs().max() < 1e-5), result.standard_error.shape
        (True, torch.Size([5, 4]))
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        unknown: Unknown = "error",
        samples: int = 50,
        batch_size: int = 32,
        seed: int | None = 0,
    ) -> None:
        super().__init__(model, layer, preprocess, unknown=unknown, batch_size=batch_size)
        check_counts(2, samples=samples)
        self.samples = samples
        self.seed = seed

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the mean contributions over samples of the baseline, and their standard error.

        Args:
            problem: The network and its inputs.
            baselines: A distribution, such as `FromData`.

        Raises:
            ArgumentError: An operation without a rule, or inputs that are whole numbers.
        """
        count, generator = len(problem), make_generator(self.seed)
        baseline_samples = BaselineSamples(problem, baselines, self.samples, generator)
        moments = [Moments(count) for _ in problem.tensors]
        outputs, at_baseline = Moments(count), Moments(count)
        for pairs in batches(self.samples * count, self.batch_size):
            samples, rows = pairs // count, pairs % count
            references = baseline_samples(rows, samples)
            contributions, scores, scores0 = _contributions(
                problem, take_rows(problem.tensors, rows), references, rows, self.unknown
            )
            for moment, contribution in zip(moments, contributions, strict=True):
                moment.add(contribution, rows)
            outputs.add(scores.T, rows)
            at_baseline.add(scores0.T, rows)
        dtypes = [tensor.dtype for tensor in problem.tensors]
        result = self.result(
            problem,
            [moment.mean().to(dtype) for moment, dtype in zip(moments, dtypes, strict=True)],
            outputs.mean().T.to(scores.dtype),
            at_baseline.mean().T.to(scores.dtype),
            [moment.standard_error().to(dtype) for moment, dtype in zip(moments, dtypes, strict=True)],
        )
        return _checked(result, problem, lambda rows: baseline_samples(rows, torch.zeros_like(rows)))


def _contributions(
    problem: Problem,
    tensors: Sequence[Tensor],
    references: Sequence[Tensor],
    rows: Tensor,
    unknown: Unknown,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Contributions, each (T, B, ...), and the scores (B, T) at the inputs and at the baselines."""
    leaves = tuple(leaves_of(tensors))
    output, at_baseline = propagate(
        lambda *inputs: problem.scores(inputs, rows), leaves, tuple(references), unknown
    )
    multipliers = problem.differentiated(output, leaves)
    contributions = [
        multiplier * (leaf.detach() - reference)
        for multiplier, leaf, reference in zip(multipliers, leaves, references, strict=True)
    ]
    return contributions, output.detach(), at_baseline


def _checked(
    result: Attribution, problem: Problem, references: Callable[[Tensor], list[Tensor]]
) -> Attribution:
    """The attribution, after a warning if its contributions do not add up within 1e-4 and rounding.

    Large contributions that cancel leave rounding. That is an excuse only where their sum is larger
    than it. Rounding inside the network is told by computing the row with the widest gap again in float64.

    Args:
        result: The attribution.
        problem: The network and its inputs.
        references: From rows (B,) to a baseline of each, (B, ...).
    """
    assert result.gap is not None and result.baseline_output is not None
    output, gap = result.output.double().abs(), result.gap.abs()
    scale = (result.output.double() - result.baseline_output.double()).abs().clamp(min=1e-3)
    parts = [part.double().abs().reshape(*output.shape, -1) for part in parts_of(result.values)]
    mass = torch.stack([part.sum(-1) for part in parts]).sum(0)
    # of ResNets to transformers none is off by more than 1 instead of 8
    rounding = 8 * torch.finfo(result.output.dtype).eps
    wide, why = gap > 1e-4 * scale + rounding * (mass + output), None
    if wide.any():
        row = torch.where(wide, gap / scale, 0).reshape(-1, len(problem)).amax(0).argmax()[None]
        why = _reason(problem, references(row), row)
    elif not (gap <= 0.1 * scale + rounding * output).all():
        why = (
            f"contributions of {mass.max():.2g} in all cancel, more than {result.output.dtype} can tell: "
            "take another baseline, or a model and inputs in double()"
        )
    if why is not None:
        warn(f"contributions of {result.method} do not add up, the gap is {gap.max():.2g}: {why}")
    return result


def _reason(problem: Problem, references: list[Tensor], row: Tensor) -> str:
    """Why the contributions of a row do not add up."""

    def gap(doubled: Problem, references: list[Tensor]) -> Tensor:
        rows = torch.arange(len(doubled))
        found, output, at_baseline = _contributions(doubled, doubled.tensors, references, rows, "warn")
        wanted = output - at_baseline
        return (sums(found) - wanted).abs() / (1e-4 * wanted.abs().clamp(min=1e-3))

    other = "the network reads its input without a gradient, or draws random numbers"
    told = gap_is_rounding(problem, references, row, gap)
    if told is None:
        return f"{other}, or numbers are rounded, which a model and inputs in double() would tell"
    return ROUNDING if told else other
