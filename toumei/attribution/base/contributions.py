"""The numbers and names of an attribution."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.serialization import Saved
from ...core.summaries import listed
from ...core.tensor_specs import Spec, specs
from .inputs import Values, parts_of


@dataclass(frozen=True, eq=False, repr=False)
class Contributions(Saved):
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
        classes: The class that each row is explained for, where it differs by row.
        feature_names: The names of the columns of a table.
        row_names: The names of the N inputs.
        data: (N, M) the inputs, if they are a table.
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
    classes: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    row_names: tuple[str, ...] | None = None
    data: Tensor | None = None

    _added = ("classes", "feature_names", "row_names", "data")
    _specs = specs(
        output="*T N",
        values="*T N ...",
        baseline_output="*T N",
        standard_error="*T N ...",
        r_squared="*T N",
        features="*T N M",
        interactions="*T N M M",
        row_names="N",
        classes="N",
        data=Spec("N columns", "any"),
    )

    def __len__(self) -> int:
        return self.output.shape[-1]

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
        return f"{type(self).__name__}({self.method}: {', '.join(facts)})"
