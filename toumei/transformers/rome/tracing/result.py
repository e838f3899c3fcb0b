"""The result of a causal trace."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ....core.errors import ArgumentError
from ....core.serialization import Saved
from ....core.stored_fields import specs
from ....plots.statistics import heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"hidden": "Purples", "mlp": "Greens", "attn": "Reds"}
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
    """How much of an answer comes back when single states of the run without noise are restored.

    Fields are also found as ``trace["scores"]``, by the names of earlier code as well (``"low_score"``,
    ``"high_score"``, ``"input_tokens"``, ...).

    Attributes:
        scores: (tokens, layers): the probability of the answer, or with a foil the difference of their
            logits, when the states of a cell are restored. Mean over the samples of noise.
        low: The same with noise and nothing restored.
        high: The same without noise.
        tokens: What each token says.
        ids: Their ids.
        subject_range: The range [first, end) of the subject's tokens.
        answer: What the answer's first token says.
        answer_id: Its id.
        probability: The probability of the answer without noise.
        kind: What was restored: ``"hidden"``, ``"mlp"`` or ``"attn"``.
        window: How many layers around the cell's were restored together; 1 for hidden states.
        prompt: The text.
        subject: The subject in it.
        foil: What the foil's first token says, if there is one.
        sever: Whose outputs were kept at their corrupted values behind the restored state.
        samples: How many samples of noise there were.
        method: How it was computed: ``"suffix"`` (rows from the restored token on), ``"rows"`` (whole rows)
            or ``"plain"`` (a forward pass for each cell). The numbers differ by rounding only.

    Example:
        >>> import torch
        >>> trace = CausalTrace(torch.rand(3, 2), 0.1, 0.9, ("Ann", " lives", " in"), (5, 7, 9), (0, 1),
        ...                     " Rome", 3, 0.9, "hidden", 1, "Ann lives in", "Ann")
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
        """The indirect effects: what restoring a cell gains over the corrupted run."""
        return self.scores - self.low

    @property
    def best_layer(self) -> int:
        """The layer with the largest effect at the subject's last token, where facts are looked up."""
        return int(self.scores[self.subject_range[1] - 1].argmax())

    def __getitem__(self, name: str) -> Any:
        name = _OLD_NAMES.get(name, name)
        if name not in (known := [field.name for field in fields(self)]):
            raise ArgumentError(f"a trace has no {name!r}: it has {', '.join([*known, *_OLD_NAMES])}")
        return getattr(self, name)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the scores as a heat map: tokens down (subject with stars), layers across."""
        from matplotlib import pyplot

        length, layers = self.scores.shape
        if ax is None:
            size = (2.5 + 0.22 * max(layers, 12), 1.4 + 0.22 * length)
            ax = pyplot.subplots(figsize=size, layout="constrained")[1]
        first, end = self.subject_range
        labels = [token + "*" * (first <= index < end) for index, token in enumerate(self.tokens)]
        answer = self.answer.strip()
        label = f"p({answer})" if self.foil is None else f"logit of {answer} less {self.foil.strip()}"
        least = min(self.low, float(self.scores.min()))
        heat_map(self.scores, labels, ax, label=label, cmap=COLORS[self.kind], vmin=least)
        ax.set_xlabel(self._axis())
        ax.set_title(restored(self.kind, self.window, self.sever), fontsize="medium")
        return ax

    def _axis(self) -> str:
        return "layer" if self.window == 1 else f"middle of the {self.window} restored layers"

    def __repr__(self) -> str:
        length, layers = self.scores.shape
        kind = self.kind if self.window == 1 else f"{self.kind} in windows of {self.window}"
        return (
            f"CausalTrace({self.prompt!r} -> {self.answer!r}: {length} tokens x {layers} layers, {kind}, "
            f"{self.low:.3f} to {self.high:.3f})"
        )


def restored(kind: str, window: int, sever: str | None) -> str:
    """Returns what a trace restores, in words for a title.

    Example:
        >>> restored("mlp", 10, None), restored("hidden", 1, "attn")
        ('10 MLPs restored', 'one state restored, attentions severed')
    """
    count = f"one {_WHAT[kind]}" if window == 1 else f"{window} {_WHAT[kind]}s"
    return f"{count} restored" + (f", {_WHAT[sever]}s severed" if sever else "")
