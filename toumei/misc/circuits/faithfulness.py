"""How much of a score the strongest nodes of a circuit keep, beside random nodes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs
from ...plots.style import GRAY, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the nodes, those of Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark"."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Faithfulness(Saved):
    """The share of a score that is left when only the strongest nodes compute and others are at the baseline.

    It is (m(C) - m(none)) / (m(all) - m(none)) for the mean score m over the inputs.

    Attributes:
        sizes: (S,) how many nodes are kept.
        values: (S,) the shares with the nodes of the circuit.
        random: (R, S) the shares with random nodes, for some orders of all nodes.
        nodes: How many nodes there are.
        method: The method that put the nodes in order.

    Example:
        >>> sizes, values = torch.tensor([0, 1, 2]), torch.tensor([0.0, 0.9, 1.0])
        >>> Faithfulness(sizes=sizes, values=values, random=values[None] / 2, nodes=2, method="DeepLift")
        Faithfulness(DeepLift, 2 nodes: CPR 0.70 and CMD 0.30, random CPR 0.35)
    """

    sizes: Tensor
    values: Tensor
    random: Tensor
    nodes: int
    method: str

    _specs = specs(sizes=Spec("S", kind="integer"), values="S", random="R S")

    @property
    def cpr(self) -> float:
        """The area under the shares over the share of nodes: high if few nodes keep the score."""
        return float(torch.trapezoid(self.values, self.sizes / self.nodes))

    @property
    def cmd(self) -> float:
        """The area between the shares and 1: 0 if few nodes keep the score and no others change it."""
        return float(torch.trapezoid((1 - self.values).abs(), self.sizes / self.nodes))

    @property
    def random_cpr(self) -> float:
        """The mean `cpr` of random nodes."""
        return float(torch.trapezoid(self.random, self.sizes / self.nodes).mean())

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the shares over the number of nodes.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with drawing(ax, 5.0, 3.6) as axes:
            axes.plot(self.sizes, self.random.mean(0), color=GRAY, linestyle="--", label="random nodes")
            axes.plot(self.sizes, self.values, marker="o", markersize=3, label=self.method)
            axes.axhline(1, color=GRAY, linewidth=0.6)
            axes.set(xlabel="nodes that are kept", ylabel="share of the score")
            axes.set_title("How much of the score a circuit keeps")
            axes.legend()
        return axes

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return (
            f"Faithfulness({self.method}, {counted(self.nodes, 'node')}: CPR {self.cpr:.2f} and CMD "
            f"{self.cmd:.2f}, random CPR {self.random_cpr:.2f})"
        )


def kept_sizes(nodes: int) -> list[int]:
    """Returns how many nodes are kept: none, and the published shares of them.

    Example:
        >>> kept_sizes(28)
        [0, 1, 3, 6, 14, 28]
    """
    return sorted({0, *(max(1, round(share * nodes)) for share in SHARES)})
