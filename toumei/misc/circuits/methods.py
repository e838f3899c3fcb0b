"""The attribution methods by which nodes get their scores."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ...attribution import DeepLift, InputXGradient, IntegratedGradients, Occlusion, ShapleySampling
from ...attribution.base.method import Method
from ...core.checks import check_choice
from ...core.errors import ArgumentError

METHODS: dict[str, Callable[..., Method]] = {
    "gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "deep_lift": DeepLift,
    "shapley": ShapleySampling,
    "ablation": partial(Occlusion, window=1),
}


def method_named(given: Any) -> tuple[str, Callable[..., Method]]:
    """Returns the name of a method and what makes it.

    Args:
        given: A name in `METHODS`, a class of `toumei.attribution` that takes a layer, or a
            `functools.partial` of one with its settings.

    Raises:
        ArgumentError: Something else.
    """
    if isinstance(given, str):
        check_choice("method", given, METHODS)
        return given, METHODS[given]
    kind = given.func if isinstance(given, partial) else given
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise ArgumentError(
            f"a method is one of {', '.join(METHODS)}, a class of toumei.attribution, or a partial of one, "
            f"got {given!r}"
        )
    return kind.__name__, given
