"""The base of objectives: a score of each picture, from the activations of the layers that it names.

Scores are higher for better pictures, and an objective is the quantity that its name says: add what you want
more of, subtract what you want less of. A score is one number for each picture, (N,); a function of the whole
batch may return one number for all. The optimization raises the mean over the pictures.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any, TypeVar

from torch import Tensor, nn

from ...core.names import Unit
from ...core.summaries import LINE, shortened

IMAGE = "<image>"
"""The name of the picture itself, before any transform, in the activations of an objective."""

ActivationMap = Mapping[str, Tensor]


class Objective(ABC):
    """A score of pictures that an optimization raises.

    A new objective is a subclass with `layers` and `score`. Objectives are combined by ``+``, ``-``, ``*``,
    ``/`` and ``**``, also with numbers, and print as expressions.

    Example:
        >>> class Brightness(Objective):
        ...     layers = ("conv2",)
        ...     def score(self, activations):
        ...         return activations["conv2"].mean((1, 2, 3))
        >>> Brightness().layers
        ('conv2',)
    """

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """The layers whose activations `score` reads; `IMAGE` stands for the picture."""

    @abstractmethod
    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the score of each picture, (N,), from the activations by layer, batch first."""

    def bind(self, model: nn.Module) -> "Objective":
        """Returns the objective for this model, with everything filled in that depends on the model."""
        return self

    @property
    def images(self) -> int | None:
        """How many pictures it scores, one for each of its units; None for any number."""
        return None

    def titles(self, images: int) -> list[str]:
        """Returns a title for each of `images` pictures."""
        return [str(self)] * images

    def __add__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Add", self, other)

    def __radd__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Add", other, self)

    def __neg__(self) -> "Objective":
        return _combined("Multiply", -1, self)

    def __sub__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Add", self, _combined("Multiply", -1, other))

    def __rsub__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Add", other, -self)

    def __mul__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Multiply", self, other)

    def __rmul__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Multiply", other, self)

    def __truediv__(self, other: "ObjectiveLike") -> "Objective":
        inverse = 1 / other if isinstance(other, Real) else _combined("Power", other, -1)
        return _combined("Multiply", *((inverse, self) if isinstance(other, Real) else (self, inverse)))

    def __rtruediv__(self, other: "ObjectiveLike") -> "Objective":
        return _combined("Multiply", other, self**-1)

    def __pow__(self, exponent: float) -> "Objective":
        return _combined("Power", self, exponent)

    def __repr__(self) -> str:
        kind: Any = type(self)  # subclasses of users need not be dataclasses
        shown = []
        for position, field in enumerate(fields(kind) if is_dataclass(kind) else ()):
            value = getattr(self, field.name)
            if field.repr and value is not field.default:
                name = "" if position == 0 and not field.kw_only else f"{field.name}="
                shown.append(name + _short(value))
        return shortened(f"{kind.__name__}({', '.join(shown)})", LINE)


ObjectiveLike = Objective | str | Unit | float | Sequence["ObjectiveLike"]


_OPERATIONS: dict[str, Callable[..., Objective]] = {}

Operation = TypeVar("Operation", bound=type[Objective])


def operation(kind: Operation) -> Operation:
    """Registers a combination under its name, so that the operators of `Objective` find it; returns it."""
    _OPERATIONS[kind.__name__] = kind
    return kind


def _combined(name: str, *parts: ObjectiveLike) -> Objective:
    return _OPERATIONS[name](*parts)


def _short(value: Any) -> str:
    return f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
