"""The score of a target while parts of the input are shown or hidden, one after the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating, frozen
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.style import drawing
from ..base.baselines import BaselineLike
from ..base.models import ModelLike, as_network
from ..base.reliability import repeated_gap
from ..base.result import Attribution, values_of
from ..base.targets import Target
from ..perturbation.features import segments
from ..perturbation.masking import Masking
from .hidden_features import checked_problem, feature_sums, scores_of_kept

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_TITLES = {
    "insertion": "insertion: what contributes most is shown first",
    "deletion": "deletion: what contributes most is hidden first",
}


@dataclass(frozen=True, eq=False)
class Curve(Saved):
    """The score of a target while positions are shown or hidden, those that contribute most first.

    Attributes:
        shares: (S + 1,) share of the input's positions that have been changed, from 0 to 1.
        scores: (N, S + 1).
        kind: What was done, for the title; None if that is not known.

    Example:
        >>> curve = Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.0, 1.0, 1.0]]))
        >>> curve.auc
        tensor([0.7500])
    """

    shares: Tensor
    scores: Tensor
    kind: Literal["insertion", "deletion"] | None = None

    _specs = specs(shares="points", scores="N points")

    @property
    def auc(self) -> Tensor:
        """The area under each curve, (N,)."""
        return torch.trapezoid(self.scores, self.shares)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the mean curve over the inputs."""
        with drawing(ax) as ax:
            ax.plot(self.shares, self.scores.mean(0))
            done = {"insertion": "shown", "deletion": "hidden"}.get(self.kind or "", "changed")
            ax.set_xlabel(f"share of the input that is {done}")
            ax.set_ylabel("score of the target")
            title = "score while the input is changed" if self.kind is None else _TITLES[self.kind]
            ax.set_title(title)
        return ax

    def __repr__(self) -> str:
        kind = f"{self.kind}, " if self.kind else ""
        return (
            f"Curve({kind}{counted(len(self.scores), 'input')}, {counted(len(self.shares), 'point')}, area "
            f"{self.auc.mean():.3g})"
        )


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
        masking = Masking(
            checked_problem(model, inputs, target, batch_size), baselines, batch_size=batch_size
        )
        points = [scores_of_kept(masking, positions, rank < count, rows) for count in counts]
        repeated_gap(masking.problem, points[-1][:, None])
    return Curve((counts / positions.count).double(), torch.stack(points, 1), "insertion")


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

    Example:
        >>> from torch import nn
        >>> model, values = nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 1.0]])
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(values)
        >>> deletion(model, torch.ones(1, 2), values, 0, steps=2).scores
        tensor([[4., 1., 0.]], dtype=torch.float64)
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
    return Curve(1 - curve.shares.flip(0), curve.scores.flip(1), "deletion")
