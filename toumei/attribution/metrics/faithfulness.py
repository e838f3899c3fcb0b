"""Whether contributions predict the score when parts of the input are hidden."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core.checks import check_memory, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.finite import check_finite
from ...core.modules import evaluating, frozen
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.tensor_specs import specs
from ...plots.style import drawing
from ..base.baselines import BaselineLike
from ..base.models import ModelLike, as_network
from ..base.problem import Problem, make_problem
from ..base.reliability import check_inputs, check_scores, repeated_gap
from ..base.result import Attribution, values_of
from ..base.targets import Target
from ..perturbation.features import Segments, segments
from ..perturbation.masking import Masking

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Curve(Saved):
    """The score of a target while positions are shown or hidden, those that contribute most first.

    Attributes:
        shares: (S + 1,) share of the input's positions that have been changed, from 0 to 1.
        scores: (N, S + 1).
    """

    shares: Tensor
    scores: Tensor

    _specs = specs(shares="points", scores="N points")

    @property
    def auc(self) -> Tensor:
        """The area under each curve, (N,)."""
        return torch.trapezoid(self.scores, self.shares)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the mean curve over the inputs."""
        with drawing(ax) as ax:
            ax.plot(self.shares, self.scores.mean(0))
            ax.set_xlabel("share of the input changed")
            ax.set_ylabel("score of the target")
        return ax

    def __repr__(self) -> str:
        return f"Curve({len(self.scores)} inputs, {len(self.shares)} points, area {self.auc.mean():.3g})"


@checked
def insertion(
    model: ModelLike,
    inputs: Tensor,
    values: Tensor | Attribution,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    channel_axis: int | None = None,
    steps: int = 32,
    batch_size: int = 128,
) -> Curve:
    """Returns the score while positions are shown on a baseline, those that contribute most first.

    A high area is good (Petsiuk et al., 2018). Positions are the pixels of pictures, tokens or columns.

    Args:
        model: The network.
        inputs: (N, ...).
        values: Their contributions, in their shape or with fewer channels, or what a method returned.
        target: As for a method.
        baselines: What stands for absence, zeros by default.
        channel_axis: The axis of the channels; by default axis 1 of maps and videos, the last of tokens. For
            signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        steps: How many points the curve has after the first.
        batch_size: How many inputs pass through the network at a time.

    Raises:
        ShapeError: Values that do not fit the inputs.
        ArgumentError: No steps.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(4, 2)
        >>> insertion(model, torch.ones(3, 4), torch.randn(3, 4), target=1, steps=4).scores.shape
        torch.Size([3, 5])
    """
    if steps < 1:
        raise ArgumentError(f"a curve needs at least one step, got {steps}")
    model, values = as_network(model), values_of(values)
    positions = segments(None, [inputs], channel_axis)
    rank = feature_sums(positions, values, inputs).argsort(dim=1, descending=True, stable=True).argsort(1)
    counts = torch.linspace(0, positions.count, steps + 1).round()
    rows = torch.arange(len(inputs))
    with frozen(model), evaluating(model):
        masking = Masking(_problem(model, inputs, target, batch_size), baselines, batch_size=batch_size)
        points = [_scores(masking, positions, rank < count, rows) for count in counts]
        repeated_gap(masking.problem, points[-1][:, None])
    return Curve((counts / positions.count).double(), torch.stack(points, 1))


@checked
def deletion(
    model: ModelLike,
    inputs: Tensor,
    values: Tensor | Attribution,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    channel_axis: int | None = None,
    steps: int = 32,
    batch_size: int = 128,
) -> Curve:
    """Returns the score while positions are hidden, those that contribute most first.

    A low area is good. Arguments and errors are those of `insertion`.
    """
    # the position that is hidden last is shown first by `insertion` with negative contributions
    curve = insertion(
        model,
        inputs,
        -values_of(values),
        target,
        baselines,
        channel_axis=channel_axis,
        steps=steps,
        batch_size=batch_size,
    )
    return Curve(1 - curve.shares.flip(0), curve.scores.flip(1))


@dataclass(frozen=True, eq=False)
class Removals(Saved):
    """The contributions of sets of positions, and what the score loses without them.

    Attributes:
        contributed: (N, R) sums of contributions for R random sets.
        lost: (N, R) the score less the score without the set.
    """

    contributed: Tensor
    lost: Tensor

    _specs = specs(contributed="N sets", lost="N sets")

    @checked
    def infidelity(self, scaled: bool = False) -> Tensor:
        """Returns the mean squared error of contributions, (N,) (Yeh et al., 2019); 0 is perfect.

        Args:
            scaled: Multiply each input's contributions by the factor with the smallest error, and divide the
                error by the mean square of the losses: from 0 to 1, comparable for methods of any scale.
        """
        if not scaled:
            return (self.contributed - self.lost).square().mean(1)
        tiny = torch.finfo(self.lost.dtype).tiny
        power = self.contributed.square().sum(1).clamp(min=tiny)
        factor = (self.contributed * self.lost).sum(1) / power
        missed = (factor[:, None] * self.contributed - self.lost).square().sum(1)
        return missed / self.lost.square().sum(1).clamp(min=tiny)

    def correlation(self) -> Tensor:
        """Returns Pearson's correlation of both over the sets, (N,); 0 where one is constant."""
        contributed, lost = (sums - sums.mean(1, keepdim=True) for sums in (self.contributed, self.lost))
        power = (contributed.square().sum(1) * lost.square().sum(1)).sqrt()
        return (contributed * lost).sum(1) / power.clamp(min=torch.finfo(power.dtype).tiny)

    def __repr__(self) -> str:
        count, sets = self.lost.shape
        return f"Removals({count} inputs, {sets} sets, correlation {self.correlation().mean():.2f})"


@checked
def removals(
    model: ModelLike,
    inputs: Tensor,
    values: Tensor | Attribution,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    size: int | float = 0.25,
    samples: int = 50,
    features: Tensor | None = None,
    channel_axis: int | None = None,
    batch_size: int = 128,
    seed: int | None = 0,
) -> Removals:
    """Returns the contributions of random sets of positions and what the score loses without them.

    The correlation of both is faithfulness correlation (Bhatt et al., 2020), for several sizes sensitivity-n
    (Ancona et al., 2018); the infidelity is that of Yeh et al. (2019) for removals.

    Args:
        model: The network.
        inputs: (N, ...).
        values: Their contributions, in their shape or with fewer channels, or what a method returned.
        target: As for a method.
        baselines: What stands for absence, zeros by default.
        size: Positions in a set, or a float below 1: their share of all positions.
        samples: How many sets, R.
        features: Segments to hide instead of positions.
        channel_axis: As for `insertion`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of the sets.

    Raises:
        ShapeError: Values that do not fit the inputs.
        ArgumentError: Fewer than 2 sets, or sets that are empty or larger than the input.

    Example:
        >>> from torch import nn
        >>> model, inputs = nn.Linear(6, 1), torch.randn(3, 6)
        >>> faithful = removals(model, inputs, inputs * model.weight.detach())
        >>> faithful.infidelity().max() < 1e-9, faithful.correlation().min() > 0.999
        (tensor(True), tensor(True))
    """
    model, values = as_network(model), values_of(values)
    parts = segments(features, [inputs], channel_axis)
    if isinstance(size, float) and not 0 < size <= 1:
        raise ArgumentError(f"size is a whole number, or a share of all positions up to 1.0, got {size}")
    count = max(round(size * parts.count), 1) if isinstance(size, float) else size
    if samples < 2 or not 0 < count <= parts.count:
        raise ArgumentError(
            f"needs at least 2 sets of 1 to {parts.count} positions, got {samples} of {count} (size={size})"
        )
    check_memory(
        f"{samples:,} sets of {parts.count:,} positions for each of {len(inputs)} inputs",
        len(inputs) * samples * parts.count,
        "give fewer samples=..., or features=...",
        itemsize=16,
    )
    sums = feature_sums(parts, values, inputs)
    generator = make_generator(seed)
    order = torch.rand(len(inputs), samples, parts.count, generator=generator).argsort(-1)
    taken = order < count  # the first `count` of a random order
    with frozen(model), evaluating(model):
        problem = _problem(model, inputs, target, batch_size)
        masking = Masking(problem, baselines, batch_size=batch_size, seed=seed)
        rows = torch.arange(len(inputs)).repeat_interleave(samples)
        without = _scores(masking, parts, ~taken.flatten(0, 1), rows).reshape(len(inputs), samples)
        everything = torch.ones(len(inputs), parts.count, dtype=torch.bool)
        full = _scores(masking, parts, everything, torch.arange(len(inputs)))
        repeated_gap(problem, full[:, None])
    return Removals((sums[:, None] * taken).sum(-1), full[:, None] - without)


@checked
def infidelity(
    model: ModelLike,
    inputs: Tensor,
    values: Tensor | Attribution,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    size: int | float = 0.25,
    samples: int = 50,
    features: Tensor | None = None,
    channel_axis: int | None = None,
    batch_size: int = 128,
    seed: int | None = 0,
) -> Tensor:
    """Returns `Removals.infidelity`, (N,); arguments and errors are those of `removals`."""
    return removals(
        model,
        inputs,
        values,
        target,
        baselines,
        size=size,
        samples=samples,
        features=features,
        channel_axis=channel_axis,
        batch_size=batch_size,
        seed=seed,
    ).infidelity()


@checked
def faithfulness_correlation(
    model: ModelLike,
    inputs: Tensor,
    values: Tensor | Attribution,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    size: int | float = 0.25,
    samples: int = 50,
    features: Tensor | None = None,
    channel_axis: int | None = None,
    batch_size: int = 128,
    seed: int | None = 0,
) -> Tensor:
    """Returns `Removals.correlation`, (N,); arguments and errors are those of `removals`."""
    return removals(
        model,
        inputs,
        values,
        target,
        baselines,
        size=size,
        samples=samples,
        features=features,
        channel_axis=channel_axis,
        batch_size=batch_size,
        seed=seed,
    ).correlation()


def feature_sums(features: Segments, values: Tensor, inputs: Tensor) -> Tensor:
    """Returns the contribution of each feature, (N, M) float64; values may have fewer channels than inputs.

    Raises:
        ShapeError: Values that do not fit the inputs.
        NonFiniteError: Values that are NaN or infinite.
    """
    shape = (len(inputs), *values.shape[1:2], *inputs.shape[2:])
    if values.shape != shape or (inputs.dim() > 1 and values.shape[1] not in (1, inputs.shape[1])):
        raise ShapeError(f"contributions {tuple(values.shape)} do not fit inputs {tuple(inputs.shape)}")
    index = features.index[0] if features.per_input else features.index[0][None]
    if index.shape[1:2] > values.shape[1:2]:
        raise ShapeError(
            f"contributions {tuple(values.shape)} have fewer channels than features that differ by channel"
        )
    check_finite(values, "the contributions")
    which = index.cpu().expand(values.shape).reshape(len(values), -1)
    flat = values.detach().cpu().double().reshape(len(values), -1)
    sums = flat.new_zeros(len(values), features.count + 1).scatter_add_(1, which, flat)
    return sums[:, : features.count]


def _problem(model: nn.Module, inputs: Tensor, target: Target | None, batch_size: int) -> Problem:
    problem = make_problem(model, inputs, target)
    check_inputs(problem, batch_size)
    return problem


def _scores(masking: Masking, features: Segments, keep: Tensor, rows: Tensor) -> Tensor:
    """The scores (B,) in float64 of inputs that keep some features (B, M)."""
    device = masking.problem.tensors[0].device
    features, kept, inputs = features.to(device), keep.to(device), rows.to(device)
    scores = torch.zeros(len(rows), dtype=torch.float64)

    def masks(batch: Tensor) -> tuple[Tensor, ...]:
        return features.masks(kept[batch], inputs[batch])

    for batch, found in masking.stream(masks, rows, torch.zeros_like(rows)):
        scores[batch.cpu()] = found[:, 0].cpu().double()
    check_scores(scores, "the scores of inputs with parts hidden", rows)
    return scores
