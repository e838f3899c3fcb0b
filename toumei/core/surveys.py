"""One forward pass that finds out, before many others: how often layers run, and what their axes mean."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from .axes import Axes, input_axes
from .axis_rules import axes_of_output
from .functions import Function, FunctionMode, canonical_name
from .hooks import hooked, run_past_errors
from .layout import LaidOut, Layout, layout_of
from .modules import check_model, evaluating, without_wrapper, wrapped_forward
from .names import parse_layer

# Operations that give (N, C, L) where three axes come out.
_OF_SIGNALS = frozenset(("conv1d", "conv_transpose1d", "max_pool1d", "avg_pool1d", "batch_norm", "group_norm"))


@dataclass(frozen=True)
class Survey:
    """What one forward pass showed of some layers.

    Attributes:
        names: For each layer the name of its run in a pass: the last one where none was named. Passes that
            record these can stop early.
        runs: How often what each layer names ran in the pass.
        activations: What the pass made of each layer, with what its axes mean.
    """

    names: dict[str, str]
    runs: dict[str, int]
    activations: LaidOut

    @property
    def layouts(self) -> dict[str, Layout]:
        """What the axes of each layer's tensor mean."""
        return self.activations.layouts


def survey(model: nn.Module, layers: Iterable[str], forward: Callable[[], Any], keep: bool = True) -> Survey:
    """Returns what a forward pass shows of some layers.

    The model is in evaluation mode meanwhile, and no graph is built.

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
    layers = list(dict.fromkeys(layers))
    check_model(model)
    noted: dict[str, tuple[Axes | None, tuple[int, ...]]] = {}
    tensors: dict[str, Tensor] = {}
    with torch.no_grad(), evaluating(model), _followed(model) as axes:

        def note(layer: str, tensor: Tensor) -> Tensor:
            noted[layer] = axes.get(tensor), tuple(tensor.shape)
            if keep:
                tensors[layer] = tensor.clone()  # which nothing writes into later
            return tensor

        edits = {layer: partial(note, layer) for layer in layers}
        with hooked(model, edit=edits, every=True) as activations:
            run_past_errors(forward, lambda: len(noted) == len(layers))
    layouts = {
        layer: layout_of(noted[layer][0], noted[layer][1], axes.pictured, axes.signals) for layer in layers
    }
    runs = {layer: activations.runs(layer) for layer in layers}
    names = {layer: _numbered(layer, runs[layer]) for layer in layers}
    return Survey(names, runs, LaidOut(tensors, layouts))


def _numbered(layer: str, runs: int) -> str:
    """The name of a layer's last run, if none is named."""
    return str(parse_layer(layer).at_run(runs - 1)) if parse_layer(layer).run is None else layer


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
        """Notes the axes of what goes into the model, and runs it."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
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


@contextmanager
def _followed(model: nn.Module) -> Iterator[_Axes]:
    axes = _Axes()
    with wrapped_forward(without_wrapper(model), axes.inputs), FunctionMode(axes.handle):
        yield axes
