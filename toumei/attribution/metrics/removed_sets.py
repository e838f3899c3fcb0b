"""Whether contributions predict what the score loses when random sets of positions are hidden."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.checks import check_memory, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating, frozen
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ..base.baselines import BaselineLike
from ..base.models import ModelLike, as_network
from ..base.reliability import repeated_gap
from ..base.result import Attribution, values_of
from ..base.targets import Target
from ..perturbation.features import segments
from ..perturbation.masking import Masking
from .hidden_features import checked_problem, feature_sums, scores_of_kept


@dataclass(frozen=True, eq=False)
class Removals(Saved):
    """The contributions of sets of positions, and what the score loses without them.

    Attributes:
        contributed: (N, R) sums of contributions for R random sets.
        lost: (N, R) the score less the score without the set.

    Example:
        >>> removals = Removals(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]]))
        >>> removals.correlation()
        tensor([1.])
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
        return (
            f"Removals({counted(count, 'input')}, {counted(sets, 'set')}, correlation "
            f"{self.correlation().mean():.2f})"
        )


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
            f"needs at least 2 sets of 1 to {counted(parts.count, 'position')}, got {samples} of {count} "
            f"(size={size})"
        )
    check_memory(
        f"{counted(samples, 'set', form=',')} of {counted(parts.count, 'position', form=',')} for each of "
        f"{counted(len(inputs), 'input')}",
        len(inputs) * samples * parts.count,
        "give fewer samples=..., or features=...",
        itemsize=16,
    )
    sums = feature_sums(parts, values, inputs)
    generator = make_generator(seed)
    order = torch.rand(len(inputs), samples, parts.count, generator=generator).argsort(-1)
    taken = order < count  # the first `count` of a random order
    with frozen(model), evaluating(model):
        problem = checked_problem(model, inputs, target, batch_size)
        masking = Masking(problem, baselines, batch_size=batch_size, seed=seed)
        rows = torch.arange(len(inputs)).repeat_interleave(samples)
        without = scores_of_kept(masking, parts, ~taken.flatten(0, 1), rows).reshape(len(inputs), samples)
        everything = torch.ones(len(inputs), parts.count, dtype=torch.bool)
        full = scores_of_kept(masking, parts, everything, torch.arange(len(inputs)))
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
    """Returns `Removals.infidelity`, (N,); arguments and errors are those of `removals`.

    Example:
        >>> from torch import nn
        >>> model, inputs = nn.Linear(8, 1), torch.rand(3, 8)
        >>> infidelity(model, inputs, inputs * model.weight.detach(), 0).max() < 1e-9
        tensor(True)
    """
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
    """Returns `Removals.correlation`, (N,); arguments and errors are those of `removals`.

    Example:
        >>> from torch import nn
        >>> model, inputs = nn.Linear(8, 1), torch.rand(3, 8)
        >>> faithfulness_correlation(model, inputs, inputs * model.weight.detach(), 0).min() > 0.999
        tensor(True)
    """
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
