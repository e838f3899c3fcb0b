"""What lenses predict at each layer and token of a prompt, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ...core.checks import check_choice, checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import counted, listed, shortened
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.style import LABEL, color_bar, drawing, sequential_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Color = Literal["probability", "divergence", "entropy"]
_LETTERS = 9  # of a token in a cell
_DARK = 0.45  # share of the colours from which letters are white


@dataclass(frozen=True, repr=False, eq=False)
class LensTable(Saved):
    """What a lens predicts from each layer at each token of a prompt.

    Attributes:
        prompt: The text.
        lens: Which lens it is, ``"logit lens"`` or ``"tuned lens"``.
        tokens: The tokens of the prompt.
        layers: The rows: ``"embedding"``, ``"0 mid"`` after the attention of layer 0, ``"0"`` after layer 0,
            as asked for. The last row is the prediction of the model itself.
        top: The likeliest next tokens, by layer and token.
        top_probabilities: Their probabilities, (layers, tokens, k).
        entropies: Entropy of each prediction in nats, (layers, tokens).
        divergences: KL divergence of the model's prediction from it, KL(model || lens) in nats, (layers,
            tokens).
        next_probabilities: The probability of the token that comes next in the prompt, (layers, tokens - 1).
        next_ranks: How many tokens are likelier than that, (layers, tokens - 1).

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import logit_lens
        >>> model, tokenizer, world = facts_gpt()
        >>> table = logit_lens(model, tokenizer, world.facts[0].text)
        >>> table.layers[:2], table.tokens[:2]
        (('0', '1'), ('The', 'town'))
    """

    prompt: str
    lens: str
    tokens: tuple[str, ...]
    layers: tuple[str, ...]
    top: tuple[tuple[tuple[str, ...], ...], ...]
    top_probabilities: Tensor
    entropies: Tensor
    divergences: Tensor
    next_probabilities: Tensor
    next_ranks: Tensor

    _specs = specs(
        tokens="tokens",
        layers="layers",
        top="layers",
        top_probabilities="layers tokens k",
        entropies="layers tokens",
        divergences="layers tokens",
        next_probabilities="layers following",
        next_ranks=Spec("layers following", "integer"),
    )

    @checked
    def plot(
        self,
        ax: "Axes | None" = None,
        color: Color = "probability",
        positions: Sequence[int] | None = None,
        limit: float | None = None,
    ) -> "Axes":
        """Returns axes with the likeliest token in each cell: layers upwards, tokens to the right.

        Tokens that the model predicts in the end are bold.

        Args:
            ax: Where to draw.
            color: What the colour of a cell shows: the probability of its token, the KL divergence of the
                model's prediction from that of the lens, or its entropy.
            positions: Which tokens of the prompt to show, in this order; by default all.
            limit: The number with the strongest colour, to compare several tables; by default the largest, of
                probabilities 1.

        Raises:
            ArgumentError: Another colour, a token that the prompt does not have, or a limit that is not above
                0.
        """
        check_choice("color", color, ("probability", "divergence", "entropy"))
        shown = list(range(len(self.tokens)) if positions is None else positions)
        if not shown or not all(-len(self.tokens) <= place < len(self.tokens) for place in shown):
            raise ArgumentError(
                f"expected positions among the {counted(len(self.tokens), 'token')}, got {positions!r}"
            )
        values = {
            "probability": self.top_probabilities[..., 0],
            "divergence": self.divergences,
            "entropy": self.entropies,
        }[color][:, shown]
        label = {"divergence": "KL(model || lens) in nats", "entropy": "entropy in nats"}.get(color, color)
        if limit is not None and not limit > 0:
            raise ArgumentError(f"limit is a number above 0, got {limit}")
        highest = limit or (1.0 if color == "probability" else float(values.max()) or 1.0)
        colors = sequential_map({"probability": style.BLUE, "divergence": style.RED}.get(color, style.GREEN))
        with drawing(ax, 1.6 + 0.68 * len(shown), 1.1 + 0.24 * len(self.layers)) as ax:
            ax.pcolormesh(
                values.numpy(), cmap=colors, vmin=0, vmax=highest, edgecolors="white", linewidth=0.5
            )
            self._write_tokens(ax, shown, values / highest)
            ax.set_xticks(
                [column + 0.5 for column in range(len(shown))], [_cell(self.tokens[at]) for at in shown]
            )
            for text in ax.get_xticklabels():
                text.set_parse_math(False)
            ax.set_yticks([row + 0.5 for row in range(len(self.layers))], self.layers)
            ax.tick_params(length=0)
            ax.set_xlabel("token read")
            ax.set_ylabel("read out after layer")
            ax.set_title(f"{self.lens}\nbold: predicted in the end")
            color_bar(ax, label, (0.0, highest), colors)
        return ax

    def _write_tokens(self, ax: "Axes", shown: Sequence[int], strengths: Tensor) -> None:
        for row in range(len(self.layers)):
            for column, place in enumerate(shown):
                token = self.top[row][place][0]
                ax.text(
                    column + 0.5,
                    row + 0.5,
                    _cell(token),
                    ha="center",
                    va="center",
                    fontsize=LABEL,
                    fontweight="bold" if token == self.top[-1][place][0] else "normal",
                    color="white" if float(strengths[row, column]) > _DARK else "black",
                    parse_math=False,
                )

    def __str__(self) -> str:
        lines = [repr(self)]
        divergence = self.divergences.mean(1).tolist()
        for layer, row, far in zip(
            reversed(self.layers), reversed(self.top), reversed(divergence), strict=True
        ):
            words = " | ".join(f"{_cell(words[0]):{_LETTERS}}" for words in row[-6:])
            lines.append(f"{layer:>9}  {words}  KL {far:.2f}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        best = listed((repr(word) for word in self.top[-1][-1][:3]), 3)
        return (
            f"LensTable({self.lens}: {counted(len(self.layers), 'layer')}, "
            f"{counted(len(self.tokens), 'token')} of {shortened(self.prompt, 50)}; at its end {best})"
        )


def _cell(token: str) -> str:
    """A token as it is written in a cell, with signs for what cannot be seen."""
    text = token.strip() or token.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "_") or "_"
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
