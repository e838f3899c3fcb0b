"""The tensors of layers that are attributed to: all that a layer returns, with a row for each input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError, ShapeError
from ...core.hooks import hooked
from ...core.modules import device_and_dtype, without_wrapper
from ...core.names import Layer
from ...core.outputs import Key
from ...core.summaries import counted
from ...core.surveys import Survey
from ...core.targets import Edit, resolve
from .inputs import Layers

Run = Callable[[int], object]  # runs a forward pass of so many inputs


@dataclass(frozen=True)
class Place:
    """A tensor that a layer returns.

    Attributes:
        name: How it is named: the layer, or one of its tensors such as ``"lstm[1][0]"``.
        layer: The layer, as the user named it.
        source: The name with the number of the run that counts.
        axis: Its axis of the inputs. Tensors are handled with this axis in front.
    """

    name: str
    layer: str
    source: str
    axis: int = 0

    def edit(self, tensor: Tensor) -> Edit:
        """Returns the edit that puts a tensor (B, ...) in the place."""
        return lambda _: tensor.movedim(0, self.axis)

    def in_front(self, tensor: Tensor) -> Tensor:
        """Returns the tensor in the place with the axis of the inputs in front."""
        return tensor.movedim(self.axis, 0) if self.axis else tensor


def layers_of(layer: Layers) -> tuple[str, ...]:
    """Returns the names of the layers that a user gave: one, several in a list, or none.

    Raises:
        ArgumentError: An empty list, or the same layer twice.

    Example:
        >>> layers_of("conv1"), layers_of(["query", "key"]), layers_of(None)
        (('conv1',), ('query', 'key'), ())
    """
    if layer is None:
        return ()
    names = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    if not names or len(set(map(str, names))) < len(names):
        raise ArgumentError(f"layers are different names, at least one, got {layer!r}")
    return names


def places_in(model: nn.Module, layers: Sequence[str], found: Survey, run: Run, count: int) -> list[Place]:
    """Returns the tensors of layers that are attributed to.

    Of a layer that returns several tensors these are the floating-point ones with a row for each input. Two
    more passes, one of another number of inputs, find them and their axis of the inputs, as they do for a
    tensor whose first axis may be another one.

    Args:
        model: The network.
        layers: Names of layers.
        found: What a first pass showed.
        run: Runs a pass of some number of inputs, with repetitions.
        count: How many inputs the first pass had.
    """
    named = resolve(without_wrapper(model), [*layers, *(found.names[layer] for layer in layers)])
    plain = {layer: Place(layer, layer, found.names[layer]) for layer in layers}
    places = {
        layer: [
            Place(str(_inside(named[layer], path)), layer, str(_inside(named[found.names[layer]], path)))
            for path in (found.parts[layer] if len(found.parts[layer]) > 1 else [()])
        ]
        for layer in layers
        if len(found.parts[layer]) > 1 or not _rows_first(named[layer], found.activations[layer].shape, count)
    }
    axes = _axes(model, [place for of_layer in places.values() for place in of_layer], run, count)
    with_rows = {
        layer: [replace(place, axis=axes[place.name]) for place in of_layer if place.name in axes]
        for layer, of_layer in places.items()
    }
    return [place for layer in layers for place in (with_rows.get(layer) or [plain[layer]])]


def _inside(layer: Layer, path: tuple[Key, ...]) -> Layer:
    return replace(layer, part=layer.part + path)


def _rows_first(layer: Layer, shape: Sequence[int], count: int) -> bool:
    """Whether the only tensor of a layer surely has the inputs on its first axis."""
    unclear = len(shape) > 2 and (layer.part or (count > 1 and shape[1] == count))
    return bool(shape) and shape[0] == count and not unclear


def _axes(model: nn.Module, places: Sequence[Place], run: Run, count: int) -> dict[str, int]:
    """The axis of the inputs of each floating-point tensor that has one, by name."""
    if not places:
        return {}
    shapes, others = (_shapes(model, places, run, rows) for rows in (count, 1 if count > 1 else 2))
    axes = {}
    for name, shape in shapes.items():
        sizes = enumerate(zip(shape, others.get(name, shape), strict=False))
        differing = [axis for axis, (size, other) in sizes if size == count != other]
        if differing:
            axes[name] = differing[0]
    return axes


def _shapes(model: nn.Module, places: Sequence[Place], run: Run, count: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the floating-point tensors among places, for so many inputs."""
    sources = {place.name: place.source for place in places}
    device, _ = device_and_dtype(model)
    # a network that draws random numbers draws the same ones afterwards
    drawn = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with torch.no_grad(), drawn, hooked(model, sources, stop=True, detach=True) as activations:
        run(count)
    tensors = {name: activations[name] for name in sources}
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor.is_floating_point()}


def check_rows(places: Sequence[Place], tensors: Sequence[Tensor], count: int) -> None:
    """Raises an error for a layer whose activation has no row for each input.

    Raises:
        ShapeError: There is one.
    """
    for place, tensor in zip(places, tensors, strict=True):
        if tensor.dim() == 0 or len(tensor) != count:
            raise ShapeError(
                f"the activation of layer {place.name!r} is {tuple(tensor.shape)}, expected a row for each "
                f"of the {counted(count, 'input')}"
            )
