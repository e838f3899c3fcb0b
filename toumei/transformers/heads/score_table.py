"""The scores of all attention heads of a model, as a table that can be drawn and kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArgumentError
from ...core.ordering import largest
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Score = Literal[
    "previous",
    "duplicate",
    "induction",
    "first",
    "same",
    "entropy",
    "distance",
    "previous_share",
    "duplicate_share",
    "induction_share",
]
"""The names of the scores."""

SCORES: tuple[Score, ...] = get_args(Score)
_UNITS = {"entropy": "entropy (nats)", "distance": "distance (tokens)"}
_TITLES: dict[Score, str] = {
    "previous": "Attention to the previous token",
    "duplicate": "Attention to the same token before",
    "induction": "Attention to what came next before",
    "first": "Attention to the first token",
    "same": "Attention of a token to itself",
    "entropy": "How widely heads attend",
    "distance": "How far back heads attend",
    "previous_share": "Share of attention to the previous token",
    "duplicate_share": "Share of attention to the same token before",
    "induction_share": "Share of attention to what came next before",
}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HeadScores(Saved):
    """Scores of all attention heads, each (layers, heads), float64 on the CPU.

    A layer with fewer heads than others has NaN in their place.

    Means are over the query rows of all texts. The first three are the usual scores on repeated tokens
    (Elhage et al. 2021; Olsson et al. 2022, arXiv:2209.11895): a head that attends to that place only has 1.
    The last three have the normalization of TransformerLens' ``head_detector``, the share of *all* attention:
    a perfect head stays below 1, because some rows have no such place.

    Attributes:
        previous: Attention to the previous token, over the rows that have one.
        duplicate: In the second half of tokens that repeat, attention to the same token in the first half;
            None if the tokens do not repeat.
        induction: The same for attention to the token after that, which comes next.
        first: Attention to the first token, such as the beginning of the text.
        same: Attention of a token to itself.
        entropy: Entropy of a row in nats; log n for n keys with the same weight.
        distance: How many tokens the keys are away from the query.
        previous_share: Share of all attention that goes to the previous token.
        duplicate_share: Share that goes to all earlier occurrences of the token; None without tokens.
        induction_share: Share that goes to the tokens after these.
        layer_names: Of each layer; numbers if none were given.
        texts: How many texts.
        rows: How many query rows they have, without padding.

    Example:
        >>> import torch
        >>> from toumei.transformers.heads import head_scores, repeated_tokens
        >>> weights = torch.eye(7).roll(-1, 1).expand(1, 1, 1, 7, 7)
        >>> scores = head_scores(weights, repeated_tokens(1, 3, 5, 100, bos=0))
        >>> scores.top("previous", 1)
        (('0.0', 1.0),)
    """

    previous: Tensor
    duplicate: Tensor | None
    induction: Tensor | None
    first: Tensor
    same: Tensor
    entropy: Tensor
    distance: Tensor
    previous_share: Tensor
    duplicate_share: Tensor | None
    induction_share: Tensor | None
    layer_names: tuple[str, ...]
    texts: int
    rows: int

    _specs = specs(**dict.fromkeys(SCORES, "layers heads"), layer_names="layers")

    @checked
    def __getitem__(self, score: Score) -> Tensor:
        """Returns the scores (layers, heads) of this name.

        Raises:
            ArgumentError: There is no such score, or the tokens do not allow it.
        """
        check_choice("score", score, SCORES)
        values: Tensor | None = getattr(self, score)
        if values is None:
            needed = "repeat" if score in ("duplicate", "induction") else "are given"
            raise ArgumentError(
                f"{score!r} is known only for tokens that {needed}: `repeated_tokens` makes such"
            )
        return values

    @checked
    def top(self, score: Score, k: int = 5) -> tuple[tuple[str, float], ...]:
        """Returns the heads with the highest score, as layer and head from 0 on, and their scores.

        Args:
            score: Which score.
            k: How many heads.

        Raises:
            ArgumentError: There is no such score, or the tokens do not allow it.
        """
        check_counts(1, k=k)
        return tuple((f"{layer}.{head}", value) for (layer, head), value in largest(self[score], k))

    @checked
    def plot(self, score: Score = "induction", ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a heat map of one score: a row for each layer, the first on top.

        Args:
            score: Which score. The colours of shares go from 0 to 1.
            ax: Where to draw; a new figure by default.
        """
        values = self[score]
        width = min(max(3.5, 0.3 * values.shape[1]), 12.0) + 1.5
        with drawing(ax, width, min(max(2.5, 0.25 * len(values)), 10.0)) as axes:
            limits = None if score in _UNITS else (0.0, 1.0)
            label = _UNITS.get(score, "attention")
            heat_map(values, self.layer_names, axes, label=label, limits=limits)
            axes.set(xlabel="head", ylabel="layer", title=_TITLES[score])
        return axes

    def __len__(self) -> int:
        return int(self.entropy.isfinite().sum())

    def __repr__(self) -> str:
        scores: tuple[Score, ...] = ("previous", "duplicate", "induction")
        best = [
            f"{score} {name} ({value:.2f})"
            for score in scores
            if getattr(self, score) is not None
            for name, value in self.top(score, 1)
        ]
        return (
            f"HeadScores({counted(len(self), 'head')} of {counted(len(self.layer_names), 'layer')}: highest "
            f"{', '.join(best)})"
        )

    def __str__(self) -> str:
        lines = [
            f"{counted(len(self), 'head')} of {counted(len(self.layer_names), 'layer')} over "
            f"{counted(self.texts, 'text')}, {counted(self.rows, 'row')}"
        ]
        for score in (name for name in SCORES if getattr(self, name) is not None):
            highest = ", ".join(f"{name} {value:.2f}" for name, value in self.top(score))
            lines.append(f"{score.replace('_', ' '):<16}{highest}")
        return "\n".join(lines)
