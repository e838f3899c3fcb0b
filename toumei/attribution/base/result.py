"""What an attribution method returns: contributions, and how reliable they are."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import listed
from ...core.tensor_specs import specs
from .inputs import Values, parts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# fields that only some methods fill
_TENSORS = ("baseline_output", "r_squared", "features", "interactions")


@dataclass(frozen=True, eq=False)
class Attribution(Saved):
    """The contribution of each part of the inputs to the score of a target.

    For T targets at once every tensor has another axis of length T in front.

    Attributes:
        values: In the structure of the inputs: a tensor (N, ...), a tuple or a dictionary of them; for a
            layer a tensor in the shape of its activation; for a layer that returns several tensors, and for
            several layers, a dictionary of them by their names, such as ``"lstm[1][0]"``.
        output: (N,) scores at the inputs.
        baseline_output: (N,) scores at the baseline, the mean over its samples; None for methods without a
            baseline.
        standard_error: Of the values, in their structure, for methods that sample; None, or NaN for some
            inputs, where it cannot be told.
        r_squared: (N,) weighted R² of the surrogate, if there is one.
        features: (N, M) contributions of whole features, such as superpixels or tokens, for methods that hide
            them; `values` spreads each evenly over its numbers.
        interactions: (N, M, M) contributions of pairs of features, if asked for.
        method: The name of the method.
        seed: The seed of a method that samples.
        several: Whether the tensors have an axis of targets.
        complete: Whether the values should sum to the difference of the outputs.
        repeat_gap: How far the score of the first input is from that in another pass, for networks that draw
            random numbers or count their passes; 0 for all others.
        tokens: The tokens of each input, for texts.
        names: The names of the targets.
    """

    values: Values
    output: Tensor
    baseline_output: Tensor | None = None
    standard_error: Values | None = None
    r_squared: Tensor | None = None
    features: Tensor | None = None
    interactions: Tensor | None = None
    method: str = ""
    seed: int | None = None
    several: bool = False
    complete: bool = False
    repeat_gap: float = 0.0
    tokens: tuple[tuple[str, ...], ...] | None = None
    names: tuple[str, ...] | None = None

    _specs = specs(
        output="*T N",
        values="*T N ...",
        baseline_output="*T N",
        standard_error="*T N ...",
        r_squared="*T N",
        features="*T N M",
        interactions="*T N M M",
    )

    @property
    def sums(self) -> Tensor:
        """The sum of each input's contributions, (N,)."""
        shape = self.output.shape
        return torch.stack([part.double().reshape(*shape, -1).sum(-1) for part in parts_of(self.values)]).sum(
            0
        )

    @property
    def gap(self) -> Tensor | None:
        """The completeness gap (N,): the sum of contributions less the difference of outputs.

        None for methods whose contributions do not add up to it by their definition.
        """
        if not self.complete or self.baseline_output is None:
            return None
        return self.sums - (self.output.double() - self.baseline_output.double())

    def __getitem__(self, target: int) -> Self:
        """Returns the attribution for one of several targets.

        Raises:
            ArgumentError: It is for one target only.
        """
        if not self.several:
            raise ArgumentError("this attribution is for one target; values[i] is that of input i")

        def pick(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[target]
            if isinstance(value, tuple):
                return tuple(part[target] for part in value)
            return None if value is None else {name: part[target] for name, part in value.items()}

        names = ("values", "output", "standard_error", *_TENSORS)
        picked = {name: pick(getattr(self, name)) for name in names}
        name = None if self.names is None else (self.names[target],)
        return replace(self, several=False, names=name, **picked)

    @checked
    def plot(self, images: Tensor | None = None, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the contributions: heat maps (over pictures if given), coloured tokens, or bars.

        Of several inputs of the network the first is shown that has contributions.

        Args:
            images: The inputs as pictures (N, 1 or 3, H, W) in [0, 1].
            ax: Where to draw; a new figure by default.
        """
        from ..plots import plot_attribution

        return plot_attribution(self._by_target(), self.method, self.names, self.tokens, images, ax)

    def __repr__(self) -> str:
        shapes = listed(tuple(part.shape) for part in parts_of(self.values))
        facts = [f"values {shapes}"]
        if self.gap is not None:
            facts.append(f"gap at most {self.gap.abs().max():.2g}")
        if self.standard_error is not None:
            largest = max(float(part.max()) for part in parts_of(self.standard_error))
            facts.append(f"standard error at most {largest:.2g}")
        if self.r_squared is not None:
            facts.append(f"R² at least {self.r_squared.min():.2f}")
        if self.repeat_gap:
            facts.append(f"passes differ by {self.repeat_gap:.2g}")
        return f"Attribution({self.method}: {', '.join(facts)})"

    def _repr_html_(self) -> str:
        from ..plots import attribution_html

        return attribution_html(self._by_target(), repr(self), self.names, self.tokens)

    def _by_target(self) -> Tensor:
        """The first tensor of the values that are not all 0, with an axis of targets in front."""
        parts = parts_of(self.values)
        values = next((part for part in parts if part.any()), parts[0])
        return values if self.several else values[None]


def values_of(given: Tensor | Attribution) -> Tensor:
    """Returns contributions that are given as a tensor, or as the attribution to one target.

    Raises:
        ArgumentError: An attribution to several targets, or of several inputs.
    """
    if isinstance(given, Tensor):
        return given
    if given.several:
        raise ArgumentError("this attribution is for several targets: give attribution[i], that for one")
    if not isinstance(given.values, Tensor):
        raise ArgumentError("this attribution is of several inputs: give the values of one of them")
    return given.values
