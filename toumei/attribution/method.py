"""What every attribution method is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import nn

from ..core.modules import evaluating, find_module, frozen
from .baselines import BaselineLike
from .problem import Inputs, Problem, Targets, pose
from .result import Attribution


class Method(ABC):
    """A method that says what each part of the inputs contributes to a target.

    A new method is a subclass with `attribute`; while it runs the model is frozen and in evaluation mode, and
    it is given back exactly as it was.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network, such as a normalization.

    Raises:
        LayerError: A layer that the model does not have.
    """

    def __init__(
        self, model: nn.Module, layer: str | None = None, preprocess: Callable[..., Any] | None = None
    ) -> None:
        if layer is not None:
            find_module(model, layer)
        self.model = model
        self.layer = layer
        self.preprocess = preprocess

    def __call__(
        self, inputs: Inputs, target: Targets = None, baselines: BaselineLike = None, **options: Any
    ) -> Attribution:
        """Returns the contributions of the inputs, or of the layer's activation, to the target.

        Args:
            inputs: A tensor (N, ...), or a tuple or dictionary of tensors, as the model takes them.
            target: Index of an output, a tensor of one index an input, a function from the output (N, ...) to
                scores (N,), or a list of these for several targets at once.
            baselines: What counts as absence; see `toumei.attribution.baselines`. Zeros by default.
            **options: Those of the method.
        """
        with frozen(self.model), evaluating(self.model):
            problem = pose(self.model, inputs, target, self.layer, self.preprocess)
            return self.attribute(problem, baselines, **options)

    @abstractmethod
    def attribute(self, problem: Problem, baselines: BaselineLike, **options: Any) -> Attribution:
        """Returns the attribution; the model is frozen and in evaluation mode."""

    def __repr__(self) -> str:
        at = f", layer={self.layer!r}" if self.layer else ""
        return f"{type(self).__name__}({type(self.model).__name__}{at})"
