"""What the decorators of a bench share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from torch import nn

from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..core.seeding import seeded
from .hypotheses import compare_samples
from .profiling import profile_call


def with_tools(function: Callable[..., Any], tools: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Returns a function that gets tools as arguments.

    Args:
        function: The function.
        tools: All tools.
        keys: The keys of those that it gets.

    Raises:
        ArgumentError: It has no such arguments.
    """
    check_takes(function, keys)

    @wraps(function)
    def given(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{**{key: tools[key] for key in keys}, **kwargs})

    setattr(given, "tools", (*keys, *getattr(function, "tools", ())))  # noqa: B010, mypy knows no such attribute
    return given


def with_figures(
    function: Callable[..., Any],
    draw: Callable[[], list[Any]],
    given: Mapping[str, Any],
    argument: str = "fig",
) -> Any:
    """Returns a function that gets figures as an argument: the only one, or a list of several.

    Args:
        function: The function.
        draw: Draws the figures.
        given: What they are drawn of, by name.
        argument: The argument.

    Raises:
        ArgumentError: It has no such argument.
    """
    check_takes(function, [argument])

    @wraps(function)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        figures = draw()
        return function(*args, **{argument: figures[0] if len(figures) == 1 else figures, **kwargs})

    return _with_settings(drawn, "plot_results", given)


def with_hypothesis_test(
    function: Callable[..., Any],
    groups: tuple[Callable[..., Any], Callable[..., Any]],
    samples: int,
    **test: Any,
) -> Any:
    """Returns a function whose result has a test of two groups of samples, as ``"hypothesis_test"``.

    Args:
        function: The function.
        groups: Functions that return a sample of each group; they get what the function gets.
        samples: How many samples of each group.
        **test: The arguments of `compare_samples`.
    """
    check_takes(function, ())

    @wraps(function)
    def tested(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        drawn: tuple[list[float], list[float]] = ([], [])
        try:
            for index in range(samples):
                for group, draw in zip(drawn, groups, strict=True):
                    # a pair has the same random numbers
                    with seeded(test["seed"] + index if test["method"] == "paired" else None):
                        group.append(_sample(draw, draw(*args, **kwargs)))
            found = compare_samples(*drawn, **test)
        except Exception as error:  # the result of the function is kept all the same
            setattr(error, "result_before", {**_parts(result), "samples": drawn})  # noqa: B010
            raise
        return {**_parts(result), "hypothesis_test": found}

    null, alternative = groups
    settings = {"null_func": null, "alt_func": alternative, "n_samples": samples, **test}
    return _with_settings(tested, "test_hypothesis", settings)


def with_profile(function: Callable[..., Any], model: nn.Module, granularity: str) -> Any:
    """Returns a function whose result has a profile of a model, as ``"profiling"``.

    Args:
        function: The function, which runs the model.
        model: The model.
        granularity: ``"module"`` or ``"operation"``.
    """
    check_takes(function, ())

    @wraps(function)
    def profiled(*args: Any, **kwargs: Any) -> Any:
        result, found = profile_call(model, lambda: function(*args, **kwargs), granularity)
        return {**_parts(result), "profiling": found}

    return _with_settings(profiled, "profile_model", {"granularity": granularity})


def _with_settings(function: Any, decorator: str, given: Mapping[str, Any]) -> Any:
    """Notes on a decorated function what its decorator was given, which counts for the version."""
    named = {f"{decorator}.{name}": value for name, value in given.items()}
    setattr(function, "settings", {**getattr(function, "settings", {}), **named})  # noqa: B010
    return function


def _parts(result: Any) -> dict[str, Any]:
    return result if isinstance(result, dict) else {"result": result}


def _sample(draw: Callable[..., Any], value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        name = getattr(draw, "__name__", "the function")
        raise ArgumentError(f"{name} returns a number, a sample, got {shown(value)}") from error


def check_takes(function: Callable[..., Any], names: Sequence[str]) -> None:
    """Makes sure that a function has arguments.

    Raises:
        ArgumentError: It has not, or it is no function.
    """
    if not callable(function):
        raise ArgumentError(f"this decorates a function, got {shown(function)}")
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            shape = f"{getattr(function, '__name__', 'it')}({', '.join(parameters)})"
            raise ArgumentError(f"{shape} has no argument {name!r}: add {name}=None to it")
