"""What a public function says when it is called with arguments that it does not have."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import BoundArguments, Parameter, signature
from typing import Any

from .advice import instead_of, meant_by

_MOST = 12  # names of arguments in a message


def bound_to(
    door: Callable[..., Any],
    bind: Callable[..., BoundArguments],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> BoundArguments:
    """Returns the arguments of a call by name.

    Args:
        door: The function.
        bind: `Signature.bind` of it.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        TypeError: Arguments that the function does not have, or lacks; the message names it and the nearest.

    Example:
        >>> def sample(model, steps=3): ...
        >>> bound_to(sample, signature(sample).bind, [1], {"n_steps": 2})
        Traceback (most recent call last):
        ...
        TypeError: sample() got an unexpected keyword argument 'n_steps': did you mean steps?
    """
    try:
        return bind(*args, **kwargs)
    except TypeError as error:
        unknown = next((name for name in kwargs if name not in signature(door).parameters), "")
        message = f"{_name_of(door, args)}() {error}: {_hint(door, unknown, args)}"
    raise TypeError(message)


def _name_of(door: Callable[..., Any], args: Sequence[Any]) -> str:
    """The name of a function, that of the class for a constructor."""
    kind = type(args[0]).__name__ if args else ""
    if door.__name__ == "__init__":
        return kind
    return f"{kind}.__call__" if door.__name__ == "__call__" else door.__name__


def _hint(door: Callable[..., Any], unknown: str, args: Sequence[Any]) -> str:
    """The nearest arguments to one that does not exist, or all that there are."""
    known = _names(door)
    if near := _near(unknown, known):
        return f"did you mean {', '.join(near)}?"
    of_constructor = _names(type(args[0]).__init__) if door.__name__ == "__call__" and args else []
    if near := _near(unknown, of_constructor):
        return f"settings belong to the constructor, which has {', '.join(near)}"
    advice = instead_of(unknown, known)
    more = f" and {len(known) - _MOST} more" if len(known) > _MOST else ""
    return f"it takes {', '.join(known[:_MOST]) or 'none'}{more}" + (f"; {advice}" if advice else "")


def _names(door: Callable[..., Any]) -> list[str]:
    """The names of the arguments of a function."""
    several = Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD
    return [
        name for name, one in signature(door).parameters.items() if name != "self" and one.kind not in several
    ]


def _near(unknown: str, known: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    parts = [name for name in known if name in unknown or unknown in name]
    return list(
        dict.fromkeys(
            [*meant_by(unknown, known), *parts, *get_close_matches(unknown, known, n=3, cutoff=0.6)]
        )
    )[:3]
