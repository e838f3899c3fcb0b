"""Follows a forward pass function by function, and lets differences from a baseline pass through each.

Two passes are made: one of the baseline, in which the inputs of functions are noted, and one of the inputs,
in which each function that is not linear follows its rule. Only the second is differentiated, so the cost is
about that of an ordinary gradient and one forward pass. Functions are told apart by name, wherever they are
called: in modules, as functions, in place, again and again.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...core.errors import ArgumentError
from ...core.functions import canonical_name
from ...core.untracked import Untracked
from .decompositions import COMPOSITIONS
from .operations import ELEMENTWISE, LINEAR, RULES, UNSEEN

Unknown = Literal["error", "warn"]


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
    mode = _Propagation(unknown)
    # clones, since a network may work in place on what it is given
    with torch.no_grad(), mode:
        at_baseline = function(*(tensor.clone() for tensor in baselines))
    mode.recalls, mode.strangers = True, Untracked()
    with torch.enable_grad(), _once(), mode:
        output = function(*(tensor.clone() for tensor in inputs))
    strangers = mode.strangers.among(output)
    if strangers:
        mode.miss(f"{', '.join(map(repr, strangers))} (of TorchScript, or a custom function of autograd)")
    return output, at_baseline


@contextmanager
def _once() -> Iterator[None]:
    """Within it nothing may be left to run again in the backward pass, where no mode would see it."""
    message = (
        "the network keeps what it needs for gradients by hooks of its own, as checkpoints do, and what runs "
        "again in the backward pass follows no rule: switch gradient checkpointing off"
    )
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(message):
            yield
    except RuntimeError as error:
        if message in str(error):
            raise ArgumentError(message) from error
        raise


@dataclass(slots=True)
class Call:
    """One call of a function in a forward pass.

    Attributes:
        mode: The mode that saw it.
        function: What is called.
        name: Its name, the same for a function, a method and an operator.
        args: Its positional arguments.
        kwargs: Its other arguments.
        in_place: Whether it overwrites its first argument.
        tensors: The arguments that are tensors, by place or name.
    """

    mode: "_Propagation"
    function: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    in_place: bool = False
    tensors: dict[int | str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = {place: own for place, own in enumerate(self.args) if isinstance(own, Tensor)}
        if self.kwargs:
            self.tensors.update((n, own) for n, own in self.kwargs.items() if isinstance(own, Tensor))

    def run(self, replaced: Mapping[int | str, Any] | None = None) -> Any:
        """Returns what the function returns, with other arguments in some places."""
        if not replaced:
            return self.function(*self.args, **self.kwargs)
        args = [replaced.get(place, own) for place, own in enumerate(self.args)]
        return self.function(*args, **{name: replaced.get(name, own) for name, own in self.kwargs.items()})

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Returns an argument that may be given by its place or its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def moving(self) -> list[int | str]:
        """Returns the places of tensors that depend on the input."""
        return [place for place, own in self.tensors.items() if _moves(own)]

    def linear(self) -> bool:
        """Returns whether a product is linear, since all its factors but one are parameters."""
        return sum(not _parameter(own) for own in self.tensors.values()) < 2

    def noted(self) -> dict[int | str, Tensor] | None:
        """Returns the tensors of the same call in the baseline's pass; None in that pass itself."""
        own = self.mode.recall(self.name, list(self.tensors.values()))
        return None if own is None else dict(zip(self.tensors, own, strict=True))

    def unknown(self, why: str = "") -> Any:
        """Returns what the function returns, after the error or warning that no rule covers it.

        Raises:
            ArgumentError: It depends on the input, and only a warning was not asked for.
        """
        output = self.run()
        if self.mode.recalls and any(map(_moves, _tensors([output]))):
            self.mode.miss(f"{self.name!r}{why}")
        return output


class _Propagation(TorchFunctionMode):
    """The mode of both passes: it notes tensors in the first and recalls them in the second."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__()
        self.unknown = unknown
        self.notes: deque[tuple[str, list[Tensor]]] = deque()
        self.recalls = False
        self.strangers = Untracked()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not self.recalls:
            return self._seen(func, args, kwargs or {})
        with self.strangers:
            return self._seen(func, args, kwargs or {})

    def _seen(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, in_place = canonical_name(getattr(func, "__name__", None) or str(func))
        if name in UNSEEN:
            return func(*args, **kwargs)
        if self.recalls and _transformed((*args, *kwargs.values())):
            self.miss(f"{name!r} under torch.vmap or another transform of torch.func")
            return func(*args, **kwargs)
        if name in LINEAR:
            return self._linear(func, name, args, kwargs)
        known = name in RULES or name in COMPOSITIONS
        if not known or not (in_place or kwargs.get("inplace")):
            return self._follow(Call(self, func, name, args, kwargs))
        written = args[0] if args else kwargs["input"]
        if name in ELEMENTWISE and (written.requires_grad or not self.recalls):
            return self._follow(Call(self, func, name, args, kwargs, in_place=True))
        options = {key: value for key, value in kwargs.items() if key != "inplace"}
        value = self._follow(Call(self, _out_of_place(func, name), name, args, options))
        with torch._C.DisableTorchFunction():
            return written.copy_(value)

    def recall(self, name: str, values: list[Tensor]) -> list[Tensor] | None:
        """Returns what was noted of the same call at the baseline; None in the baseline's own pass."""
        if not self.recalls:
            # a parameter stays what it is, others may be overwritten later
            kept = [own if _parameter(own) else own.clone() for own in values]
            self.notes.append((name, kept))
            return None
        noted, own = self.notes.popleft() if self.notes else ("the end", [])
        if noted != name or [value.shape for value in values] != [value.shape for value in own]:
            shapes = [[tuple(value.shape) for value in tensors] for tensors in (values, own)]
            raise ArgumentError(
                f"the network takes another way at the baseline: {name!r} of {shapes[0]} is {noted!r} of "
                f"{shapes[1]} there"
            )
        return own

    def miss(self, what: str) -> None:
        """Says that no rule covers something.

        Raises:
            ArgumentError: Only a warning was not asked for.
        """
        message = (
            f"no rule for {what}, which the output depends on: contributions would not add up. "
            "Known are sums, products, linear maps, elementwise functions, max-pooling, softmax, "
            "normalizations and attention"
        )
        if self.unknown == "error":
            raise ArgumentError(f"{message}. With unknown='warn' its gradient is used")
        warnings.warn(message, stacklevel=2)

    def _follow(self, call: Call) -> Any:
        if call.name in RULES:
            return RULES[call.name](call)
        if call.name in COMPOSITIONS:
            with self:
                value = COMPOSITIONS[call.name](*call.args, **call.kwargs)
            if value is not NotImplemented:
                return value
        return call.unknown()

    def _linear(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A linear function, unless what it chooses, by a mask or by indices, depends on the input."""
        choices = [own for own in _tensors((*args, *kwargs.values())) if not own.dtype.is_floating_point]
        noted = self.recall(name, choices) if choices else None
        if noted is not None and not all(map(torch.equal, choices, noted)):
            return Call(self, func, name, args, kwargs).unknown(" with a choice that depends on the input")
        return func(*args, **kwargs)


def _moves(tensor: Tensor) -> bool:
    """Whether it depends on the input."""
    return tensor.requires_grad and not _parameter(tensor)


def _parameter(tensor: Tensor) -> bool:
    """Whether it is a parameter or a part of one, such as the weights of queries among those of attention."""
    base = tensor._base
    return issubclass(type(tensor if base is None else base), nn.Parameter)


def _transformed(values: Iterable[Any]) -> bool:
    """Whether a transform of functions, such as `torch.vmap`, hides what depends on the input."""
    functorch = torch._C._functorch
    return functorch.peek_interpreter_stack() is not None and any(
        functorch.is_functorch_wrapped_tensor(own) and functorch.get_unwrapped(own).requires_grad
        for own in _tensors(values)
    )


def _out_of_place(func: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function that does not overwrite its first argument."""
    plain = getattr(func, "__name__", name)
    if plain.endswith("_"):
        found = next((getattr(home, name) for home in (torch, Tensor, F) if hasattr(home, name)), None)
        return func if found is None else found
    return func  # told by an argument, which is left out


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among values, also those in lists and tuples."""
    found = []
    for own in values:
        if isinstance(own, Tensor):
            found.append(own)
        elif isinstance(own, list | tuple):
            found += _tensors(own)
    return found
