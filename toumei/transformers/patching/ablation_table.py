"""What ablating each attention head costs, as a table that can be drawn and kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.ordering import largest
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import specs
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HeadAblation(Saved):
    """What ablating each head costs, float64 on the CPU. Layers may have fewer heads than others: NaN.

    Attributes:
        kind: What the heads became: zero, mean or resample.
        measure: What is measured: ``"loss"``, the mean next-token loss of a text in nats, or a metric.
        by_text: (texts, layers, heads) how much the loss of each text rises, or the metric falls.
        before: (texts,) the measure in the model as it is.
        confidence: Of the intervals over texts.
        layer_names: The number of each layer.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, head_ablation
        >>> network = InductionTransformer()
        >>> found = head_ablation(HookedModel(network), network.sequences(4, 8))
        >>> found.values.shape, found.top(1)[0][0]
        (torch.Size([2, 2]), '0.0')
    """

    kind: str
    measure: str
    by_text: Tensor
    before: Tensor
    confidence: float
    layer_names: tuple[str, ...]

    _specs = specs(by_text="texts layers heads", before="texts", layer_names="layers")

    @property
    def values(self) -> Tensor:
        """Mean costs (layers, heads) over the texts, which count the same."""
        return self.by_text.mean(0)

    @property
    def intervals(self) -> Tensor:
        """Confidence intervals (layers, heads, 2) by Student's t over texts; NaN for a single text."""
        from scipy.stats import t

        texts = len(self.before)
        if texts == 1:
            return torch.full((*self.values.shape, 2), torch.nan, dtype=torch.float64)
        quantile = float(t.ppf((1 + self.confidence) / 2, texts - 1))
        half = quantile * self.by_text.std(0) / texts**0.5
        return torch.stack([self.values - half, self.values + half], -1)

    @checked
    def top(self, k: int = 5) -> tuple[tuple[str, float], ...]:
        """Returns the heads whose ablation costs most, as layer and head from 0 on, and the costs.

        Args:
            k: How many heads.
        """
        check_counts(1, k=k)
        return tuple(
            (f"{self.layer_names[layer]}.{head}", cost) for (layer, head), cost in largest(self.values, k)
        )

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a heat map of the mean costs: a row for each layer, the first on top.

        Args:
            ax: Where to draw; a new figure by default.
        """
        width = min(max(3.5, 0.3 * self.by_text.shape[2]), 12.0) + 1.5
        with drawing(ax, width, min(max(2.5, 0.25 * len(self.layer_names)), 10.0)) as axes:
            heat_map(self.values, self.layer_names, axes, label=self._label)
            axes.set(xlabel="head", ylabel="layer", title=f"{self.kind} ablation")
        return axes

    @property
    def _label(self) -> str:
        return "rise of the loss (nats)" if self.measure == "loss" else f"fall of the {self.measure}"

    def __len__(self) -> int:
        return int(self.values.isfinite().sum())

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {value:+.3f}" for name, value in self.top(3))
        return (
            f"HeadAblation({self.kind}, {counted(len(self), 'head')}, {counted(len(self.before), 'text')}: "
            f"highest {best})"
        )

    def __str__(self) -> str:
        measure, label = shortened(self.measure), shortened(self._label)
        mean = f"{measure} {float(self.before.mean()):.3f} as it is; {label}:"
        lines = [
            f"{self.kind} ablation of {counted(len(self), 'head')} over {counted(len(self.before), 'text')}",
            mean,
        ]
        intervals = self.intervals
        for name, value in self.top(8):
            layer, head = name.split(".")
            low, high = intervals[self.layer_names.index(layer), int(head)].tolist()
            lines.append(f"{name:<8}{value:+.4f}  {self.confidence:.0%} from {low:+.4f} to {high:+.4f}")
        return "\n".join(lines)
