"""The composition of all pairs of heads, as a table that can be drawn and kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from ...core.checks import check_choice, check_counts, checked
from ...core.ordering import largest
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import specs
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["q", "k", "v"]
"""By what a head reads: its queries, keys or values."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False, repr=False)
class CompositionScores(Saved):
    """Composition scores, each (layers, heads, layers, heads): of a head with one that reads from it.

    Attributes:
        q: Q-composition; NaN where the second head is in no later layer, or a head's weights are 0.
        k: K-composition.
        v: V-composition.
        layer_names: The numbers of the layers.
        baseline: The average score of heads with random weights, 1 / sqrt(width).
        subtracted: Whether it is subtracted from the scores.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, composition_scores
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> scores = composition_scores(model, verbose=False)
        >>> scores["k"].shape, scores.top("k", 1)[0][:2]
        (torch.Size([2, 2, 2, 2]), ('0.0', '1.0'))
    """

    q: Tensor
    k: Tensor
    v: Tensor
    layer_names: tuple[str, ...]
    baseline: float
    subtracted: bool

    _specs = specs(**dict.fromkeys(KINDS, "layers heads layers heads"), layer_names="layers")

    @checked
    def __getitem__(self, kind: Kind) -> Tensor:
        """Returns the scores (layers, heads, layers, heads) of a kind."""
        check_choice("kind", kind, KINDS)
        found: Tensor = getattr(self, kind)
        return found

    @checked
    def top(self, kind: Kind, k: int = 5) -> tuple[tuple[str, str, float], ...]:
        """Returns the pairs with the highest scores: the head that writes, the head that reads, the score.

        Args:
            kind: By what the second head reads.
            k: How many pairs.
        """
        check_counts(1, k=k)
        names = self.head_names
        return tuple(
            (names[writer], names[reader], score)
            for (writer, reader), score in largest(self._matrix(kind), k)
        )

    @property
    def head_names(self) -> list[str]:
        """Layer and number of each head, such as ``"3.11"``."""
        return [f"{layer}.{head}" for layer in self.layer_names for head in range(self.q.shape[1])]

    @checked
    def plot(self, kind: Kind = "k", ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a heat map over pairs: heads that write as rows, heads that read as columns.

        White is the average of random heads; the last layer, which nothing reads, and the first one, which
        reads no head, are left out.

        Args:
            kind: By what the second head reads.
            ax: Where to draw; a new figure by default.
        """
        heads = self.q.shape[1]
        matrix = self._matrix(kind)[:-heads, heads:]
        rows, columns = self.head_names[:-heads], self.head_names[heads:]
        size = min(max(4.0, 0.3 * len(rows)), 12.0)
        with drawing(ax, size + 1.5, size) as axes:
            middle = 0.0 if self.subtracted else self.baseline
            above = " above random heads" if self.subtracted else ""
            heat_map(matrix, rows, axes, label=f"{kind.upper()}-composition{above}", middle=middle)
            ticks = [int(place) for place in axes.get_xticks()]  # at the middle of each cell
            axes.set_xticklabels([columns[place] for place in ticks])
            axes.set(xlabel="head that reads", ylabel="head that writes")
            axes.set_title(f"{kind.upper()}-composition of pairs of heads")
        return axes

    def _matrix(self, kind: Kind) -> Tensor:
        count = len(self.head_names)
        return self[kind].reshape(count, count)

    def _highest(self, kind: Kind, k: int) -> list[str]:
        return [
            f"{shortened(one, 12)} -> {shortened(other, 12)} ({score:.2f})"
            for one, other, score in self.top(kind, k)
        ]

    def __len__(self) -> int:
        return int(self.q.isfinite().sum())

    def __repr__(self) -> str:
        best = ", ".join(f"{kind.upper()} {pair}" for kind in KINDS for pair in self._highest(kind, 1))
        return f"CompositionScores({counted(len(self), 'pair')} of heads: highest {best})"

    def __str__(self) -> str:
        subtracted = " is subtracted" if self.subtracted else ""
        lines = [
            f"{counted(len(self), 'pair')} of heads, random heads have {self.baseline:.3f} on "
            f"average{subtracted}"
        ]
        for kind in KINDS:
            lines.append(f"{kind.upper()}-composition  {', '.join(self._highest(kind, 5))}")
        return "\n".join(lines)
