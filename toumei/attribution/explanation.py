"""What `explain` returns: an attribution, another by a second method, and how well both agree."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..core.checks import checked
from ..core.notebooks import escaped
from ..core.serialization import Saved
from ..core.summaries import counted, listed
from ..core.tensor_specs import specs
from .base.inputs import parts_of
from .base.result import Attribution
from .overlays import overlay
from .plots import plot_attribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Saved):
    """An attribution by the method that suits, and by another one that checks it.

    Attributes:
        attribution: By the method that was chosen.
        check: By another method, of the same inputs, target and baseline.
        agreement: (N,) rank correlation of both (Spearman's) for each input, from -1 to 1.
        reason: Why the method was chosen.
        baseline: What stands for absence.
        images: (N, 1 or 3, H, W) the inputs, if they are pictures.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from toumei.attribution import explain
        >>> data = load_iris(as_frame=True)
        >>> model = LogisticRegression(max_iter=500).fit(data.data, data.target)
        >>> found = explain(model, data.data[:20], 0, verbose=False)
        >>> found.attribution.method, found.check.method, found.baseline
        ('ExactShapley', 'Occlusion', 'the mean of the given rows')
    """

    attribution: Attribution
    check: Attribution
    agreement: Tensor
    reason: str
    baseline: str
    images: Tensor | None = None

    _specs = specs(agreement="N", images="N C H W")

    @property
    def gap(self) -> Tensor | None:
        """The completeness gap (N,) of the attribution; see `Attribution.gap`."""
        return self.attribution.gap

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the attribution.

        Pictures and texts are shown with the contributions by both methods, one row of a table as a
        waterfall, and several rows as a beeswarm.

        Args:
            ax: Where to draw; a new figure by default.
        """
        if self.images is not None:
            return overlay([self.attribution, self.check], self.images, ax=ax)
        if self.attribution.feature_names is None and self.attribution.data is None:
            return self._plot_texts(ax)
        return (
            self.attribution.waterfall(ax=ax)
            if len(self.attribution) == 1
            else self.attribution.beeswarm(ax=ax)
        )

    def _plot_texts(self, ax: "Axes | None") -> "Axes":
        """The tokens in the colours of both methods, each on its own scale."""
        both = self.attribution, self.check
        values = torch.stack([parts_of(one.values)[0] for one in both])
        title = f"contributions to {self._target()!r}" if self._target() else "contributions"
        return plot_attribution(values, title, [one.method for one in both], self.attribution.tokens, ax=ax)

    def _target(self) -> str:
        """What is explained, in words."""
        return listed(list(dict.fromkeys(self.attribution.classes or self.attribution.names or ())))

    def __str__(self) -> str:
        gap = "" if self.gap is None else f"\ngap: at most {float(self.gap.abs().max()):.2g}"
        return (
            f"{self.attribution.method}: {self.reason}\n"
            f"explains: {self._target() or 'the score'}\nbaseline: {self.baseline}{gap}\n"
            f"rank correlation with {self.check.method}: {float(self.agreement.nanmean()):.2f}"
        )

    def __repr__(self) -> str:
        gap = "" if self.gap is None else f", gap at most {float(self.gap.abs().max()):.2g}"
        return (
            f"Explanation({self.attribution.method}, {counted(len(self.attribution), 'input')}{gap}, agrees "
            f"with {self.check.method} by {float(self.agreement.nanmean()):.2f})"
        )

    def _repr_html_(self) -> str:
        text = f'<pre style="white-space:pre-wrap">{escaped(str(self))}</pre>'
        return f"<div>{text}{self.attribution._repr_html_()}{self.check._repr_html_()}</div>"


def rank_agreement(first: Attribution, second: Attribution) -> Tensor:
    """Returns Spearman's rank correlation (N,) of two attributions of the same inputs to one target.

    Contributions of pictures are summed over channels and averaged over cells of about a 14th of the side,
    because methods differ in how fine they are. It is NaN where one has only equal contributions.
    """
    from scipy.stats import spearmanr

    # differences by rounding have no rank
    pairs = zip(_coarse(first), _coarse(second), strict=True)
    found = [
        float("nan")
        if one.unique().numel() < 2 or two.unique().numel() < 2
        else spearmanr(one, two).statistic
        for one, two in pairs
    ]
    return torch.tensor(found, dtype=torch.float64)


def _coarse(result: Attribution) -> Tensor:
    """Contributions (N, numbers), of pictures in cells."""
    (values, *_) = parts_of(result.values)
    if values.dim() == 4:
        height, width = (min(14, side) for side in values.shape[-2:])
        values = adaptive_avg_pool2d(values.double().sum(1, keepdim=True), (height, width))
    flat = values.double().flatten(1)
    return (flat / flat.abs().amax(1, keepdim=True).clamp(min=1e-300)).round(decimals=6)
