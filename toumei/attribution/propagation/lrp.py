"""Layer-wise relevance propagation (Bach et al., 2015) by captum, on a copy of the network."""

from collections import Counter, OrderedDict
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError, ArgumentError
from ...core.function_kinds import DROPOUTS, LAYOUT, PROPERTIES
from ...core.functions import Function, canonical_name, intercepted
from ...core.hooks import hooked
from ...core.untracked import Untracked
from ..base.backward import leaves_of
from ..base.baselines import BaselineLike
from ..base.inputs import Preprocess
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from .lrp_scaling import Scaling, uses

_LAYERS = {
    nn.Linear: "linear",
    nn.Conv2d: "conv2d",
    nn.BatchNorm2d: "batch_norm",
    nn.AvgPool2d: "avg_pool2d",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d",
    nn.MaxPool1d: "max_pool1d",
    nn.MaxPool2d: "max_pool2d",
    nn.MaxPool3d: "max_pool3d",
}
_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}
_KNOWN = {**_LAYERS, **_ACTIVATIONS}
_PASSING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
# What relevance passes through as gradients do: laying out, picking, joining, and cutting at zero.
_OTHERS = "cat stack getitem gather index_select narrow detach identity relu requires_grad_"
_HARMLESS = LAYOUT | PROPERTIES | DROPOUTS | frozenset(_OTHERS.split())


class LRP(Method):
    """Layer-wise relevance propagation with the epsilon rule: the score, handed back in shares of each sum.

    Without biases and with a small epsilon the relevances add up to the score; for ReLU networks they are the
    gradient times the input then (Shrikumar et al., 2016). captum propagates, which knows chains of linear
    and convolutional layers, batch normalization, pooling, ReLU, tanh and dropout. A layer that only scales
    and shifts each number by constants, such as a normalization of pictures, hands all relevance on.
    Anything else is an error, such as the sums of residual networks, through which captum would count
    relevance twice.

    Args:
        model: The network.
        preprocess: Applied to the inputs before the network; what it does must be known, too, as that of a
            module with such layers is.
        epsilon: Added to sums before relevance is shared among their terms, away from zero.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
        >>> x = torch.randn(5, 4)
        >>> torch.allclose(LRP(model)(x, target=1).sums.float(), model(x)[:, 1], atol=1e-5)
        True
    """

    differentiates = True

    def __init__(
        self, model: nn.Module, preprocess: Preprocess | None = None, *, epsilon: float = 1e-9
    ) -> None:
        super().__init__(model, None, preprocess)
        if not epsilon >= 0:
            raise ArgumentError(f"epsilon is a number from 0 on, got {epsilon}")
        self.epsilon = epsilon

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the relevances.

        Args:
            problem: The network and its inputs.
            baselines: Not used.

        Raises:
            ArchitectureError: A layer or function that captum's rules do not cover.
            ArgumentError: Inputs in a dictionary or of whole numbers, or a target that is not an index.
        """
        if isinstance(problem.inputs, dict):
            raise ArgumentError("LRP takes a tensor or a tuple of tensors")
        if any(not (target is None or isinstance(target, int | Tensor)) for target in problem.targets):
            raise ArgumentError("a target of LRP is the index of an output")
        from captum.attr import LRP as CaptumLRP
        from captum.attr._utils.lrp_rules import EpsilonRule, IdentityRule

        network = _Network(problem)
        _check(network, problem)
        relevances = []
        for index in range(len(problem.targets)):
            network.target = index
            for layer in network.model.modules():
                if type(layer) in _LAYERS:
                    layer.rule = EpsilonRule(epsilon=self.epsilon)
                elif isinstance(layer, Scaling):
                    layer.rule = IdentityRule()
            leaves = tuple(leaves_of(problem.tensors))
            relevance = CaptumLRP(network).attribute(leaves)
            relevances.append(relevance if isinstance(relevance, tuple) else (relevance,))
        values = [torch.stack(parts) for parts in zip(*relevances, strict=True)]
        problem.reached.update(range(len(values)))
        return self.result(problem, values, problem.outputs(problem.tensors, self.batch_size))


class _Network(nn.Module):
    """A copy of the network, in a form that captum takes, that returns the scores of one target."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model = deepcopy(problem.model)
        if isinstance(problem.preprocess, nn.Module) and len(problem.tensors) == 1:
            # its layers have rules, as those of the network
            preprocess = deepcopy(problem.preprocess).requires_grad_(False)
            problem = replace(problem, preprocess=None)
            self.model = nn.Sequential(OrderedDict(preprocess=preprocess, model=self.model))
        if not list(self.model.children()):
            self.model = nn.Sequential(self.model)
        for name, layer in list(self.model.named_modules(remove_duplicate=False)):
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
            if isinstance(layer, _PASSING):
                self._put(name, _Passing(layer))
            elif type(layer) not in _KNOWN and not list(layer.children()):
                self._put(name, Scaling(layer))
        self.problem = (replace(problem, model=self.model),)  # in a tuple: not a part of this module
        self.target = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.problem[0].scores(inputs)[:, self.target]

    def _put(self, name: str, layer: nn.Module) -> None:
        parent, _, attribute = name.rpartition(".")
        setattr(self.model.get_submodule(parent), attribute, layer)


class _Passing(nn.Module):
    """A layer that relevance passes through as gradients do.

    captum looks at modules without children only and has no rule for this one, so it is given a child that
    never runs.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = (layer,)
        self.never = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        passed: Tensor = self.layer[0](x)
        return passed


class _Functions:
    """Counts the functions that a forward pass calls of tensors that depend on the input."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()
        self.untracked = Untracked()

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns what the function returns, and counts it."""
        with self.untracked:
            output = function(*args, **kwargs)
        if isinstance(output, Tensor) and output.requires_grad:
            self.called[canonical_name(function)[0]] += 1
        return output


def _check(network: _Network, problem: Problem) -> None:
    """Raises an error where captum would propagate wrongly or not at all."""
    layers = {name: layer for name, layer in network.model.named_modules() if not list(layer.children())}
    with torch.enable_grad():
        leaves, functions = leaves_of(problem.tensors), _Functions()
        with (
            intercepted(functions.handle),
            hooked(network.model, list(layers), every=True, detach=True) as activations,
        ):
            scores = network.problem[0].scores(leaves)
    if untracked := functions.untracked.described(scores):
        raise ArchitectureError(f"LRP has no rule for {untracked}: relevance would not be conserved")
    known: Counter[str] = Counter()
    for name in activations:
        layer = layers[name]
        if isinstance(layer, Scaling):
            _check_scaling(name, layer, scores)
            known += layer.called
        else:
            known[_KNOWN[type(layer)]] += 1
        if type(layer) not in _ACTIVATIONS and len(activations.calls(name)) > 1:
            raise ArchitectureError(f"LRP needs every layer to run once: {name!r} runs again and again")
    for function, count in functions.called.items():
        if function not in _HARMLESS and count > known[function]:
            raise ArchitectureError(
                f"LRP has no rule for {function!r} outside of a module: relevance would not be conserved"
            )


def _check_scaling(name: str, layer: Scaling, scores: Tensor) -> None:
    """Raises an error where a layer does more than to scale, or is not alone with its input."""
    if not layer.scales:
        names = ", ".join(kind.__name__ for kind in (*_KNOWN, *_PASSING))
        raise ArchitectureError(
            f"LRP has no rule for the layer {name!r}, a {type(layer.layer[0]).__name__}: it knows {names}, "
            f"and layers that only scale and shift each number by constants"
        )
    if uses(scores, layer.source) > 1:
        raise ArchitectureError(
            f"LRP needs the layer {name!r}, which scales, to be alone with its input: others take it too"
        )
