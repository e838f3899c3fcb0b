"""Follows a forward pass function by function, and lets differences from a baseline pass through each.

Two passes are made: one of the baseline, in which the inputs of functions are noted, and one of the inputs,
in which each function that is not linear follows its rule. Only the second is differentiated, so the cost is
about that of an ordinary gradient and one forward pass. Functions are told apart by their canonical names,
wherever they are called: in modules, as functions, in place, again and again.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import ArgumentError
from ...core.function_kinds import ELEMENTWISE
from ...core.functions import Function, canonical_name, intercepted, overwrites, tensors_among
from ...core.untracked import Untracked, transformed
from ...core.user_warnings import warn
from .calls import Call, NotDecomposed, is_parameter
from .decompositions import DECOMPOSITIONS as FUNCTIONS
from .losses import LOSSES
from .operations import LINEAR, RULES, UNSEEN
from .orders import ORDERS
from .recurrent import RECURRENT

Unknown = Literal["error", "warn"]
DECOMPOSITIONS = FUNCTIONS | LOSSES | ORDERS | RECURRENT


def propagate(
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor, ...],
    unknown: Unknown = "error",
) -> tuple[Tensor, Tensor]:
    """Returns a function at the inputs, with a graph whose gradients are multipliers, and at the baselines.

    Args:
        function: From the inputs to scores; it makes the same calls for both.
        inputs: Leaves that require gradients.
        baselines: Of the same shapes.
        unknown: ``"error"``, or ``"warn"`` to pass an operation without a rule by its gradient.

    Raises:
        ArgumentError: An operation without a rule, or another way through the network at the baseline.

    Example:
        >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> y, y0 = propagate(lambda x: (x * x).sum(), (x,), (torch.zeros(2),))
        >>> torch.autograd.grad(y, x)[0] * (x.detach() - 0), y.item() - y0.item()
        (tensor([1., 9.]), 10.0)
    """
    propagation = _Propagation(unknown)
    # clones, since a network may work in place on what it is given
    with torch.no_grad(), propagation.following():
        at_baseline = function(*(tensor.clone() for tensor in baselines))
    propagation.recalls, propagation.untracked = True, Untracked()
    with torch.enable_grad(), _once(), propagation.following():
        output = function(*(tensor.clone() for tensor in inputs))
    if untracked := propagation.untracked.described(output):
        propagation.miss(untracked)
    return output, at_baseline


@contextmanager
def _once() -> Iterator[None]:
    """Raises an error where something would run again in the backward pass, where no mode would see it."""
    message = (
        "the network stores what it needs for gradients by hooks, as checkpoints do, and what runs again in "
        "the backward pass follows no rule: switch gradient checkpointing off"
    )
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(message):
            yield
    except RuntimeError as error:
        if message in str(error):
            raise ArgumentError(message) from error
        raise


class _Propagation:
    """Handles the functions of both passes: it notes tensors in the first and recalls them in the second."""

    def __init__(self, unknown: Unknown) -> None:
        self.unknown = unknown
        self.notes: deque[tuple[str, list[Tensor]]] = deque()
        self.recalls = False
        self.untracked = Untracked()

    def following(self) -> AbstractContextManager[None]:
        """Returns a block in which functions follow their rules."""
        # made anew each time: a mode that is kept would keep the notes alive, as part of a cycle
        return intercepted(self._tracked if self.recalls else self._handle)

    def _tracked(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self.untracked:
            return self._handle(function, args, kwargs)

    def _handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, _ = canonical_name(function)
        if name in UNSEEN:
            return function(*args, **kwargs)
        if self.recalls and transformed((*args, *kwargs.values())):
            self.miss(f"{name!r} under torch.vmap or another transform of torch.func")
            return function(*args, **kwargs)
        if name in LINEAR:
            return self._linear(function, name, args, kwargs)
        known = name in RULES or name in DECOMPOSITIONS
        if not known or not overwrites(function, kwargs):
            return self._apply(Call(self, function, name, args, kwargs))
        written = args[0] if args else kwargs["input"]
        if name in ELEMENTWISE and (written.requires_grad or not self.recalls):
            return self._apply(Call(self, function, name, args, kwargs, in_place=True))
        options = {key: value for key, value in kwargs.items() if key != "inplace"}
        value = self._apply(Call(self, _out_of_place(function, name), name, args, options))
        with torch._C.DisableTorchFunction():
            return written.copy_(value)

    def recall(self, name: str, values: list[Tensor]) -> list[Tensor] | None:
        """Returns the tensors of the same call in the pass of the baselines, None in that pass itself."""
        if not self.recalls:
            # a parameter stays what it is, others may be overwritten later
            kept = [value if is_parameter(value) else value.clone() for value in values]
            self.notes.append((name, kept))
            return None
        noted, kept = self.notes.popleft() if self.notes else ("the end", [])
        if noted != name or [value.shape for value in values] != [value.shape for value in kept]:
            shapes = [[tuple(value.shape) for value in tensors] for tensors in (values, kept)]
            raise ArgumentError(
                f"the network takes another way at the baseline: {name!r} of {shapes[0]} is {noted!r} of "
                f"{shapes[1]} there"
            )
        return kept

    def miss(self, what: str) -> None:
        """Says that no rule covers something.

        Raises:
            ArgumentError: Unknown functions are errors.
        """
        message = (
            f"no rule for {what}, which the output depends on: contributions would not add up. "
            "Known are sums, products, linear maps, elementwise functions, max-pooling, softmax, "
            "normalizations, attention, recurrent layers, losses, and what is picked by its rank"
        )
        if self.unknown == "error":
            raise ArgumentError(f"{message}. With unknown='warn' its gradient is used")
        warn(message)

    def _apply(self, call: Call) -> Any:
        """Applies the rule of a function, or follows the functions that it decomposes into."""
        if call.name in RULES:
            return RULES[call.name](call)
        if call.name in DECOMPOSITIONS:
            with suppress(NotDecomposed), self.following():
                return DECOMPOSITIONS[call.name](*call.args, **call.kwargs)
        return call.unknown()

    def _linear(self, function: Function, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A linear function, unless what it chooses, by a mask or by indices, depends on the input."""
        tensors = tensors_among((*args, *kwargs.values()))
        choices = [tensor for tensor in tensors if not tensor.dtype.is_floating_point]
        noted = self.recall(name, choices) if choices else None
        if noted is not None and not all(map(torch.equal, choices, noted)):
            call = Call(self, function, name, args, kwargs)
            return call.unknown(" with a choice that depends on the input")
        return function(*args, **kwargs)


def _out_of_place(function: Function, name: str) -> Function:
    """The function that does not overwrite its first argument."""
    if not canonical_name(function)[1]:
        return function  # an argument tells it to, which is left out
    return next((getattr(home, name) for home in (torch, Tensor, F) if hasattr(home, name)), function)
