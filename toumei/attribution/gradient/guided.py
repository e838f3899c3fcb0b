"""Gradients that pass an activation only where they are positive."""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.function_kinds import RECTIFIERS, rectifier_ceiling
from ...core.functions import Function, canonical_name, intercepted, tensors_among
from ...core.untracked import Untracked
from ...core.user_warnings import warn
from ..base.backward import leaves_of
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.problem import Problem
from .gradients import Saliency

_NAMES = """
tanh sigmoid hardsigmoid hardtanh log_sigmoid softsign tanhshrink hardshrink softshrink threshold
abs clamp clamp_min clamp_max erf atan
"""
_ACTIVATIONS = frozenset(_NAMES.split())
_GREATER = frozenset(("maximum", "max", "fmax"))
_COMPARISONS = frozenset(("gt", "ge", "lt", "le"))


class GuidedBackprop(Saliency):
    """Guided backpropagation: negative gradients stop at every ReLU (Springenberg et al., 2014).

    Pictures are sharp, but hardly depend on what the network has learned (Adebayo et al., 2018). ReLUs are
    found where they are called, under any name: modules, functional, shared or in place, ``clamp(min=0)``.
    ``maximum(x, 0)``. Smooth and leaky relatives, such as GELU and SiLU, stop negative gradients too. A
    warning names what may be a rectifier and is not known as one: products with ``x > 0``, TorchScript and
    custom functions of autograd, or, without any rectifier, other activations.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        absolute: Take absolute values.
        batch_size: How many inputs pass through the network at a time.

    Example:
        >>> relu = nn.ReLU()
        >>> method = GuidedBackprop(nn.Sequential(relu, nn.Linear(2, 1), relu))
        >>> method(torch.randn(5, 2)).values.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        absolute: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model, layer, preprocess, absolute=absolute, batch_size=batch_size)

    def gradients(self, problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (N, T) and the guided gradients, each (T, N, ...)."""
        leaves, guide = leaves_of(problem.tensors), _Guide()
        with intercepted(guide.handle):
            with torch.enable_grad():
                scores = problem.scores(leaves)
            guide.warn(scores)
            return scores.detach(), problem.differentiated(scores, leaves)


class _Positive(torch.autograd.Function):
    """The identity, through which only positive gradients come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


class _Guide:
    """Stops negative gradients at rectifiers, and notes what may be one but is not known as such."""

    def __init__(self) -> None:
        self.found = False
        self.others: dict[str, None] = {}  # activations that are no rectifiers
        self.gated: dict[str, None] = {}  # functions of numbers and of a comparison of numbers with 0
        self.untracked = Untracked()
        self._masks: dict[int, Tensor] = {}

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function; negative gradients stop at a rectifier."""
        name, _ = canonical_name(function)
        with self.untracked:
            if not torch.is_grad_enabled():  # as in the backward pass
                return function(*args, **kwargs)
            if name in RECTIFIERS or rectifier_ceiling(name, args, kwargs) is not None:
                output = _guided(function, args, kwargs)
                self.found |= _moves([output])
                return output
            output = function(*args, **kwargs)
            if name in _GREATER and any(map(_is_zero, tensors_among(args))) and _moves([output]):
                self.found = True
                return _Positive.apply(output)
            self._note(name, [*args, *kwargs.values()], output)
            return output

    def warn(self, scores: Tensor) -> None:
        """Warns of what may be a rectifier that was not found, in the graph of the scores."""
        missed = [f"{name!r} with a comparison with 0" for name in self.gated]
        if untracked := self.untracked.described(scores):
            missed.append(untracked)
        if not self.found and not missed:
            missed = [repr(name) for name in self.others]
        if missed:
            warn(
                f"guided backpropagation {'passes' if self.found else 'found no ReLU, and passes'} "
                f"{', '.join(missed)} by the plain gradient: if it is a rectifier, negative gradients do not "
                f"stop there, as they do at ReLU, clamp(min=0) and maximum(x, 0)"
            )

    def _note(self, name: str, given: list[Any], output: Any) -> None:
        tensors = tensors_among(given)
        masked = any(id(tensor) in self._masks for tensor in tensors)
        if name in _COMPARISONS and _moves(tensors) and any(map(_is_zero, given)):
            self._masks[id(output)] = output
        elif masked and not _moves(tensors) and isinstance(output, Tensor):
            self._masks[id(output)] = output  # converted, or its opposite
        elif masked and _moves(tensors):
            self.gated[name] = None
        elif name in _ACTIVATIONS and _moves([output]):
            self.others[name] = None


def _guided(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a rectifier, where negative gradients stop."""
    x = args[0] if args else kwargs["input"]
    options = {key: value for key, value in kwargs.items() if key != "input"}
    # in place of the copy, if at all: what an activation saves for its backward pass must stay
    copy = x.clone()
    output = function(copy, *args[1:], **options)
    guided = _Positive.apply(output)
    return x.copy_(guided) if output is copy else guided


def _moves(values: Any) -> bool:
    return any(tensor.requires_grad for tensor in tensors_among(values))


def _is_zero(value: Any) -> bool:
    """Whether something is the number 0, or a tensor of zeros that does not depend on the input."""
    if isinstance(value, Tensor):
        return not value.requires_grad and value.numel() > 0 and not bool(value.any())
    return isinstance(value, int | float) and value == 0
