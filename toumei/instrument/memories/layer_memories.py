"""The memories of one feed-forward layer, as tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.summaries import counted
from ...core.tensor_specs import specs
from .triggers import Triggers
from .value_distributions import ValueDistributions


@dataclass(frozen=True, repr=False, eq=False)
class LayerMemories:
    """The memories of one layer.

    Attributes:
        name: The name of its down projection.
        mean: The mean coefficient of each neuron over all prefixes, (neurons,), float64.
        variance: The unbiased variances, (neurons,), float64.
        highest: The prefixes with the highest coefficients; their texts are rows of a `TriggerTexts`.
        lowest: Those with the lowest ones, of gated layers.
        promoted: What the values promote, None where it was not asked for.
        lowered: What the negative values promote, of gated layers.
    """

    name: str
    mean: Tensor
    variance: Tensor
    highest: Triggers
    lowest: Triggers | None
    promoted: ValueDistributions | None
    lowered: ValueDistributions | None

    _specs = specs(mean="neurons", variance="neurons")

    def __len__(self) -> int:
        return len(self.mean)

    def z(self, values: Tensor) -> Tensor:
        """Returns how many standard deviations coefficients are above the mean of their neuron.

        It is 0 for a neuron that never changes.

        Args:
            values: (neurons, count).
        """
        deviation = self.variance.sqrt().nan_to_num(0.0)[:, None]
        z = (values.double() - self.mean[:, None]) / deviation
        return torch.where(deviation > 0, z, 0.0)

    def tails(self) -> tuple[tuple[str, Triggers, ValueDistributions | None], ...]:
        """Returns the names of the tails with their triggers, and what is promoted at such coefficients."""
        highest = ("highest", self.highest, self.promoted)
        return (highest,) if self.lowest is None else (highest, ("lowest", self.lowest, self.lowered))

    def __repr__(self) -> str:
        return f"LayerMemories({self.name!r}, {counted(len(self), 'neuron', form=',')})"
