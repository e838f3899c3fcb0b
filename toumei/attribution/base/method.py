"""The base class of attribution methods."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from inspect import signature
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import check_model, evaluating, frozen
from ...core.targets import resolve
from .baselines import BaselineLike
from .batching import BATCH_SIZE
from .inputs import Inputs, Preprocess
from .problem import Problem, make_problem
from .result import Attribution
from .targets import Targets


class Method(ABC):
    """A method that says what each part of the inputs contributes to the score of a target.

    Settings belong to the constructor, data to the call. A new method is a subclass: its constructor names
    its settings and stores each under its name, `attribute` reads them and returns `self.result(...)`.
    During a call the model is frozen and in evaluation mode, and afterwards it is exactly as it was. Results
    do not depend on the grad mode of the caller.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs. If the layer runs several
            times in a pass, such as a ReLU that is shared, its last run counts.
        preprocess: Applied to the inputs before the network, such as a normalization.
        batch_size: How many inputs pass through the network at a time.

    Attributes:
        differentiates: Whether the method needs inputs that have gradients.
        complete: Whether its contributions sum to the difference of the outputs.

    Raises:
        LayerError: A layer that the model does not have.
        ArgumentError: A setting that makes no sense.
    """

    differentiates: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Checks what the constructor of a method is given."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            checked(cls)

    @checked
    def __init__(
        self,
        model: Any,
        layer: str | None = None,
        preprocess: Preprocess | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        check_counts(1, batch_size=batch_size)
        model = self.network(model)
        if layer is not None:
            resolve(model, [layer])
        self.model: nn.Module = model
        self.layer = layer
        self.preprocess = preprocess
        self.batch_size = batch_size

    def network(self, model: Any) -> nn.Module:
        """Returns what the user gave as a model, after a check that hooks run in it.

        Raises:
            ArgumentError: It is no `nn.Module`.
            ArchitectureError: It is scripted, or runs copies of a model.
        """
        check_model(model)
        return model

    @checked
    def __call__(self, inputs: Inputs, target: Targets = None, baselines: BaselineLike = None) -> Attribution:
        """Returns the contributions of the inputs, or of the layer's activation, to the score of the target.

        Args:
            inputs: A tensor (N, ...), or a tuple or dictionary of tensors, as the model takes them. Methods
                that need gradients leave whole numbers and booleans (such as an attention mask) as they are
                if there are other inputs, and give them contributions of zero.
            target: Index of an output, a tensor of one index an input, a function from the output (N, ...) to
                scores (N,), which is given all heads of a network that returns several tensors, an inner unit
                as ``"layer:channel:y:x"`` (``"layer:channel"`` is the channel's mean), at the last run of its
                layer, or a list of these for several targets at once.
            baselines: What stands for absence: a number, a tensor, an array, or a baseline of
                `toumei.attribution`. For several inputs a sequence with one for each, or a dictionary by
                name. Zeros by default, also for inputs that are left out.

        Raises:
            ArgumentError: Inputs that the method cannot take, or a network that was made in inference mode.
            ShapeError: Inputs without a common batch axis, another number of targets than inputs, or a
                baseline of another shape.
            UnitError: A target that the output does not have.
        """
        if any(tensor.is_inference() for tensor in chain(self.model.parameters(), self.model.buffers())):
            raise ArgumentError(
                "the network was made in inference mode, where nothing has gradients: make it outside of "
                "torch.inference_mode()"
            )
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.model), evaluating(self.model):
            problem = make_problem(
                self.model,
                inputs,
                target,
                self.layer,
                self.preprocess,
                self.differentiates,
                self.batch_size,
            )
            return self.attribute(problem, baselines)

    @abstractmethod
    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the attribution; the model is frozen and in evaluation mode.

        Args:
            problem: The network and its inputs.
            baselines: What the user gave.
        """

    def result(
        self,
        problem: Problem,
        values: Sequence[Tensor],
        output: Tensor,
        baseline_output: Tensor | None = None,
        standard_error: Sequence[Tensor] | None = None,
    ) -> Attribution:
        """Returns an attribution by this method.

        Args:
            problem: The network and its inputs.
            values: Contributions, each (T, N, ...), one tensor for each of the problem's.
            output: (N, T) scores at the inputs.
            baseline_output: (N, T) scores at the baseline.
            standard_error: Of the values, each (T, N, ...).
        """
        return Attribution(
            problem.restore(values),
            problem.per_input(output),
            None if baseline_output is None else problem.per_input(baseline_output),
            None if standard_error is None else problem.restore(standard_error),
            method=type(self).__name__,
            seed=getattr(self, "seed", None),
            several=problem.several,
            complete=self.complete,
        )

    def with_model(self, model: nn.Module, layer: str | None) -> Self:
        """Returns a copy of the method with the same settings, for another network.

        Args:
            model: The other network.
            layer: The layer of it that is attributed to, None for the inputs.

        Raises:
            LayerError: A layer that the model does not have.
            ArgumentError: A layer for a method that takes none.

        Example:
            >>> from toumei.attribution import Saliency
            >>> Saliency(nn.ReLU(), absolute=False).with_model(nn.Sequential(nn.Linear(4, 2)), "0")
            Saliency(Sequential, layer='0', absolute=False)
        """
        if layer is not None:
            if "layer" not in signature(type(self)).parameters:
                raise ArgumentError(f"{type(self).__name__} takes no layer, got {layer!r}")
            resolve(model, [layer])
        method = copy(self)
        method.model, method.layer = model, layer
        return method

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by name, in the order of the constructor."""
        parameters = signature(type(self)).parameters
        values = {
            name: getattr(self, name, one.default) for name, one in parameters.items() if name != "model"
        }
        return {name: value for name, value in values.items() if not _equal(value, parameters[name].default)}

    def __repr__(self) -> str:
        shown = [f"{name}={_short(value)}" for name, value in self.settings.items()]
        return f"{type(self).__name__}({', '.join([type(self.model).__name__, *shown])})"


def _equal(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, int | float | str) and value == default)


def _short(value: Any) -> str:
    """A setting as `repr` shows it: tensors by their shapes, classes and functions by their names."""
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return getattr(value, "__name__", None) or repr(value)
