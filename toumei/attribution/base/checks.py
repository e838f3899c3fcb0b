"""Checks of the settings of methods, made when a method is built."""

from operator import index

from ...core.errors import ArgumentError


def check_counts(least: int, **counts: int | None) -> None:
    """Raises an error for the first count that is not a whole number from `least` on; None is none given.

    Raises:
        ArgumentError: Something else than a whole number, or a smaller one.

    Example:
        >>> check_counts(1, batch_size=64, steps=None)
    """
    for name, count in counts.items():
        if count is None:
            continue
        try:
            whole = not isinstance(count, bool) and index(count) >= least
        except TypeError:
            whole = False
        if not whole:
            raise ArgumentError(f"{name} is a whole number from {least} on, got {count!r}")


def check_choice(name: str, given: object, choices: tuple[str, ...]) -> None:
    """Raises an error for a setting that is not one of the choices.

    Raises:
        ArgumentError: Another value.

    Example:
        >>> check_choice("distance", "cosine", ("cosine", "euclidean"))
    """
    if given not in choices:
        raise ArgumentError(f"{name} is one of {', '.join(map(repr, choices))}, got {given!r}")
