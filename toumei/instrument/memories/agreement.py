"""How often the value of a memory promotes the token that follows its trigger (Geva et al. 2021)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Agreement(Saved):
    """The agreement rate of each layer, with its chance level.

    A neuron agrees if the likeliest token under its value is the one that follows its strongest trigger
    prefix (section 4 of arXiv:2012.14913). Neurons whose strongest trigger ends its text are not counted.

    Attributes:
        layers: The names of the layers.
        rates: The share of neurons that agree, (layers,); NaN where none is counted.
        chance: The expected share if the triggers of a layer were dealt to its neurons at random, (layers,).
            It is higher than 1 / vocabulary, the level of the paper: frequent tokens both follow triggers and
            are promoted.
        deviation: The standard deviation of that share over all ways to deal, (layers,).
        counted: How many neurons are counted, (layers,).
        ranks: The median rank of the next token under the value, 0 for the likeliest, (layers,).
        vocabulary: How many tokens there are.

    Example:
        >>> promoted, following = torch.tensor([3, 3, 5, 7]), torch.tensor([3, 5, 5, -1])
        >>> found = agreement_of({"mlp": (promoted, following, torch.tensor([0, 9, 0, -1]))}, vocabulary=10)
        >>> found.rates, found.chance.round(decimals=3)
        (tensor([0.6667]), tensor([0.4440]))
    """

    layers: tuple[str, ...]
    rates: Tensor
    chance: Tensor
    deviation: Tensor
    counted: Tensor
    ranks: Tensor
    vocabulary: int

    _specs = specs(
        layers="layers",
        rates="layers",
        chance="layers",
        deviation="layers",
        counted=Spec("layers", "integer"),
        ranks="layers",
    )

    @property
    def uniform(self) -> float:
        """The chance level of the paper: 1 / vocabulary."""
        return 1 / self.vocabulary

    def __len__(self) -> int:
        return len(self.layers)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the rates over the layers, and chance with two standard deviations about it.

        Args:
            ax: Where to draw; a new figure by default.
        """
        places = range(len(self.layers))
        rates, chance, spread = 100 * self.rates, 100 * self.chance, 200 * self.deviation
        with drawing(ax, 3 + 0.16 * max(len(self.layers), 12), 3.4) as ax:
            ax.fill_between(
                places,
                (chance - spread).clamp(min=0),
                chance + spread,
                color=style.GRAY,
                alpha=0.3,
                linewidth=0,
                label="two standard deviations",
            )
            ax.plot(places, chance, color=style.GRAY, linestyle="--", label="triggers dealt at random")
            ax.plot(places, rates, color=style.BLUE, marker="o", label="agreement rate")
            ax.set_ylim(bottom=0)
            ax.set_xlabel("layer")
            ax.set_ylabel("agreeing neurons (%)")
            ax.set_title("Value promotes what follows the trigger")
            ax.locator_params("x", integer=True)
            ax.legend()
        return ax

    def __repr__(self) -> str:
        best = int(self.rates.nan_to_num(-1).argmax())
        return (
            f"Agreement({counted(len(self.layers), 'layer')}, at most {self.rates[best]:.2%} in "
            f"{self.layers[best]} at a chance of {self.chance[best]:.2%})"
        )

    def __str__(self) -> str:
        width = max(map(len, self.layers))
        lines = [f"{'layer':{width}}    rate  chance      +-  median rank  neurons"]
        lines += [
            f"{layer:{width}} {rate:7.2%} {chance:7.2%} {spread:7.2%} {rank:12.0f} {count:8d}"
            for layer, rate, chance, spread, rank, count in zip(
                self.layers,
                *(numbers.tolist() for numbers in (self.rates, self.chance, self.deviation, self.ranks)),
                self.counted.tolist(),
                strict=True,
            )
        ]
        return "\n".join(lines)


def agreement_of(layers: dict[str, tuple[Tensor, Tensor, Tensor]], vocabulary: int) -> Agreement:
    """Returns the agreement of layers.

    Args:
        layers: By the name of a layer three numbers of each of its neurons: the likeliest token under its
            value, the token that follows its strongest trigger, -1 for none, and the rank of that token.
        vocabulary: How many tokens there are.
    """
    rates, chance, deviation, counted, medians = [], [], [], [], []
    for promoted, following, ranks in layers.values():
        count = following >= 0
        promoted, following = promoted[count].long(), following[count].long()
        rates.append((promoted == following).float().mean())
        expected, spread = chance_agreement(promoted, following, vocabulary)
        chance.append(expected)
        deviation.append(spread)
        counted.append(int(count.sum()))
        medians.append(ranks[count].float().quantile(0.5) if len(promoted) else torch.tensor(torch.nan))
    return Agreement(
        layers=tuple(layers),
        rates=torch.stack(rates),
        chance=torch.tensor(chance),
        deviation=torch.tensor(deviation),
        counted=torch.tensor(counted),
        ranks=torch.stack(medians),
        vocabulary=vocabulary,
    )


def chance_agreement(promoted: Tensor, following: Tensor, vocabulary: int) -> tuple[float, float]:
    """Returns the mean and the standard deviation of the share of equal pairs if one list is shuffled.

    Of n pairs of tokens, token w is promoted a_w times and follows b_w times. Over all permutations the
    share has the mean sum_w a_w b_w / n^2, and the variance of a sum over a permuted matrix (Hoeffding 1951):
    the squares of the matrix, centred by rows and columns, over n - 1.

    Args:
        promoted: (n,) tokens.
        following: (n,) tokens.
        vocabulary: How many tokens there are.

    Example:
        >>> chance_agreement(torch.tensor([0, 1]), torch.tensor([0, 1]), 2)
        (0.5, 0.5)
    """
    count = len(promoted)
    if not count:
        return torch.nan, torch.nan
    first = promoted.bincount(minlength=vocabulary).double()
    second = following.bincount(minlength=vocabulary).double()
    pairs = float((first * second).sum())
    if count == 1:
        return pairs, 0.0
    rows, columns = (first * second.square()).sum(), (second * first.square()).sum()
    squares = pairs - float(rows + columns) / count + pairs**2 / count**2
    return pairs / count**2, max(squares / (count - 1), 0.0) ** 0.5 / count
