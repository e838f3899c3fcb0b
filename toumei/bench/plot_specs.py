"""What is to be plotted of a model, and the panels that a plotting library draws."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.checks import check_choice, check_counts, checked
from ..core.errors import ArgumentError, LayerError
from ..core.kinds import fitted, kind_of, shown
from ..core.summaries import line_of

Key = str | int | tuple[str, int]

PLOT_TYPES = (
    "attention",
    "neuron_activation",
    "attention_stats",
    "induction_heads",
    "neuron_activation_trajectories",
    "qk_dot_product",
    "residual_stream",
    "layer_norms",
)


@dataclass(frozen=True)
class PlotSpec:
    """What `Bench.plot_results` draws.

    Args:
        plot_type: ``"attention"`` (the weights of all heads of a layer), ``"qk_dot_product"`` (their products
            of queries and keys before the softmax), ``"attention_stats"`` (entropy, distance and weight on
            the first token of all heads), ``"induction_heads"`` (induction and previous-token scores of all
            heads), ``"neuron_activation"`` (the activations of the strongest neurons),
            ``"neuron_activation_trajectories"`` (the same over the tokens), ``"residual_stream"`` (the norm
            of the stream and of what is added to it, by layer), ``"layer_norms"`` (what norms divide by).
        data_keys: For attention a layer: its number, or a name with it, such as ``"blocks.1.attn"``. For
            neurons a layer, of whose MLP the activations are drawn, or the name of an activation. With
            several, each is drawn. Other types show all layers and leave it out.
        title: What to write on top; by default what is drawn.
        text: Which text of the batch.
        count: How many neurons.

    Raises:
        ArgumentError: There is no such type, or it needs a key.

    Example:
        >>> PlotSpec("attention", "blocks.1.attn").data_keys
        ('blocks.1.attn',)
    """

    plot_type: str
    data_keys: Key | Sequence[Key] = ()
    title: str | None = None
    text: int = 0
    count: int = 5

    __repr__ = line_of

    def __post_init__(self) -> None:
        check_choice("plot_type", self.plot_type, PLOT_TYPES)
        if self.count is None or self.text is None:
            raise ArgumentError(f"count and text are whole numbers, got {self.count} and {self.text}")
        check_counts(1, count=self.count)
        check_counts(0, text=self.text)
        fitted("title", self.title, kind_of(str | None))
        keys: Any = self.data_keys
        if isinstance(keys, str | int) or _is_pair(keys):
            keys = [keys]
        if not isinstance(keys, tuple | list) or not all(
            isinstance(key, str | int) or _is_pair(key) for key in keys
        ):
            raise ArgumentError(f"data_keys has layers or names of activations, got {shown(self.data_keys)}")
        object.__setattr__(self, "data_keys", tuple(keys))

    @checked
    def layer(self, layers: int) -> int:
        """Returns the layer that the key names: its only or first number.

        Raises:
            ArgumentError: There is no key, or no number in it.
            LayerError: The model has no such layer.
        """
        keys: Any = self.data_keys
        if not keys:
            raise ArgumentError(f"{self.plot_type} needs a layer: PlotSpec({self.plot_type!r}, data_keys=0)")
        key = keys[0][1] if isinstance(keys[0], tuple) else keys[0]
        found = re.search(r"\d+", str(key))
        if found is None:
            raise ArgumentError(f"data_keys is a layer, such as 1 or 'blocks.1.attn', got {shown(keys[0])}")
        if int(found[0]) >= layers:
            raise LayerError(f"layers are from 0 to {layers - 1}, got {shown(keys[0])}")
        return int(found[0])


def _is_pair(key: Any) -> bool:
    """Whether it is a key such as ``("pattern", 2)``."""
    return isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str) and isinstance(key[1], int)


@dataclass(frozen=True)
class Panel:
    """One picture of numbers.

    Attributes:
        kind: ``"heat"`` (rows, columns), ``"lines"`` (lines, places) or ``"spread"`` (groups, samples).
        values: The numbers; NaN stays empty.
        rows: What the rows, lines or groups are called.
        columns: What the columns or places are called; numbers if there are none.
        title: What to write on top.
        axes: What is written beside both axes, first the horizontal one.
        label: What the numbers are.
        limits: The ends of the colours.
    """

    kind: Literal["heat", "lines", "spread"]
    values: Tensor
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ()
    title: str = ""
    axes: tuple[str, str] = ("", "")
    label: str = ""
    limits: tuple[float, float] | None = field(default=None)

    def __post_init__(self) -> None:
        numbers = self.values.detach().float().cpu()
        object.__setattr__(self, "values", numbers.masked_fill(~numbers.isfinite(), torch.nan))


def title_of(spec: PlotSpec) -> str:
    """Returns what stands above a plot."""
    return spec.title or spec.plot_type.replace("_", " ")
