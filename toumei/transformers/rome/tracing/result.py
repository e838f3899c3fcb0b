"""The result of a causal trace."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ....core.checks import checked
from ....core.errors import ArgumentError
from ....core.serialization import Saved
from ....core.summaries import counted, shortened
from ....core.tensor_specs import specs
from ....plots import style
from ....plots.statistics import heat_map
from ....plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"hidden": style.PURPLE, "mlp": style.GREEN, "attn": style.RED}
_WHAT = {"hidden": "state", "mlp": "MLP", "attn": "attention"}
_OLD_NAMES = {
    "low_score": "low",
    "high_score": "high",
    "worst_score": "low",
    "best_score": "high",
    "input_ids": "ids",
    "input_tokens": "tokens",
}


@dataclass(frozen=True, repr=False, eq=False)
class CausalTrace(Saved):
    """How likely the answer becomes when single states of the clean run are restored.

    Fields are also found as ``trace["scores"]``, and by the names of earlier code (``"low_score"``,
    ``"high_score"``, ``"input_tokens"``, ...).

    Attributes:
        scores: (tokens, layers): the probability of the answer when the states of a cell are restored; with a
            foil the difference of the two logits. Mean over the samples of noise.
        low: The score with noise and nothing restored.
        high: The score without noise.
        tokens: The text of each token.
        ids: The token ids.
        subject_range: The range [first, end) of the subject's tokens.
        answer: The text of the answer's first token.
        answer_id: The id of that token.
        probability: The probability of the answer without noise.
        kind: What was restored: ``"hidden"``, ``"mlp"`` or ``"attn"``.
        window: The number of layers around the cell that were restored together; 1 for hidden states.
        prompt: The text.
        subject: The subject in it.
        foil: The text of the foil's first token, or None.
        sever: The modules whose outputs kept their corrupted values after the restored state, or None.
        samples: The number of samples of noise.
        method: How it was computed: ``"suffix"`` (rows from the restored token on), ``"rows"`` (whole rows)
            or ``"plain"`` (a forward pass for each cell). The numbers differ by rounding only.

    Example:
        >>> import torch
        >>> trace = CausalTrace(
        ...     scores=torch.rand(3, 2), low=0.1, high=0.9, tokens=("Ann", " lives", " in"), ids=(5, 7, 9),
        ...     subject_range=(0, 1), answer=" Rome", answer_id=3, probability=0.9, kind="hidden", window=1,
        ...     prompt="Ann lives in", subject="Ann",
        ... )
        >>> trace
        CausalTrace('Ann lives in' -> ' Rome': 3 tokens x 2 layers, hidden, 0.100 to 0.900)
        >>> trace["scores"].shape
        torch.Size([3, 2])
    """

    scores: Tensor
    low: float
    high: float
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    subject_range: tuple[int, int]
    answer: str
    answer_id: int
    probability: float
    kind: str
    window: int
    prompt: str
    subject: str
    foil: str | None = None
    sever: str | None = None
    samples: int = 10
    method: str = "plain"

    _specs = specs(scores="tokens layers", tokens="tokens", ids="tokens")

    @property
    def effects(self) -> Tensor:
        """The indirect effects: the scores of the cells minus the score of the corrupted run."""
        return self.scores - self.low

    @property
    def best_layer(self) -> int:
        """The layer with the largest effect at the last token of the subject."""
        return int(self.scores[self.subject_range[1] - 1].argmax())

    @checked
    def __getitem__(self, name: str) -> Any:
        name = _OLD_NAMES.get(name, name)
        if name not in (known := [field.name for field in fields(self)]):
            raise ArgumentError(f"a trace has no {name!r}: it has {', '.join([*known, *_OLD_NAMES])}")
        return getattr(self, name)

    @checked
    def plot(self, ax: "Axes | None" = None, limits: tuple[float, float] | None = None) -> "Axes":
        """Returns axes with the scores as a heat map: tokens (the subject's with stars) by layers.

        Cells that restore nothing are white, cells that are worse than nothing restored are gray.

        Args:
            ax: Where to draw; a new figure by default.
            limits: The smallest and the largest score of the colours, to compare several traces; see
                `toumei.plots.color_limits`.
        """
        length, layers = self.scores.shape
        first, end = self.subject_range
        labels = [token + "*" * (first <= index < end) for index, token in enumerate(self.tokens)]
        answer = self.answer.strip()
        label = f"p({answer})" if self.foil is None else f"logit of {answer} less {self.foil.strip()}"
        with drawing(ax, 2.5 + 0.22 * max(layers, 12), 1.4 + 0.22 * length) as ax:
            heat_map(
                self.scores, labels, ax, label=label, color=COLORS[self.kind], middle=self.low, limits=limits
            )
            ax.set_xlabel(self._axis())
            ax.set_ylabel("token (* with noise)")
            rise = float(self.effects.max())
            ax.set_title(f"{restored(self.kind, self.window, self.sever)}: at most {rise:+.2f}")
        return ax

    def _axis(self) -> str:
        return "layer" if self.window == 1 else f"middle of the {self.window} restored layers"

    def __repr__(self) -> str:
        length, layers = self.scores.shape
        kind = self.kind if self.window == 1 else f"{self.kind} in windows of {self.window}"
        prompt, answer = shortened(self.prompt), shortened(self.answer, 30)
        return (
            f"CausalTrace({prompt!r} -> {answer!r}: {counted(length, 'token')} x {counted(layers, 'layer')}, "
            f"{kind}, {self.low:.3f} to {self.high:.3f})"
        )


def restored(kind: str, window: int, sever: str | None) -> str:
    """Returns what a trace restores, in words for a title.

    Example:
        >>> restored("mlp", 10, None), restored("hidden", 1, "attn")
        ('10 MLPs restored', 'one state restored, attentions severed')
    """
    count = f"one {_WHAT[kind]}" if window == 1 else counted(window, _WHAT[kind])
    return f"{count} restored" + (f", {_WHAT[sever]}s severed" if sever else "")
