"""Do contributions say what the network does when parts of the input are taken away?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError, ShapeError
from ...core.modules import evaluating, frozen
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.tensor_specs import specs
from ..base.baselines import BaselineLike
from ..base.problem import make_problem
from ..base.targets import Target
from ..perturbation.features import Segments, segments
from ..perturbation.masking import Masking

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Curve(Saved):
    """The score of a target while the input comes or goes, what contributes most first.

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
        from matplotlib import pyplot

        ax = ax or pyplot.subplots(layout="constrained")[1]
        ax.plot(self.shares, self.scores.mean(0))
        ax.set_xlabel("share of the input changed")
        ax.set_ylabel("score")
        return ax

    def __repr__(self) -> str:
        return f"Curve({len(self.scores)} inputs, {len(self.shares)} points, area {self.auc.mean():.3g})"


def insertion(
    model: nn.Module,
    inputs: Tensor,
    values: Tensor,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    channel_axis: int | None = None,
    steps: int = 32,
    batch_size: int = 128,
) -> Curve:
    """Returns the score while positions are put into a baseline, those that contribute most first.

    A high area is good (Petsiuk et al., 2018). Positions are the pixels of pictures, tokens or columns.

    Args:
        model: The network.
        inputs: (N, ...).
        values: Their contributions, in their shape or with fewer channels.
        target: As for a method.
        baselines: What stands for absence, zeros by default.
        channel_axis: The axis of the channels; by default axis 1 of maps and films, the last of tokens. For
            signals (N, C, L), the inputs of an nn.Conv1d, it is 1.
        steps: How many points the curve has behind the first.
        batch_size: How many inputs pass through the network at a time.

    Raises:
        ShapeError: Values that do not fit the inputs.
        ArgumentError: No steps.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> insertion(model, torch.ones(3, 4), torch.randn(3, 4), target=1, steps=4).scores.shape
        torch.Size([3, 5])
    """
    if steps < 1:
        raise ArgumentError(f"a curve needs at least one step, got {steps}")
    own = segments(None, [inputs], channel_axis)
    rank = feature_sums(own, values, inputs).argsort(dim=1, descending=True, stable=True).argsort(1)
    counts = torch.linspace(0, own.count, steps + 1).round()
    rows = torch.arange(len(inputs))
    with frozen(model), evaluating(model):
        masking = Masking(make_problem(model, inputs, target), baselines, batch_size=batch_size)
        points = [_scores(masking, own, rank < count, rows) for count in counts]
    return Curve((counts / own.count).double(), torch.stack(points, 1))


def deletion(
    model: nn.Module,
    inputs: Tensor,
    values: Tensor,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    channel_axis: int | None = None,
    steps: int = 32,
    batch_size: int = 128,
) -> Curve:
    """Returns the score while positions are taken away, those that contribute most first.

    A low area is good. Arguments and errors are those of `insertion`.
    """
    # what goes last is what `insertion` of the negative contributions puts in first
    options: dict[str, Any] = {"channel_axis": channel_axis, "steps": steps, "batch_size": batch_size}
    curve = insertion(model, inputs, -values, target, baselines, **options)
    return Curve(1 - curve.shares.flip(0), curve.scores.flip(1))


@dataclass(frozen=True, eq=False)
class Removals(Saved):
    """What sets of positions contribute by an attribution, and what the score loses without them.

    Attributes:
        contributed: (N, R) sums of contributions for R random sets.
        lost: (N, R) the score less the score without the set.
    """

    contributed: Tensor
    lost: Tensor

    _specs = specs(contributed="N sets", lost="N sets")

    def infidelity(self, scaled: bool = False) -> Tensor:
        """Returns the mean square of what contributions miss, (N,) (Yeh et al., 2019); 0 is perfect.

        Args:
            scaled: Let each input's contributions be multiplied by the number that suits them best, and
                divide by the mean square of the losses, so that methods of any scale compare: from 0 to 1.
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
        contributed, lost = (own - own.mean(1, keepdim=True) for own in (self.contributed, self.lost))
        power = (contributed.square().sum(1) * lost.square().sum(1)).sqrt()
        return (contributed * lost).sum(1) / power.clamp(min=torch.finfo(power.dtype).tiny)

    def __repr__(self) -> str:
        count, sets = self.lost.shape
        return f"Removals({count} inputs, {sets} sets, correlation {self.correlation().mean():.2f})"


def removals(
    model: nn.Module,
    inputs: Tensor,
    values: Tensor,
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
    """Returns what random sets of positions contribute and what the score loses without them.

    Its correlation is faithfulness correlation (Bhatt et al., 2020), for several sizes sensitivity-n (Ancona
    et al., 2018); its infidelity that of Yeh et al. (2019) for removals.

    Args:
        model: The network.
        inputs: (N, ...).
        values: Their contributions, in their shape or with fewer channels.
        target: As for a method.
        baselines: What stands for absence, zeros by default.
        size: Positions in a set, or as a float below 1 the share of all.
        samples: How many sets, R.
        features: Segments to take away in place of positions.
        channel_axis: As for `insertion`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of the sets.

    Raises:
        ShapeError: Values that do not fit the inputs.
        ArgumentError: Less than 2 sets, or sets that are empty or larger than the input.

    Example:
        >>> model, inputs = nn.Linear(6, 1), torch.randn(3, 6)
        >>> faithful = removals(model, inputs, inputs * model.weight.detach())
        >>> faithful.infidelity().max() < 1e-9, faithful.correlation().min() > 0.999
        (tensor(True), tensor(True))
    """
    own = segments(features, [inputs], channel_axis)
    count = round(size * own.count) if isinstance(size, float) else size
    if samples < 2 or not 0 < count <= own.count:
        raise ArgumentError(
            f"needs at least 2 sets of 1 to {own.count} positions, got {samples} of {count} (size={size})"
        )
    sums = feature_sums(own, values, inputs)
    generator = make_generator(seed)
    order = torch.rand(len(inputs), samples, own.count, generator=generator).argsort(-1)
    taken = order < count  # the ranks of a random order: as many as `count` in each set
    with frozen(model), evaluating(model):
        masking = Masking(make_problem(model, inputs, target), baselines, batch_size=batch_size, seed=seed)
        rows = torch.arange(len(inputs)).repeat_interleave(samples)
        without = _scores(masking, own, ~taken.flatten(0, 1), rows).reshape(len(inputs), samples)
        full = _scores(masking, own, torch.ones(len(inputs), own.count).bool(), torch.arange(len(inputs)))
    return Removals((sums[:, None] * taken).sum(-1), full[:, None] - without)


def infidelity(*args: object, **options: object) -> Tensor:
    """Returns `Removals.infidelity`, (N,); arguments are those of `removals`."""
    return removals(*args, **options).infidelity()  # type: ignore[arg-type]


def faithfulness_correlation(*args: object, **options: object) -> Tensor:
    """Returns `Removals.correlation`, (N,); arguments are those of `removals`."""
    return removals(*args, **options).correlation()  # type: ignore[arg-type]


def feature_sums(features: Segments, values: Tensor, inputs: Tensor) -> Tensor:
    """Returns the contribution of each feature, (N, M) float64; values may have fewer channels than inputs.

    Raises:
        ShapeError: Values that do not fit the inputs.
    """
    shape = (len(inputs), *values.shape[1:2], *inputs.shape[2:])
    if values.shape != shape or (inputs.dim() > 1 and values.shape[1] not in (1, inputs.shape[1])):
        raise ShapeError(f"contributions {tuple(values.shape)} do not fit inputs {tuple(inputs.shape)}")
    index = features.index[0] if features.own else features.index[0][None]
    if index.shape[1] > values.shape[1]:
        raise ShapeError(f"contributions {tuple(values.shape)} do not tell the channels of features apart")
    places = index.cpu().expand(values.shape).flatten(1)
    own = values.detach().cpu().double().flatten(1)
    sums = own.new_zeros(len(values), features.count + 1).scatter_add_(1, places, own)
    return sums[:, : features.count]


def _scores(masking: Masking, features: Segments, keep: Tensor, rows: Tensor) -> Tensor:
    """The scores (B,) in float64 of inputs that keep some features (B, M)."""
    device = masking.problem.tensors[0].device
    features, kept, own = features.to(device), keep.to(device), rows.to(device)
    scores = torch.zeros(len(rows), dtype=torch.float64)
    places = torch.zeros_like(rows)
    for positions, part in masking.stream(lambda at: features.masks(kept[at], own[at]), rows, places):
        scores[positions.cpu()] = part[:, 0].cpu().double()
    return scores
