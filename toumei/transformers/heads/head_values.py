"""One number for each attention head of a model, as a table that can be drawn and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.ordering import largest
from ...core.serialization import Saved
from ...core.summaries import counted, listed, shortened
from ...core.tensor_specs import specs
from ...plots.statistics import heat_map
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class HeadValues(Saved):
    """A number for each head.

    Attributes:
        what: What the numbers are.
        values: (layers, heads), on the CPU; NaN where a layer has no such head, or the number is not defined.
        layer_names: The numbers of the layers.

    Example:
        >>> HeadValues("copying score", torch.tensor([[0.2, 1.0]]), ("0",)).top(1)
        (('0.1', 1.0),)
    """

    what: str
    values: Tensor
    layer_names: tuple[str, ...]

    _specs = specs(values="layers heads", layer_names="layers")

    @classmethod
    def of_layers(cls, what: str, layers: Sequence[int], values: Sequence[Tensor]) -> "HeadValues":
        """Returns the table of the values (heads,) of some layers."""
        padded = pad_sequence([one.cpu() for one in values], batch_first=True, padding_value=torch.nan)
        return cls(what, padded, tuple(map(str, layers)))

    @checked
    def __getitem__(self, head: str) -> float:
        """Returns the number of a head, given as layer and head, ``"5.1"``.

        Raises:
            ArgumentError: There is no such head.
        """
        layer, _, number = head.rpartition(".")
        heads = [str(one) for one in range(self.values.shape[1])]
        if layer not in self.layer_names or number not in heads:
            raise ArgumentError(
                f"heads are layer and number, layers {listed(self.layer_names)} and numbers {listed(heads)}, "
                f"got {head!r}"
            )
        return float(self.values[self.layer_names.index(layer), int(number)])

    @checked
    def top(self, k: int = 5) -> tuple[tuple[str, float], ...]:
        """Returns the heads with the largest numbers, as layer and head from 0 on, and their numbers."""
        check_counts(1, k=k)
        return tuple(
            (f"{self.layer_names[layer]}.{head}", value) for (layer, head), value in largest(self.values, k)
        )

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a heat map: a row for each layer, the first on top."""
        width = min(max(3.5, 0.3 * self.values.shape[1]), 12.0) + 1.5
        with drawing(ax, width, min(max(2.5, 0.25 * len(self.values)), 10.0)) as axes:
            heat_map(self.values, self.layer_names, axes, label=self.what)
            axes.set(xlabel="head", ylabel="layer", title=f"{shortened(self.what, 50)}, head by head")
        return axes

    def __len__(self) -> int:
        return int(self.values.isfinite().sum())

    def __repr__(self) -> str:
        highest = ", ".join(f"{shortened(name, 20)} {value:.2f}" for name, value in self.top(3))
        return f"HeadValues({self.what}, {counted(len(self), 'head')}: highest {highest or 'none'})"
