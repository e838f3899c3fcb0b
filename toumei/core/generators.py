"""Generators from which functions of torch draw in one thread, in place of the global ones."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import RLock, local
from typing import Any

import torch
from torch import Tensor

from .functions import Function, canonical_name, intercepted, tensors_among
from .interrupts import locked, until_the_end

_TAKERS = (
    "rand randn randint randperm normal bernoulli multinomial poisson binomial uniform exponential cauchy "
    "log_normal geometric random bernoulli_ normal_ standard_gamma sample_dirichlet "
    "kaiming_uniform kaiming_normal xavier_uniform xavier_normal trunc_normal"
)
_OTHERS = (
    "dropout1d dropout2d dropout3d alpha_dropout feature_dropout "
    "feature_alpha_dropout native_dropout fused_dropout rrelu rrelu_with_noise gumbel_softmax "
    "fractional_max_pool2d fractional_max_pool3d lstm gru rnn_tanh rnn_relu svd_lowrank pca_lowrank lobpcg "
    "multi_head_attention_forward rand_like randn_like randint_like"
)
# Functions that draw, by their canonical names, and whether they take a generator.
_DRAW = {**dict.fromkeys(_TAKERS.split(), "takes one"), **dict.fromkeys(_OTHERS.split(), "takes none")}
_DRAW |= {"scaled_dot_product_attention": "attention", "dropout": "dropout"}
_swapping = RLock()


class Generators:
    """A generator for each device.

    Args:
        seed: The seed of each. Without one they begin where the generators of this thread are now.

    Example:
        >>> generators = Generators(3)
        >>> first, second = torch.rand(2, generator=generators.on(torch.device("cpu"))), torch.rand(2)
        >>> with drawing_from(Generators(3)):
        ...     torch.equal(torch.rand(2), first)
        True
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed, self._before, self._process = seed, current(), os.getpid()
        self._made: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device) -> torch.Generator:
        """Returns the generator of a device."""
        device = _with_index(device)
        if device not in self._made:
            generator = torch.Generator(device)
            if self._seed is None:
                generator.set_state(state_of(self._before, device))
            else:
                generator.manual_seed(self._seed)
            self._made[device] = generator
        return self._made[device]

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function, which draws from these generators."""
        kind = _kind(function)
        if kind is None or not _draws(kind, args, kwargs) or not self._is_meant():
            return function(*args, **kwargs)
        device = _device(args, kwargs)
        if device.type == "meta":
            return function(*args, **kwargs)
        generator = self.on(device)
        if kind == "takes one":
            return function(*args, **{**kwargs, "generator": generator})
        if kind == "dropout":
            return _dropout(generator, *args, **kwargs)
        with locked(_swapping), until_the_end() as cleanup:
            before = state_of(None, device)
            cleanup.add(lambda: set_state_of(None, device, before))
            set_state_of(None, device, generator.get_state())
            value = function(*args, **kwargs)
            generator.set_state(state_of(None, device))
        return value

    def _is_meant(self) -> bool:
        """Whether no inner block has other generators; workers of a DataLoader have a seed each."""
        return current() is self and os.getpid() == self._process

    def states(self) -> dict[torch.device, Tensor]:
        """Returns the states of the generators that have been used."""
        return {device: generator.get_state() for device, generator in self._made.items()}

    def set_states(self, states: Mapping[torch.device, Tensor]) -> None:
        """Goes back to states."""
        for device in list(self._made):
            if device in states:
                self._made[device].set_state(states[device])
            else:
                del self._made[device]  # it begins anew


@dataclass(frozen=True, eq=False)
class Draw:
    """Where a call of a function draws random numbers from, and the state there before the call.

    Attributes:
        generator: The generator among its arguments, or None for that of the thread.
        device: Where it draws.
        state: The state before the call.
        seeded: Whether the thread drew from `Generators`, not from the global ones.
    """

    generator: torch.Generator | None
    device: torch.device
    state: Tensor
    seeded: bool = False

    @contextmanager
    def again(self) -> Iterator[None]:
        """Lets the call draw the same numbers in the block; what it draws from is left in another state."""
        if self.generator is not None:
            self.generator.set_state(self.state)
            yield
        elif self.seeded:
            generators = Generators(0)
            generators.on(self.device).set_state(self.state)
            with drawing_from(generators):
                yield
        else:
            set_state_of(None, self.device, self.state)
            with drawing_from(None):
                yield


def draw_of(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Draw | None:
    """Returns where a call draws from, before it runs; None where it draws nothing.

    Example:
        >>> draw = draw_of(torch.rand, (2,), {})
        >>> first = torch.rand(2)
        >>> with draw.again():
        ...     torch.equal(torch.rand(2), first)
        True
        >>> print(draw_of(torch.nn.functional.dropout, (first, 0.5, False), {}))
        None
    """
    given = kwargs.get("generator")
    if given is not None:
        return Draw(given, given.device, given.get_state())
    kind = _kind(function)
    if kind is None or not _draws(kind, args, kwargs):
        return None
    device = _device(args, kwargs)
    if device.type == "meta":
        return None
    generators = current()
    return Draw(None, device, state_of(generators, device), generators is not None)


class _Current(local):
    def __init__(self) -> None:
        self.generators: list[Generators | None] = []


_current = _Current()


def current() -> Generators | None:
    """Returns the generators from which this thread draws; None means the global ones."""
    return _current.generators[-1] if _current.generators else None


@contextmanager
def drawing_from(generators: Generators | None) -> Iterator[None]:
    """Makes functions of torch draw from some generators in the block, in this thread.

    Code of TorchScript, which calls no functions of torch, draws from the global generators all the same.

    Args:
        generators: The generators; None means the global ones, also inside a block of others.
    """
    with until_the_end() as cleanup:
        depth = len(_current.generators)
        cleanup.add(lambda: _current.generators.__delitem__(slice(depth, None)))
        _current.generators.append(generators)
        if generators is None:
            yield
            return
        with intercepted(generators.handle):
            yield


def rewinding(device: torch.device) -> Callable[[], None]:
    """Returns a function that goes back to the current states of the generators that this thread draws from.

    Args:
        device: The device whose generator counts, with the CPU's.
    """
    generators = current()
    if generators is not None:
        states = generators.states()
        return lambda: generators.set_states(states)
    return rewinding_global(device)


def rewinding_global(device: torch.device) -> Callable[[], None]:
    """Returns a function that goes back to the current states of the global generators.

    Args:
        device: The device whose generator counts, with the CPU's.
    """
    devices = {torch.device("cpu"), _with_index(device)}
    before = {one: state_of(None, one) for one in devices if one.type != "meta"}

    def rewind() -> None:
        for one, state in before.items():
            set_state_of(None, one, state)

    return rewind


def state_of(generators: Generators | None, device: torch.device) -> Tensor:
    """Returns the state of a generator of a device; None means the global ones."""
    if generators is not None:
        return generators.on(device).get_state()
    if device.type == "cpu":
        return torch.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def set_state_of(generators: Generators | None, device: torch.device, state: Tensor) -> None:
    """Sets what `state_of` returns."""
    if generators is not None:
        generators.on(device).set_state(state)
    elif device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)


@lru_cache(maxsize=4096)
def _kind(function: Function) -> str | None:
    name = canonical_name(function)[0]
    return "takes one" if name in _DRAW and name.endswith("_like") and _like_takes_one() else _DRAW.get(name)


def _like_takes_one() -> bool:
    """Whether `torch.rand_like` and its kin take a generator, as they do in newer versions of torch."""
    try:
        torch.rand_like(torch.empty(0), generator=torch.Generator())
    except TypeError:
        return False
    return True


def _draws(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call may draw, and was not given a generator."""
    if kind == "attention":
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0))
    if kind == "dropout" and len(args) > 2 and not args[2]:
        return False
    return kwargs.get("generator") is None and kwargs.get("training") is not False


def _dropout(
    generator: torch.Generator,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    train: bool = True,
) -> Tensor:
    """`F.dropout` and `torch.dropout`, which take no generator: the same numbers on the CPU."""
    if not (training and train and p):
        return input
    kept = torch.empty_like(input).bernoulli_(1 - p, generator=generator)
    if p < 1:
        kept /= 1 - p
    return input.mul_(kept) if inplace else input * kept


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """The device on which a function draws."""
    tensors = tensors_among((*args, *kwargs.values()))
    if tensors:
        return tensors[0].device
    given = kwargs.get("device")
    return torch.get_default_device() if given is None else torch.device(given)


def _with_index(device: torch.device) -> torch.device:
    index: int | None = device.index
    if device.type in ("cpu", "meta") or index is not None:
        return device
    return torch.device(device.type, torch.get_device_module(device).current_device())
