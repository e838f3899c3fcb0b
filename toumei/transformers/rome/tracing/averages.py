"""The average of many traces: which states carry facts, by the role of their token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....core.checks import checked
from ....core.serialization import Saved
from ....core.summaries import counted
from ....core.tensor_specs import specs
from ....plots import style
from ....plots.statistics import heat_map
from ....plots.style import drawing
from ...model.tokens import ROLES, token_roles
from .result import COLORS, CausalTrace, restored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL = "average indirect effect"
_LINE_COLORS = (style.GRAY, style.PURPLE, style.ORANGE, style.RED, style.GREEN, style.BLACK, style.BLUE)


@dataclass(frozen=True, repr=False, eq=False)
class AverageEffects(Saved):
    """Average indirect effects over many facts (Meng et al., 2022, section 2.2 and figure 7).

    Attributes:
        effects: (facts, roles, layers): the mean indirect effect over the tokens of each role; NaN where a
            prompt has no token of a role. The roles are `toumei.transformers.model.tokens.ROLES`.
        low: (facts,) the score with noise and nothing restored.
        high: (facts,) the score without noise.
        kind: What was restored.
        window: The number of layers that were restored together.
        sever: What was severed, or None.
        skipped: The number of facts that were left out because the model does not know them.

    Example:
        >>> average = AverageEffects(torch.rand(5, 7, 3), torch.zeros(5), torch.ones(5), "hidden", 1)
        >>> average
        AverageEffects(5 facts, hidden, 3 layers: total effect 1.000 +- 0.000)
        >>> average.mean.shape
        torch.Size([7, 3])
    """

    effects: Tensor
    low: Tensor
    high: Tensor
    kind: str
    window: int
    sever: str | None = None
    skipped: int = 0

    _specs = specs(effects="facts roles layers", low="facts", high="facts")

    @property
    def counts(self) -> Tensor:
        """The number of facts that have a token of each role, (roles,)."""
        return (~self.effects[:, :, 0].isnan()).sum(0)

    @property
    def mean(self) -> Tensor:
        """The average indirect effects (roles, layers); NaN for a role that no prompt has."""
        return self.effects.nanmean(0)

    @property
    def half_width(self) -> Tensor:
        """Half the 95 % confidence interval of `mean`, 1.96 standard errors; NaN for fewer than two facts."""
        counts = self.counts[:, None]
        squares = (self.effects - self.mean).square().nansum(0)
        variance = squares / (counts - 1).clamp(min=1)
        width = 1.96 * (variance / counts.clamp(min=1)).sqrt()
        return torch.where(counts > 1, width, torch.nan)

    @property
    def total(self) -> tuple[float, float]:
        """The average total effect, `high` minus `low`, and half its 95 % confidence interval."""
        return mean_and_half_width(self.high - self.low)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a line over the layers for each role, and its confidence interval as a band."""
        layers = range(self.effects.shape[2])
        with drawing(ax, 6, 3.6) as ax:
            for name, mean, width, color in zip(ROLES, self.mean, self.half_width, _LINE_COLORS, strict=True):
                if mean.isnan().all():
                    continue
                ax.plot(layers, mean.numpy(), color=color, label=name)
                if not width.isnan().all():
                    low, high = (mean - width).numpy(), (mean + width).numpy()
                    ax.fill_between(layers, low, high, color=color, alpha=0.2, linewidth=0)
            if not self.half_width.isnan().all():
                ax.fill_between([], [], color=style.GRAY, alpha=0.2, linewidth=0, label="95 % interval")
            ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
            ax.set_xlabel("layer" if self.window == 1 else f"middle of the {self.window} restored layers")
            ax.set_ylabel(_LABEL)
            ax.set_title(self._title())
            ax.legend(title="token", framealpha=0.6)
        return ax

    @checked
    def plot_heatmap(self, ax: "Axes | None" = None, limits: tuple[float, float] | None = None) -> "Axes":
        """Returns axes with the averages as a heat map: a row for each role, a column for each layer.

        No effect is white, and effects below zero are gray.

        Args:
            ax: Where to draw; a new figure by default.
            limits: The smallest and the largest effect of the colours, to compare several averages; see
                `toumei.plots.color_limits`.
        """
        with drawing(ax, 6, 2.6) as ax:
            heat_map(self.mean, ROLES, ax, label=_LABEL, color=COLORS[self.kind], limits=limits)
            ax.set_xlabel("layer" if self.window == 1 else f"middle of the {self.window} restored layers")
            ax.set_title(self._title())
        return ax

    def _title(self) -> str:
        return f"{restored(self.kind, self.window, self.sever)}: {counted(len(self.effects), 'fact')}"

    def __repr__(self) -> str:
        kind = self.kind if self.window == 1 else f"{self.kind} in windows of {self.window}"
        kind += f" with {self.sever} severed" if self.sever else ""
        mean, width = self.total
        facts, _, layers = self.effects.shape
        return (
            f"AverageEffects({counted(facts, 'fact')}, {kind}, {counted(layers, 'layer')}: total effect "
            f"{mean:.3f} +- {width:.3f})"
        )


def by_role(trace: CausalTrace) -> Tensor:
    """Returns the mean indirect effects (roles, layers) of a trace; NaN for a role that no token has."""
    names = token_roles(len(trace.tokens), trace.subject_range)
    effects = trace.effects
    nothing = torch.full(effects.shape[1:], torch.nan)
    rows = [[index for index, name in enumerate(names) if name == role] for role in ROLES]
    return torch.stack([effects[row].mean(0) if row else nothing for row in rows])


def mean_and_half_width(values: Tensor | Sequence[float]) -> tuple[float, float]:
    """Returns the mean of values and half its 95 % confidence interval, 1.96 standard errors.

    Example:
        >>> mean_and_half_width([1.0, 1.0, 1.0])
        (1.0, 0.0)
    """
    values = torch.as_tensor(values, dtype=torch.float64)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(1.96 * values.std() / len(values) ** 0.5)
