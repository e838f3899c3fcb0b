"""What every attribution method is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from inspect import Parameter, signature
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.errors import ArgumentError
from ...core.modules import check_model, evaluating, frozen
from ...core.targets import resolve
from .baselines import BaselineLike
from .batching import BATCH_SIZE
from .inputs import Inputs
from .problem import Problem, make_problem
from .result import Attribution
from .targets import Targets


class Method(ABC):
    """A method that says what each part of the inputs contributes to a target.

    A new method is a subclass with `attribute`; while it runs the model is frozen and in evaluation mode, and
    it is given back exactly as it was. Results do not depend on the grad mode of the caller.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs. Of a layer that runs several
            times in a pass, such as a ReLU that is shared, the last run counts.
        preprocess: Applied to the inputs before the network, such as a normalization.

    Raises:
        LayerError: A layer that the model does not have.
    """

    differentiates: ClassVar[bool] = False  # whether it needs inputs that have gradients

    def __init__(
        self, model: nn.Module, layer: str | None = None, preprocess: Callable[..., Any] | None = None
    ) -> None:
        if layer is not None:
            check_model(model)
            resolve(model, [layer])
        self.model = model
        self.layer = layer
        self.preprocess = preprocess

    def __call__(
        self, inputs: Inputs, target: Targets = None, baselines: BaselineLike = None, **options: Any
    ) -> Attribution:
        """Returns the contributions of the inputs, or of the layer's activation, to the target.

        Args:
            inputs: A tensor (N, ...), or a tuple or dictionary of tensors, as the model takes them. Beside
                others, whole numbers and booleans (an attention mask, say) stay as they are for methods that
                need gradients, with contributions of zero.
            target: Index of an output, a tensor of one index an input, a function from the output (N, ...) to
                scores (N,), an inner unit as ``"layer:channel:y:x"`` (``"layer:channel"`` is the channel's
                mean), at the last run of its layer, or a list of these for several targets at once.
            baselines: What counts as absence: a number, a tensor or an array, or an object of
                `toumei.attribution`. Of several inputs one for each in their order, or a dictionary
                by name. Zeros by default, also for inputs that are left out.
            **options: Those of the method.

        Raises:
            ArgumentError: An option that the method does not have, inputs it cannot be given, or a network
                that was made in inference mode.
            ShapeError: Inputs without a common batch axis, another number of targets than inputs, or a
                baseline of another shape.
            UnitError: A target that the output does not have.
        """
        self._check(options)
        size = options.get("batch_size", BATCH_SIZE)
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.model), evaluating(self.model):
            problem = make_problem(
                self.model, inputs, target, self.layer, self.preprocess, self.differentiates, size
            )
            return self.attribute(problem, baselines, **options)

    @abstractmethod
    def attribute(self, problem: Problem, baselines: BaselineLike, *args: Any, **options: Any) -> Attribution:
        """Returns the attribution; the model is frozen and in evaluation mode.

        A subclass names its own options as keywords, in the place of ``*args`` and ``**options``.
        """

    def _check(self, options: dict[str, Any]) -> None:
        if any(own.is_inference() for own in chain(self.model.parameters(), self.model.buffers())):
            raise ArgumentError(
                "the network was made in inference mode, where nothing has gradients: make it outside of "
                "torch.inference_mode()"
            )
        known = list(signature(self.attribute).parameters.values())[2:]
        names = [parameter.name for parameter in known if parameter.kind is Parameter.KEYWORD_ONLY]
        if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known):
            return
        for name in options:
            if name not in names:
                raise ArgumentError(
                    f"{type(self).__name__} has no option {name!r}: it has {', '.join(names) or 'none'}"
                )

    def __repr__(self) -> str:
        at = f", layer={self.layer!r}" if self.layer else ""
        return f"{type(self).__name__}({type(self.model).__name__}{at})"
