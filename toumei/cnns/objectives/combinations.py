"""Objectives made of others: sums, products, powers, functions, one for each picture, and conversions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from operator import mul

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.layout import with_layouts_of
from ...core.names import Unit, parse
from ...core.summaries import LINE, counted, shortened
from .objective import IMAGE, ActivationMap, Objective, ObjectiveLike, operation
from .units import Channel, Layer, Neuron


@dataclass(frozen=True, repr=False)
class ConstantScore(Objective):
    """The same number for every picture: a weight in a product.

    Args:
        value: The number.

    Example:
        >>> from toumei.cnns.objectives import Channel
        >>> Channel("conv2:3") + ConstantScore(1.0)
        Channel('conv2:3') + 1
    """

    value: float

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise ArgumentError(f"a constant is a number, got {shown(self.value)}")

    @property
    def layers(self) -> tuple[str, ...]:
        """None."""
        return ()

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the number as a tensor without axes."""
        return torch.tensor(float(self.value))

    def __repr__(self) -> str:
        return f"{self.value:g}"


class Combination(Objective):
    """Several objectives whose scores are combined."""

    def __init__(self, *objectives: ObjectiveLike) -> None:
        if not objectives:
            raise ArgumentError(f"{type(self).__name__} needs at least one objective")
        self.objectives = tuple(as_objective(objective) for objective in objectives)
        self.images  # noqa: B018  parts that do not fit together raise their error here

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of all parts, each once."""
        return tuple(dict.fromkeys(layer for objective in self.objectives for layer in objective.layers))

    @property
    def images(self) -> int | None:
        """The number of pictures that the parts agree on."""
        numbers = {objective.images for objective in self.objectives} - {None}
        if len(numbers) > 1:
            raise ArgumentError(f"these objectives are for different numbers of pictures, {numbers}: {self}")
        return next(iter(numbers), None)

    def bind(self, model: nn.Module) -> Objective:
        """Returns the combination of the bound parts."""
        return type(self)(*(objective.bind(model) for objective in self.objectives))

    def titles(self, images: int) -> list[str]:
        """Returns the titles of the only part with one unit for each picture, else the expression."""
        parts = [objective for objective in self.objectives if objective.images is not None]
        return parts[0].titles(images) if len(parts) == 1 else [str(self)] * images

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.objectives == self.objectives

    def __hash__(self) -> int:
        return hash((type(self), self.objectives))


@operation
class Add(Combination):
    """The sum of objectives.

    Args:
        *objectives: Objectives, unit strings or numbers.

    Example:
        >>> Add("mixed3a:74", "mixed4b:2")
        Channel('mixed3a:74') + Channel('mixed4b:2')
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the sum of the parts' scores."""
        return sum((objective.score(activations) for objective in self.objectives), torch.zeros(()))

    def titles(self, images: int) -> list[str]:
        """Returns the titles of the part that reads layers of the network, if there is only one."""
        inside = [objective for objective in self.objectives if set(objective.layers) - {IMAGE}]
        return inside[0].titles(images) if len(inside) == 1 else super().titles(images)

    def __repr__(self) -> str:
        first, *rest = map(str, self.objectives)
        text = first + "".join(f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in rest)
        return shortened(text, LINE)


@operation
class Multiply(Combination):
    """The product of objectives, picture by picture.

    Args:
        *objectives: Objectives, unit strings or numbers.

    Example:
        >>> Multiply(2, "mixed3a:74")
        2*Channel('mixed3a:74')
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the product of the parts' scores."""
        return reduce(mul, (objective.score(activations) for objective in self.objectives))

    def __repr__(self) -> str:
        parts = [f"({part})" if isinstance(part, Add) else str(part) for part in self.objectives]
        text = "*".join(parts)
        return shortened(text.replace("-1*", "-", 1) if str(self.objectives[0]) == "-1" else text, LINE)


@checked
@operation
class Power(Combination):
    """A power of an objective, picture by picture.

    Args:
        objective: An objective, unit string or number.
        exponent: The exponent, a number.

    Example:
        >>> Power("mixed3a:74", 2), as_objective("mixed3a:74") / as_objective("mixed3a:75")
        (Channel('mixed3a:74')**2, Channel('mixed3a:74')*Channel('mixed3a:75')**-1)
    """

    def __init__(self, objective: ObjectiveLike, exponent: ObjectiveLike) -> None:
        super().__init__(objective, exponent)
        if not isinstance(self.objectives[1], ConstantScore):
            raise ArgumentError(f"the exponent of {objective} is a number, got {exponent}")

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the power of the score."""
        base, exponent = self.objectives
        result: Tensor = base.score(activations) ** exponent.value  # type: ignore[attr-defined]
        return result

    def __repr__(self) -> str:
        base, exponent = self.objectives
        composed = isinstance(base, Add | Multiply | Power) or str(base).startswith("-")
        return f"({base})**{exponent}" if composed else f"{base}**{exponent}"


class PerImage(Combination):
    """One objective for each picture of the batch.

    Args:
        *objectives: The objective of the first picture, of the second, and so on.

    Raises:
        ArgumentError: An objective that is for several pictures.

    Example:
        >>> PerImage("mixed3a:74", "mixed4b:2").titles(2)
        ['mixed3a:74', 'mixed4b:2']
    """

    @property
    def images(self) -> int | None:
        """One picture for each objective."""
        for objective in self.objectives:
            if objective.images not in (None, 1):
                raise ArgumentError(
                    f"{objective} is for {counted(objective.images, 'picture')}, not for one of several"
                )
        return len(self.objectives)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the score of each picture for its objective."""
        split = {layer: activations[layer].split(1) for layer in self.layers}
        scores = []
        for index, objective in enumerate(self.objectives):
            single = {layer: split[layer][index] for layer in objective.layers}
            scores.append(objective.score(with_layouts_of(activations, single)).reshape(1))
        return torch.cat(scores)

    def titles(self, images: int) -> list[str]:
        """Returns the title of each objective."""
        return [objective.titles(1)[0] for objective in self.objectives]

    def __repr__(self) -> str:
        return shortened(f"PerImage({', '.join(map(str, self.objectives))})", LINE)


@checked
@dataclass(frozen=True, repr=False)
class Function(Objective):
    """Any function of activations as an objective.

    Args:
        function: From activations by layer (batch first) to one score for each picture, or one for all.
        layer: The layers that it reads; `IMAGE` for the picture.
        name: The name that is printed.

    Example:
        >>> Function(lambda activations: activations["conv1"].amax((1, 2, 3)), ["conv1"], name="brightest")
        Function('brightest')
    """

    function: Callable[[ActivationMap], Tensor]
    layer: str | Sequence[str]
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", self.layer if isinstance(self.layer, str) else tuple(self.layer))
        if not self.layers:
            raise ArgumentError("a function of activations reads at least one layer")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it reads."""
        return (self.layer,) if isinstance(self.layer, str) else tuple(self.layer)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns what the function returns."""
        return self.function(activations)

    def __repr__(self) -> str:
        return f"Function({self.name or getattr(self.function, '__name__', 'function')!r})"


@checked
def as_objective(thing: ObjectiveLike) -> Objective:
    """Returns the objective that a unit string, a number or a list stands for.

    Args:
        thing: An objective; a unit, as a string or a `Unit` (a layer, a channel, or a neuron); a number; or a
            list of these, one for each picture of a batch.

    Raises:
        ArgumentError: It is none of these.
        UnitError: A string that names no unit.

    Example:
        >>> as_objective("mixed4a:2:7:7"), as_objective(["mixed4a:2", "mixed4a:3"])
        (Neuron('mixed4a:2:7:7'), PerImage(Channel('mixed4a:2'), Channel('mixed4a:3')))
    """
    if isinstance(thing, Objective):
        return thing
    if isinstance(thing, str | Unit):
        unit = parse(thing)
        if unit.position is not None:
            return Neuron(thing)
        return Layer(unit.layer) if unit.channel is None else Channel(thing)
    if isinstance(thing, Real):
        try:
            return ConstantScore(float(thing))
        except OverflowError:
            raise ArgumentError(f"a score is a number that a float holds, got {shown(thing)}") from None
    if isinstance(thing, Sequence):
        return PerImage(*thing)
    raise ArgumentError(f"expected an objective, a unit string, a number or a list of these, got {thing!r}")
