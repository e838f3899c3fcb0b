"""What direct logit attribution returns: how much each part of a model adds to a logit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import listed, shortened
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Of = Literal["parts", "heads", "neurons", "sources"]


@dataclass(frozen=True, repr=False, eq=False)
class LogitAttribution(Saved):
    """How much each part of a model adds to a logit, or to the difference of two, at the last token.

    Attributes:
        prompt: The text.
        answer: The answer; its first token is meant.
        against: The answer whose logit is subtracted, None for none.
        labels: What the parts are: embedding, attention and MLP of each layer, biases.
        contributions: What they add, (parts,) in float64; the sum is `logit`.
        logit: The logit of the model, or the difference, before a soft cap.
        capped: Whether the model bounds its logits by a soft cap, which is left out here.
        heads: What each head adds, (layers, heads), if it was asked for; NaN where a layer has no attention.
            The sum over a layer is its attention, without the bias of the output projection.
        neurons: What each neuron of the MLPs adds, (layers, neurons), in the same way.
        sources: What attention adds by the values of each token, (layers, tokens), in the same way.
        tokens: The tokens of the prompt.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import direct_logit_attribution
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> found = direct_logit_attribution(model, tokenizer, fact.text, fact.target)
        >>> found.labels[:2], found.answer == fact.target
        (('embedding', 'positions'), True)
    """

    prompt: str
    answer: str
    against: str | None
    labels: tuple[str, ...]
    contributions: Tensor
    logit: float
    capped: bool
    heads: Tensor | None = None
    neurons: Tensor | None = None
    sources: Tensor | None = None
    tokens: tuple[str, ...] = ()

    _specs = specs(
        labels="parts",
        contributions="parts",
        heads="layers heads",
        neurons="layers neurons",
        sources="layers tokens",
        tokens="tokens",
    )

    @checked
    def top(self, k: int = 10, of: Of = "parts") -> list[tuple[str, float]]:
        """Returns labels and contributions of the k parts, heads, neurons or tokens that add or take most.

        Heads, neurons and the tokens that a layer takes values from are called ``"layer.number"``.

        Raises:
            ArgumentError: They were not asked for.
        """
        check_counts(1, k=k)
        values = self._of(of).nan_to_num()
        best = values.flatten().abs().topk(min(k, values.numel())).indices.tolist()
        columns = values.shape[-1]
        return [
            (self.labels[index] if of == "parts" else f"{index // columns}.{index % columns}", value)
            for index in best
            for value in [float(values.flatten()[index])]
        ]

    @checked
    def plot(self, ax: "Axes | None" = None, of: Of = "parts", k: int = 20) -> "Axes":
        """Returns axes with bars of the parts in their order or of neurons, or with maps of heads or tokens.

        Args:
            ax: Where to draw.
            of: What to show.
            k: How many neurons.

        Raises:
            ArgumentError: They were not asked for.
        """
        values = self._of(of)
        label = f"added to the logit{'' if self.against is None else ' difference'}"
        title = self.answer.strip() + ("" if self.against is None else f" against {self.against.strip()}")
        if of in ("heads", "sources"):
            with drawing(ax, max(5.5, 0.45 * values.shape[1]), 0.8 + 0.22 * len(values)) as ax:
                heat_map(values, [str(layer) for layer in range(len(values))], ax, label=label)
                ax.set_xlabel("head" if of == "heads" else "token that attention takes values from")
                if of == "sources":
                    places = [place + 0.5 for place in range(len(self.tokens))]
                    ax.set_xticks(places, [token.strip() for token in self.tokens], rotation=45)
                    for text in ax.get_xticklabels():
                        text.set_parse_math(False)
                ax.set_ylabel("layer")
                ax.set_title(title)
            return ax
        named = self.top(k, of) if of == "neurons" else list(zip(self.labels, values.tolist(), strict=True))
        with drawing(ax, 5, 0.8 + 0.16 * len(named)) as ax:
            heights = [height for _, height in named]
            colors = [style.POSITIVE if height > 0 else style.NEGATIVE for height in heights]
            ax.barh([name for name, _ in named], heights, color=colors)
            ax.invert_yaxis()
            ax.margins(y=0.01)
            ax.axvline(0, color=style.BLACK, linewidth=0.6)
            ax.set_xlabel(label)
            ax.set_title(title)
        return ax

    def _of(self, of: Of) -> Tensor:
        check_choice("of", of, ("parts", "heads", "neurons", "sources"))
        values: Tensor | None = self.contributions if of == "parts" else getattr(self, of)
        if values is None:
            raise ArgumentError(f"{of} were not asked for: call direct_logit_attribution(..., {of}=True)")
        return values

    def __str__(self) -> str:
        rows = [repr(self), *(f"  {value:+9.4f}  {label}" for label, value in self.top())]
        return "\n".join(rows)

    def __repr__(self) -> str:
        against = "" if self.against is None else f" against {shortened(self.against.strip(), 20)}"
        best = listed((f"{label} {value:+.2f}" for label, value in self.top(3)), 3)
        capped = " before a soft cap" if self.capped else ""
        answer = shortened(self.answer.strip(), 20)
        return f"LogitAttribution({answer}{against}: logit {self.logit:.3f}{capped}; {best})"
