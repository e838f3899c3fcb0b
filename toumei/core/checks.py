"""The checks at the doors: what users give is converted or refused before anything runs.

`checked` reads the annotations of a public function, so that an entry needs no code of its own for them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import wraps
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .call_errors import bound_to
from .conversions import MISFIT, as_whole
from .devices import as_device
from .errors import ArgumentError, NonFiniteError, OutOfMemoryError, ToumeiError
from .kinds import Kind, fits, fitted, kind_of, shown
from .modules import check_model, device_and_dtype, layer_name
from .parameter_kinds import LAYERS, MODEL, kinds_of_parameters

Door = TypeVar("Door", bound=Callable[..., Any])

MOST = 10**8  # no count of anything that is made, kept or run through reaches it
_SEEDS = -(2**63), 2**64
# Whole numbers that are no counts.
_INDICES = frozenset(("seed", "token", "tokens", "position", "channel", "index", "against"))
# Checked where they are used: attention weights may be anything in rows of padding.
_NAN_ELSEWHERE = frozenset(("images", "magnitude", "attentions"))
# Which show NaN, hand it on, or say more of it than that it is there.
_NAN_PASSES = ("toumei.plots", "toumei.core", "toumei.attribution", "toumei.misc")


def checked(door: Door) -> Door:
    """Returns a public function, or a class with its constructor, that checks what it is given.

    Values that do not fit their annotation are refused. Arrays, lists of numbers and tables become tensors,
    in the precision of the model if there is one; modules that are given as layers become their names. Seeds
    have 64 bits, and a count of 100 million or more is refused with what it would cost.

    Example:
        >>> @checked
        ... def total(values: Tensor, samples: int = 1) -> Tensor:
        ...     return values.sum() * samples
        >>> total([1.0, 2.0])
        tensor(3.)
        >>> total([1, 2], samples="8")
        Traceback (most recent call last):
        ...
        toumei.core.errors.ArgumentError: samples is a whole number, got '8'
    """
    if isinstance(door, type):
        if "__init__" not in vars(door):
            return door  # that of its base is checked
        setattr(door, "__init__", checked(vars(door)["__init__"]))  # noqa: B010, of a class that mypy knows nothing of
        return door

    @wraps(door)
    def checking(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _checked_arguments(door, args, kwargs)
        try:
            return door(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, ToumeiError) or not _lacks_memory(error):
                raise
            raise OutOfMemoryError(f"{door.__qualname__} takes more memory than there is: {error}") from error

    return checking  # type: ignore[return-value]


def _lacks_memory(error: Exception) -> bool:
    """Whether memory of the CPU ran out; accelerators have an error of their own, which is left as it is."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def check_seed(seed: int | None) -> None:
    """Raises an error for what is no seed.

    Raises:
        ArgumentError: No whole number of 64 bits, and not None.

    Example:
        >>> check_seed(3)
    """
    if type(seed) is not int:
        seed = fitted("seed", seed, kind_of(int | None))
    if seed is not None and not _SEEDS[0] <= seed < _SEEDS[1]:
        raise ArgumentError(f"a seed is a whole number of 64 bits, got {shown(seed)}")


def check_gradients_on() -> None:
    """Raises an error where torch computes no gradients whatever is asked for.

    Raises:
        ArgumentError: It is called inside of ``torch.inference_mode()``.

    Example:
        >>> check_gradients_on()
    """
    if torch.is_inference_mode_enabled():
        raise ArgumentError("there are no gradients in torch.inference_mode(): call it outside of that block")


def check_no_nan(name: str, value: Any) -> None:
    """Raises an error for NaN in a tensor, or in the tensors of a tuple, a list or a dictionary.

    Raises:
        NonFiniteError: There is NaN in it.

    Example:
        >>> check_no_nan("inputs", torch.tensor([1.0, torch.inf]))
    """
    if isinstance(value, Tensor):
        looked_at = value.is_floating_point() and value.numel() and not (value.is_sparse or value.is_meta)
        if looked_at and bool(value.detach().amin().isnan()):
            raise NonFiniteError(f"{name} has NaN in it: {shown(value)}")
    elif isinstance(value, list | tuple):
        for part in value:
            if isinstance(part, Tensor):
                check_no_nan(name, part)
    elif isinstance(value, dict):
        check_no_nan(name, list(value.values()))


def check_memory(what: str, numbers: int, advice: str, itemsize: int = 4, most: int = 2**33) -> None:
    """Raises an error for what would take more memory than anybody means it to.

    Args:
        what: What it is.
        numbers: How many numbers it holds.
        advice: What to give instead.
        itemsize: Bytes of a number.
        most: Most bytes, 8 GB by default.

    Raises:
        ArgumentError: It would take more.

    Example:
        >>> check_memory("the picture", 10**12, "give a smaller size")
        Traceback (most recent call last):
        ...
        toumei.core.errors.ArgumentError: the picture would take 4,000 GB of memory: give a smaller size
    """
    if numbers * itemsize > most:
        raise ArgumentError(f"{what} would take {numbers * itemsize / 1e9:,.0f} GB of memory: {advice}")


def check_work(what: str, passes: int, size: int, advice: str) -> None:
    """Raises an error where more numbers would go through a network than anybody means to wait for.

    Args:
        what: What is asked for.
        passes: How many inputs go through it.
        size: How many numbers an input has.
        advice: What to give instead.

    Raises:
        ArgumentError: Passes times size is more than 10^12.

    Example:
        >>> check_work("occlusion", 100, 3 * 224 * 224, "give a larger window")
    """
    if passes * size > 10**12:
        raise ArgumentError(f"{what} would take {passes:,} passes of {size:,} numbers each: {advice}")


def layer_names(model: object, layers: Any) -> Any:
    """Returns names for all modules in one or several layers; see `layer_name`."""
    if isinstance(layers, nn.Module):
        return layer_name(model, layers)
    if isinstance(layers, list | tuple) and any(isinstance(layer, nn.Module) for layer in layers):
        return [layer_name(model, layer) for layer in layers]
    return layers


def _checked_arguments(
    door: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, converted.

    Raises:
        ArgumentError: One that does not fit.
    """
    kinds, bind = kinds_of_parameters(door)
    bound = bound_to(door, bind, args, kwargs)
    arguments = bound.arguments
    model = arguments.get("model", getattr(arguments.get("self"), "model", None))
    for name, value in arguments.items():
        if name not in kinds:
            continue
        kind, many = kinds[name]
        if many:
            arguments[name] = tuple(fitted(name, one, kind) for one in value)
            continue
        arguments[name] = _argument(name, value, kind, model)
        if name not in _NAN_ELSEWHERE and not door.__module__.startswith(_NAN_PASSES):
            check_no_nan(name, arguments[name])
    return bound.args, bound.kwargs


def _argument(name: str, value: Any, kind: Kind | None, model: object) -> Any:
    if kind is MODEL:
        check_model(value)
        return value
    if name in LAYERS:
        value = layer_names(model, value)
    taken = fitted(name, _part_of(name, value, kind), kind)
    if name == "device" and taken is not None:
        return as_device(taken)
    if type(taken) is int:
        _check_count(name, taken)
    elif taken is not value and isinstance(model, nn.Module):
        taken = _in_precision_of(model, taken, value)
    return taken


def _part_of(name: str, value: Any, kind: Kind | None) -> Any:
    """The part of a result that has the name of the argument, where that fits and the result does not."""
    if not is_dataclass(value) or isinstance(value, type) or kind is None:
        return value
    part = getattr(value, name, None)
    return value if part is None or fits(kind, value) or not fits(kind, part) else part


def _check_count(name: str, count: int) -> None:
    if name == "seed":
        check_seed(count)
    elif name == "jobs":
        check_jobs(count)
    elif name == "batch_size" and count < 1:
        raise ArgumentError(f"batch_size is a whole number from 1 on, got {shown(count)}")
    elif count >= MOST and name not in _INDICES:
        raise ArgumentError(
            f"{name} is below {MOST:,}, got {shown(count) if count >= 10**30 else f'{count:,}'}: at a "
            f"millisecond each that takes {_days(count)} days"
        )


def _days(milliseconds: int) -> str:
    days = round(min(milliseconds, 10**30) / 86_400_000)
    return f"{days:,}" if milliseconds < 10**30 else f"more than {days:,}"


def _in_precision_of(model: nn.Module, taken: Any, given: Any) -> Any:
    """Tensors that were made of arrays or lists of numbers, in the precision that the weights have."""
    if isinstance(taken, Tensor) and not isinstance(given, Tensor):
        weighted = any(weight.is_floating_point() for weight in chain(model.parameters(), model.buffers()))
        return taken.to(device_and_dtype(model)[1]) if weighted and taken.is_floating_point() else taken
    if isinstance(taken, tuple) and isinstance(given, list | tuple):
        pairs = zip(taken, given, strict=True)
        return tuple(_in_precision_of(model, new, old) for new, old in pairs)
    if isinstance(taken, dict) and isinstance(given, Mapping):
        return {key: _in_precision_of(model, new, given[key]) for key, new in taken.items()}
    return taken


def check_counts(least: int, **counts: int | None) -> None:
    """Raises an error for the first count that is not a whole number from `least` on; None is none given.

    Raises:
        ArgumentError: Something else than a whole number, a smaller one, or 100 million and more.

    Example:
        >>> check_counts(1, batch_size=64, steps=None)
    """
    whole = kind_of(int)
    for name, count in counts.items():
        if count is None:
            continue
        try:
            number = fitted(name, count, whole)
        except ArgumentError:
            number = least - 1
        if number < least:
            raise ArgumentError(f"{name} is a whole number from {least} on, got {shown(count)}")
        _check_count(name, number)


def check_jobs(jobs: int) -> None:
    """Raises an error for what is no number of processes.

    Raises:
        ArgumentError: No whole number from 1 on, and not -1.

    Example:
        >>> check_jobs(-1)
    """
    count = as_whole(jobs)
    if count is MISFIT or (count < 1 and count != -1):
        raise ArgumentError(f"jobs is a whole number from 1 on, or -1 for one a core, got {shown(jobs)}")


def answer_of(name: str, answer: Any) -> bool:
    """Returns what a function of the user answered to a question, as a bool.

    Args:
        name: The argument that is the function.
        answer: What it returned.

    Raises:
        ArgumentError: It is neither true nor false, as an array of several numbers.

    Example:
        >>> answer_of("wanted", 1)
        True
    """
    try:
        return bool(answer)
    except Exception as error:  # whatever the classes of users raise
        raise ArgumentError(f"{name} returns True or False, it returned {shown(answer)}: {error}") from error


def check_choice(name: str, given: object, choices: Iterable[str]) -> None:
    """Raises an error for a setting that is not one of the choices.

    Raises:
        ArgumentError: Another value.

    Example:
        >>> check_choice("distance", "cosine", ("cosine", "euclidean"))
    """
    choices = tuple(choices)
    if not isinstance(given, str) or given not in choices:
        raise ArgumentError(f"{name} is one of {', '.join(map(repr, choices))}, got {given!r}")
