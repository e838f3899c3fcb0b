"""One forward pass that finds out, before many others: how often layers run, and what their axes mean."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from .axes import SPACE, Axes, grid_of, has_kind, input_axes, is_known, unknown_axes
from .axis_rules import axes_of_output
from .checks import layer_names
from .functions import Function, canonical_name, intercepted, tensors_among
from .generators import Generators, drawing_from
from .hooks import hooked, run_past_errors
from .kinds import as_names
from .layout import LaidOut, Layout
from .modules import check_model, evaluating, without_wrapper, wrapped_forward
from .outputs import Key
from .summaries import listed
from .targets import resolve

# Operations that give (N, C, L) where three axes come out.
_OF_SIGNALS = frozenset(
    ("conv1d", "conv_transpose1d", "max_pool1d", "avg_pool1d", "batch_norm", "group_norm")
)


@dataclass(frozen=True)
class Survey:
    """What one forward pass showed of some layers.

    Attributes:
        names: For each layer the name of its run in a pass: the last one where none was named. Passes that
            record these can stop early.
        runs: How often what each layer names ran in the pass.
        activations: What the pass made of each layer, with what its axes mean.
        parts: For each layer the keys and indices that lead on to each of its tensors, those of the main
            tensor first: ``((),)`` where it is a tensor.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> survey(model, ["0", "1"], lambda: model(torch.rand(5, 4)))
        Survey(0#0 (5, 3), 1#0 (5, 3))
    """

    names: dict[str, str]
    runs: dict[str, int]
    activations: LaidOut
    parts: dict[str, tuple[tuple[Key, ...], ...]] = field(default_factory=dict)

    @property
    def layouts(self) -> dict[str, Layout]:
        """What the axes of each layer's tensor mean."""
        return self.activations.layouts

    def __repr__(self) -> str:
        rows = [f"{name} {self.layouts[layer].shape}" for layer, name in self.names.items()]
        return f"Survey({listed(rows)})"


def survey(model: nn.Module, layers: Iterable[str], forward: Callable[[], Any], keep: bool = True) -> Survey:
    """Returns what a forward pass shows of some layers.

    The model is in evaluation mode meanwhile, and no graph is built. Random numbers that the pass draws, and
    what it puts into caches, are the same for the pass that follows.

    Args:
        model: Any module.
        layers: Names of layers.
        forward: Runs a forward pass of the model, such as ``lambda: model(images)``; an error in what follows
            the layers does not matter.
        keep: Keep the activations, too.

    Raises:
        LayerError: A layer that the model does not have.
        UnreachedLayerError: A layer that the forward pass does not reach.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> found = survey(net, ["1"], lambda: net(torch.zeros(1, 3, 8, 8)))
        >>> found.names, found.layouts["1"].channel_axis
        ({'1': '1#0'}, 1)
    """
    check_model(model)
    layers = list(dict.fromkeys(as_names(layer_names(model, layers))))
    noted: dict[str, tuple[Axes | None, tuple[int, ...]]] = {}
    tensors: dict[str, Tensor] = {}
    with torch.no_grad(), drawing_from(Generators()), evaluating(model), _followed(model) as axes:

        def note(layer: str, tensor: Tensor) -> Tensor:
            noted[layer] = axes.get(tensor), tuple(tensor.shape)
            if keep:
                tensors[layer] = tensor.clone()  # which nothing writes into later
            return tensor

        edits = {layer: partial(note, layer) for layer in layers}
        with hooked(model, edit=edits, every=True) as activations:
            run_past_errors(forward, lambda: len(noted) == len(layers), model)
    layouts = {
        layer: _layout_of(noted[layer][0], noted[layer][1], axes.pictured, axes.signals) for layer in layers
    }
    runs = {layer: activations.runs(layer) for layer in layers}
    places = resolve(without_wrapper(model), layers)
    names = {
        layer: layer if place.run is not None else str(place.at_run(runs[layer] - 1))
        for layer, place in places.items()
    }
    parts = {layer: activations.parts(layer, place.part) for layer, place in places.items()}
    return Survey(names, runs, LaidOut(tensors, layouts), parts)


def _layout_of(
    axes: Axes | None, shape: Sequence[int], pictured: bool = False, signals: bool = False
) -> Layout:
    """Returns the layout of a tensor whose axes were followed through a forward pass.

    Args:
        axes: The axes, None if nothing is known.
        shape: Its shape.
        pictured: Whether a picture went into the network.
        signals: Whether there are signals (N, C, L) in the pass, so that the rank alone tells nothing.
    """
    axes = unknown_axes(shape) if axes is None else axes
    axis = _told_axis(axes, signals)
    positions = [one for index, one in enumerate(axes) if index not in (0, axis)]
    placed = len(set(positions)) < 2 or all(len(one) == 1 for one in positions)
    layout = Layout(axis, pictured=pictured, shape=tuple(shape), placed=placed)
    if axis is None or len(positions) != 1 or has_kind(axes[0], *SPACE):  # windows stand in the batch
        return layout
    grid, offset = grid_of(positions[0]) or (None, 0)
    return replace(layout, grid=grid, offset=offset)


def _told_axis(axes: Axes, signals: bool) -> int | None:
    """The only axis with channels in it; of unknown tokens (N, T, C) the last."""
    rank = len(axes)
    if rank == 2:
        return 1
    channels = [index for index, axis in enumerate(axes) if has_kind(axis, "channels")]
    former = any(has_kind(axis, "former channels") for axis in axes)
    if channels:
        (axis, *others) = channels
        return axis if axis > 0 and not others and (not former or axis == rank - 1) else None
    return None if rank != 3 or former or signals or is_known(axes[-1]) else 2


class _Axes:
    """The axes of the tensors of a pass, as long as they live."""

    def __init__(self) -> None:
        self.pictured = self.signals = False
        self._axes: dict[int, tuple[ref[Tensor], Axes]] = {}

    def get(self, tensor: Tensor) -> Axes | None:
        known = self._axes.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def set(self, tensor: Tensor, axes: Axes | None) -> None:
        if axes is None:
            self._axes.pop(id(tensor), None)
        else:
            self._axes[id(tensor)] = (ref(tensor), axes)

    def inputs(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Notes the axes of what goes into the model, and runs it, with copies of caches."""
        args = tuple(map(_copied, args))
        kwargs = {name: _copied(value) for name, value in kwargs.items()}
        for value in tensors_among((*args, *(value for name, value in kwargs.items() if "mask" not in name))):
            self.set(value, input_axes(value))
            self.pictured |= value.dim() == 4 and value.is_floating_point()
        return forward(*args, **kwargs)

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a function and notes the axes of what it returns."""
        output = function(*args, **kwargs)
        outputs = output if isinstance(output, tuple | list) else (output,)
        name = None
        for index, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                name = name or canonical_name(function)[0]
                self.set(tensor, axes_of_output(name, args, kwargs, tensor, self.get, index))
                self.signals |= name in _OF_SIGNALS and tensor.dim() == 3
        return output


def _copied(value: Any) -> Any:
    """An input, or a copy of one that is no tensor and may remember the pass, such as a cache."""
    if value is None or isinstance(value, Tensor | bool | int | float | str | tuple | list | dict):
        return value
    try:
        return deepcopy(value)
    except Exception:  # there are objects that cannot be copied
        return value


@contextmanager
def _followed(model: nn.Module) -> Iterator[_Axes]:
    axes = _Axes()
    with wrapped_forward(without_wrapper(model), axes.inputs), intercepted(axes.handle):
        yield axes
