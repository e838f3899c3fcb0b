"""Effects of patched activations, as an array with names that can be drawn and kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.ordering import largest
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import specs
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 12


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PatchingResult(Saved):
    """Effects of runs with one activation of another run, float64 on the CPU; NaN where there is nothing.

    Attributes:
        values: Which share of the gap each patch restores (denoising) or takes away (noising): 0 changes
            nothing, 1 is the whole gap. The axes are those of `axes`.
        raw: The metric of each patched run, mean over the prompts.
        clean: The metric of the clean run.
        corrupt: The metric of the corrupt run.
        metric: Its name.
        what: What is patched.
        axes: What the axes are: layer, head, position, neuron.
        direction: Denoising, clean activations in the corrupt run, or noising, the other way round.
        layer_names: The number of each layer.
        tokens: The texts of the positions; those that differ between prompts are in brackets.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, activation_patching, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> found = activation_patching(model, clean, corrupt, logit_difference(4, 5), "z", "head")
        >>> found.values.shape, found.axes
        (torch.Size([2, 2]), ('layer', 'head'))
    """

    values: Tensor
    raw: Tensor
    clean: float
    corrupt: float
    metric: str
    what: str
    axes: tuple[str, ...]
    direction: str
    layer_names: tuple[str, ...]
    tokens: tuple[str, ...]

    _specs = specs(values="layers ...", raw="layers ...", layer_names="layers")

    @checked
    def top(self, k: int = 5) -> tuple[tuple[str, float], ...]:
        """Returns the places with the largest effects: layer, then head, position or neuron, from 0 on.

        Args:
            k: How many.

        Example:
            ``("9.6", 0.4)`` is head 6 of layer 9; with positions ``"9.6.14"`` at position 14.
        """
        check_counts(1, k=k)
        return tuple(
            (".".join([self.layer_names[layer], *map(str, place)]), value)
            for (layer, *place), value in largest(self.values, k)
        )

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a heat map: a row for each token or layer; of heads and positions the top heads.

        Args:
            ax: Where to draw; a new figure by default.
        """
        values, rows, labels = self._table()
        width = min(max(3.5, 0.3 * values.shape[1]), 12.0) + 2.5
        share = "restored" if self.direction == "denoising" else "lost"
        with drawing(ax, width, min(max(2.5, 0.25 * len(rows)), 10.0)) as axes:
            heat_map(values, rows, axes, label=f"{share} {self.metric}")
            axes.set(xlabel=labels[1], ylabel=labels[0], title=f"{self.direction}: {self.what}")
        return axes

    def _table(self) -> tuple[Tensor, tuple[str, ...], tuple[str, str]]:
        """The numbers as a matrix, the names of its rows, and what rows and columns are."""
        if self.axes == ("layer", "position"):
            return self.values.T, self.tokens, ("", "layer")
        if self.axes == ("layer", "head", "position"):
            strength = self.values.abs().amax(2)
            heads = [place for place, _ in largest(strength, _MOST_ROWS)]
            names = tuple(f"{self.layer_names[layer]}.{head}" for layer, head in heads)
            return torch.stack([self.values[place] for place in heads]), names, ("head", "position")
        if self.axes == ("layer",):
            return self.values[None], ("",), ("", "layer")
        return self.values, self.layer_names, ("layer", self.axes[1])

    @checked
    def __getitem__(self, key: str) -> float:
        """Returns the effect of one place by its name, as `top` has it."""
        try:
            layer, *places = key.split(".")
            place = (self.layer_names.index(layer), *map(int, places))
            return float(self.values[place])
        except (ValueError, IndexError, TypeError):
            axes = ".".join(self.axes)
            raise ArgumentError(
                f"there is no place {key!r}: expected {axes} of {tuple(self.values.shape)}"
            ) from None

    def __len__(self) -> int:
        return int(self.values.isfinite().sum())

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {value:.2f}" for name, value in self.top(3))
        what = shortened(self.what)
        return f"PatchingResult({self.direction} of {what}, {counted(len(self), 'patch')}: highest {best})"

    def __str__(self) -> str:
        lines = [
            f"{self.direction} of {shortened(self.what)} by {', '.join(self.axes)}",
            f"{shortened(self.metric)}: {self.clean:.3f} clean, {self.corrupt:.3f} corrupt",
        ]
        return "\n".join([*lines, *(f"{name:<10}{value:.3f}" for name, value in self.top(8))])
