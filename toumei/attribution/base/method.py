"""The base class of attribution methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import wraps
from inspect import signature
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, NotATensorError
from ...core.kinds import as_names, shown
from ...core.modules import check_model, evaluating, frozen
from ...core.summaries import LINE, shortened
from ...core.targets import resolve
from .baseline_columns import in_order, warn_of_itself
from .baselines import BaselineLike
from .batching import BATCH_SIZE
from .inputs import Inputs, Layers, Preprocess, parts_of
from .names import named
from .places import layers_of
from .problem import Problem
from .problem_arguments import make_problem
from .reliability import check_inputs, check_scores, repeated_gap, warn_of_infinite
from .result import Attribution
from .targets import Targets, classes_of_rows, target_names
from .vanishing import warn_if_unused


class Method(ABC):
    """A method that says what each part of the inputs contributes to the score of a target.

    Settings belong to the constructor, data to the call. A new method is a subclass: its constructor names
    its settings and stores each under its name, `attribute` reads them and returns `self.result(...)`.
    During a call the model is frozen and in evaluation mode, and afterwards it is exactly as it was. Results
    do not depend on the grad mode of the caller. One more pass of the first row tells whether the network
    says the same twice, and a warning says so if it does not, as with random numbers. A single row of a
    network that is known to repeat, by the modules it is made of, takes no such pass.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs, or of several layers in a
            list. All tensors of a layer with a row for each input are attributed to, where two more passes
            (one of a single input) tell which axis has the rows; ``"lstm[0]"`` names one.
            If the layer runs several times in a pass, such as a ReLU that is shared, its last run counts.
        preprocess: Applied to the inputs before the network, such as a normalization.
        batch_size: How many inputs pass through the network at a time.

    Attributes:
        differentiates: Whether the method needs inputs that have gradients.
        complete: Whether its contributions sum to the difference of the outputs.

    Raises:
        LayerError: A layer that the model does not have.
        ArgumentError: A setting that makes no sense.

    Example:
        >>> from toumei.attribution import InputXGradient
        >>> method = InputXGradient(nn.Linear(3, 2), batch_size=16)
        >>> method(torch.rand(4, 3), target=1)
        Attribution(InputXGradient: values (4, 3))
    """

    differentiates: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Checks what the constructor of a method is given."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            checked(cls)
        if "attribute" in vars(cls):
            setattr(cls, "attribute", _of_a_problem(vars(cls)["attribute"]))  # noqa: B010, as in `checked`

    @checked
    def __init__(
        self,
        model: Any,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        check_counts(1, batch_size=batch_size)
        model = self.network(model)
        if layer is not None:
            resolve(model, layers_of(layer))
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
        network: nn.Module = model
        return network

    @checked
    def __call__(
        self,
        inputs: Inputs | Any,
        target: Targets = None,
        baselines: BaselineLike = None,
        *,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        row_names: Sequence[str] | None = None,
    ) -> Attribution:
        """Returns the contributions of the inputs, or of the layer's activation, to the score of the target.

        Args:
            inputs: A tensor (N, ...), or a tuple or dictionary of tensors, as the model takes them; arrays
                and tables of pandas become tensors in the precision of the model. Masks,
                lengths of sequences, token types and position ids beside other inputs stay as they are and
                have contributions of zero, unless they have a baseline or features of their own; they are
                known by the names of the arguments. Methods that need gradients leave other whole numbers as
                they are too, with a warning.
            target: Index or name of an output, a tensor or an array with an index for each input, an array
                with a name for each, a function from the output (N, ...) to scores (N,), which is given all
                heads of a network that returns several tensors, an inner unit as ``"layer:channel:y:x"``
                (``"layer:channel"`` is the channel's mean), at the last run of its layer, or a list of these
                for several targets at once.
            baselines: What stands for absence: a number, a tensor, an array, a row or a table of pandas,
                whose columns are taken by name, or a baseline of `toumei.attribution`. As many rows as there
                are inputs are a baseline for each of them, in this order; rows of a background, as shap takes
                them, are ``FromData(background)``. For several inputs a sequence with one for each, or a
                dictionary by name. Zeros by default, also for inputs that are left out.
            feature_names: Of the columns of a table (N, M); by default those of a table of pandas.
            class_names: Of the outputs, such as ``weights.meta["categories"]``; by default the `categories`
                of the model, the labels of its config, or the classes of an estimator.
            row_names: Of the N inputs; by default the index of a table of pandas that does more than count.

        Raises:
            ArgumentError: Inputs that the method cannot take, such as a table with columns of text, or a
                network that was made in inference mode.
            ShapeError: Inputs without a common batch axis, another number of targets than inputs, a
                baseline of another shape, or another number of names than columns or inputs.
            UnitError: A target that the output does not have; the nearest names are said.
            NonFiniteError: Scores that are NaN or infinite.
        """
        if isinstance(inputs, str):
            raise NotATensorError(
                f"inputs is a tensor, an array or a table, got {shown(inputs)}: texts are explained by "
                f"token_attribution(model, tokenizer, text)"
            )
        given = inputs
        inputs, names = named(inputs, self.model, feature_names, row_names)
        fitted = getattr(self.model, "feature_names", None)
        baselines = in_order(baselines, given, fitted, names.features)
        classes = () if class_names is None else tuple(as_names(class_names))
        result, data = self._attributed(inputs, target, baselines, names=names, classes=classes)
        return replace(result, feature_names=names.features, row_names=names.rows, data=data)

    @checked
    def _attributed(
        self, inputs: Inputs, target: Targets, baselines: BaselineLike, *, names: Any, classes: Any
    ) -> tuple[Attribution, Tensor | None]:
        """The attribution, and the inputs if they are a table."""
        names.check(inputs)
        warn_of_itself(baselines, inputs)
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
                layer=self.layer,
                preprocess=self.preprocess,
                differentiates=self.differentiates,
                batch_size=self.batch_size,
                baselines=baselines,
                class_names=classes,
            )
            check_inputs(problem, self.batch_size)
            result = self.attribute(problem, baselines)
            output = result.output.T if result.several else result.output[:, None]
            absent = result.baseline_output
            largest = 0.0 if absent is None else float(absent.abs().max())
            result = replace(result, repeat_gap=repeated_gap(problem, output, largest))
        (first, *_) = parts_of(problem.inputs)
        numbers = first.is_floating_point() or names.features is not None
        table = self.layer is None and first.dim() == 2 and isinstance(inputs, Tensor) and numbers
        return result, first.cpu() if table else None

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

        Raises:
            NonFiniteError: Scores that are NaN or infinite.
        """
        check_scores(output, "the scores of the inputs")
        if baseline_output is not None:
            check_scores(baseline_output, "the scores of the baselines")
        warn_of_infinite(values, type(self).__name__, self.differentiates)
        self.warn_if_vanished(problem, values, output)
        return Attribution(
            problem.restore(values),
            problem.per_input(output),
            None if baseline_output is None else problem.per_input(baseline_output),
            None if standard_error is None else problem.restore(standard_error),
            method=type(self).__name__,
            names=target_names(problem.targets, problem.classes),
            classes=None if problem.several else classes_of_rows(problem.targets, problem.classes),
            seed=getattr(self, "seed", None),
            several=problem.several,
            complete=self.complete,
        )

    def warn_if_vanished(self, problem: Problem, values: Sequence[Tensor], output: Tensor) -> None:
        """Warns where contributions are zero by construction, whatever the network has learned.

        Args:
            problem: The network and its inputs.
            values: Contributions, each (T, N, ...), one tensor for each of the problem's.
            output: (N, T) scores at the inputs.
        """
        compares = self.complete or not self.differentiates
        warn_if_unused(problem, values, output, self.differentiates, compares)

    @checked
    def with_model(self, model: nn.Module, layer: Layers) -> Self:
        """Returns a copy of the method with the same settings, for another network.

        Args:
            model: The other network.
            layer: The layer of it that is attributed to, or several in a list; None for the inputs.

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
            resolve(model, layers_of(layer))
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
        text = f"{type(self).__name__}({', '.join([type(self.model).__name__, *shown])})"
        return shortened(text, LINE)


def _of_a_problem(attribute: Callable[..., Attribution]) -> Callable[..., Attribution]:
    """The method's `attribute`, which says what to call where it is given inputs, as captum's takes them."""

    @wraps(attribute)
    def attributing(self: Method, *args: Any, **kwargs: Any) -> Attribution:
        if not isinstance(args[0] if args else kwargs.get("problem"), Problem):
            raise ArgumentError(
                f"attribute is what a new method defines: call the method, as "
                f"{type(self).__name__}(model)(inputs, target, baselines)"
            )
        return attribute(self, *args, **kwargs)

    return attributing


def _equal(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, int | float | str) and value == default)


def _short(value: Any) -> str:
    """A setting as `repr` shows it: tensors by their shapes, classes and functions by their names."""
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return getattr(value, "__name__", None) or repr(value)
