"""Where the nodes of a network are: the channels of layers, or the heads and MLPs of a transformer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...attribution.base.baselines import as_baseline
from ...attribution.base.inputs import Inputs, like, output_of, parts_of
from ...core.errors import ArgumentError, LayerError, ShapeError
from ...core.hooks import hooked
from ...core.kinds import shown
from ...core.layout import channel_axis_of
from ...core.summaries import counted, listed
from ...core.surveys import survey
from ...transformers import HookedModel
from ...transformers.model.point_names import full_name, unknown_point
from ...transformers.patching.ablation_edits import HEAD_AXES

Edit = Callable[[Tensor], Tensor]
_NEURONS = ("pre", "post")


@dataclass(frozen=True)
class Site:
    """An activation whose parts are nodes.

    Attributes:
        name: How it is called.
        key: The name by which it is edited.
        axis: The axis of the nodes; None where the activation is one node.
        nodes: The names of the nodes.
    """

    name: str
    key: Any
    axis: int | None
    nodes: tuple[str, ...]


class NodeNetwork(ABC):
    """A network that can run while its nodes are edited.

    Attributes:
        model: The network.
        sites: Where its nodes are, in the order in which a pass reaches them.
        is_language_model: Whether scores are those of the last position.
    """

    model: nn.Module
    sites: tuple[Site, ...]
    is_language_model = False

    @abstractmethod
    def inputs(self, given: Any) -> Inputs:
        """Returns the inputs of the network for what the user gave."""

    @abstractmethod
    def absent(self, given: Any, inputs: Inputs) -> Inputs:
        """Returns the inputs for the baseline that the user gave, in the shapes of the inputs."""

    @abstractmethod
    def run(self, inputs: Inputs) -> Any:
        """Returns the output of a pass."""

    @abstractmethod
    def editing(self, edits: Mapping[Any, Edit]) -> AbstractContextManager[Any]:
        """Returns a block in which activations are edited, by the keys of their sites."""

    def put_in_order(self, inputs: Inputs) -> None:
        """Sorts the sites by when a pass reaches them."""
        reached: dict[str, None] = {}

        def noting(site: Site) -> Edit:
            def note(tensor: Tensor) -> Tensor:
                reached[site.name] = None
                return tensor

            return note

        with self.editing({site.key: noting(site) for site in self.sites}):
            self.run(inputs)
        order = list(reached)
        self.sites = tuple(sorted(self.sites, key=lambda site: order.index(site.name)))


class LayerNodes(NodeNetwork):
    """A network whose nodes are the channels of some layers, named ``layer:channel``.

    Args:
        model: The network.
        layers: Names of layers.
        inputs: What it is given.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], inputs: Inputs) -> None:
        self.model = model
        first = like(self.inputs(inputs), [part[:1] for part in parts_of(inputs)])
        found = survey(model, layers, lambda: output_of(model, first, None))
        sites = []
        for layer in layers:
            tensor = found.activations[layer]
            axis = channel_axis_of(tensor, found.layouts[layer], layer)
            nodes = tuple(f"{layer}:{channel}" for channel in range(tensor.shape[axis]))
            sites.append(Site(layer, found.names[layer], axis, nodes))
        self.sites = tuple(sites)
        self.put_in_order(first)

    def inputs(self, given: Any) -> Inputs:
        """Returns what the user gave.

        Raises:
            ArgumentError: It is no tensor, nor a tuple or a dictionary of tensors.
            ShapeError: There is no input, or another number of one than of another.
        """
        parts = parts_of(given) if isinstance(given, Tensor | tuple | dict) else ()
        if not parts or not all(isinstance(part, Tensor) for part in parts):
            raise ArgumentError(
                f"inputs are a tensor, a tuple or a dictionary of tensors, got {shown(given)}"
            )
        shapes = [tuple(part.shape) for part in parts]
        if len({shape[:1] for shape in shapes}) > 1 or not shapes[0] or not shapes[0][0]:
            raise ShapeError(f"inputs are batches of the same, positive length, got {listed(shapes)}")
        found: Inputs = given
        return found

    def absent(self, given: Any, inputs: Inputs) -> Inputs:
        """Returns the baseline of each of the inputs; it is given once, or for each by a tuple or by name."""
        parts = parts_of(inputs)
        if isinstance(given, Mapping) and isinstance(inputs, dict):
            given = [given.get(name, part) for name, part in inputs.items()]
        several = list(given) if isinstance(given, list | tuple) else [given] * len(parts)
        if len(several) != len(parts):
            raise ArgumentError(
                f"expected a baseline for each of {counted(len(parts), 'input')}, got {len(several)}"
            )
        pairs = zip(several, parts, strict=True)
        found: Inputs = like(inputs, [at_baseline(one, part) for one, part in pairs])
        return found

    def run(self, inputs: Inputs) -> Any:
        """Returns the output of a pass."""
        return output_of(self.model, inputs, None)

    def editing(self, edits: Mapping[Any, Edit]) -> AbstractContextManager[Any]:
        """Returns a block in which layers are edited."""
        return hooked(self.model, edit=dict(edits))


def at_baseline(given: Any, values: Tensor) -> Tensor:
    """Returns the baseline of values (N, ...), in their shape.

    Raises:
        ArgumentError: A distribution, which has no single value.
        ShapeError: A baseline of another shape.
    """
    baseline = as_baseline(given)
    if baseline.is_random:
        raise ArgumentError(
            f"a closed node has one value, and {type(baseline).__name__} is a distribution: give rows of "
            f"data as a tensor, one for each input, or one baseline such as their mean"
        )
    return baseline.draw(values, 1)[0]


class TransformerNodes(NodeNetwork):
    """A transformer whose nodes are heads (``"layer.head"``), MLPs (``"mlp.layer"``) or other activations.

    Args:
        model: The transformer.
        names: Short names of activations: of those with heads each head is a node, of ``pre`` and ``post``
            each neuron, and any other is a node in each layer. None for ``z`` and ``mlp_out``.
        inputs: What it is given.
    """

    is_language_model = True

    def __init__(self, model: HookedModel, names: Sequence[str] | None, inputs: Any) -> None:
        self.transformer, self.model = model, model.model
        known = model.points.points
        chosen = ("z", "mlp_out") if names is None else tuple(names)
        keys: dict[str, tuple[str, Any]] = {}
        for name in chosen:
            layered = {full_name((name, layer)): (name, layer) for layer in range(model.layers)}
            single = full_name(name)
            found = [one for one in (single, *layered) if one in known]
            if not found and (names is not None or name == "z"):
                raise LayerError(unknown_point(next(iter(layered)), model.points))
            keys |= {one: layered.get(one, (name, None)) for one in found}
        first = {name: part[:1] for name, part in self.inputs(inputs).items()}
        with torch.no_grad():
            _, cache = model.run_with_cache(first, list(keys))
        self.sites = tuple(_site(name, *keys[name], cache[name].shape) for name in keys)
        self.put_in_order(first)

    def inputs(self, given: Any) -> dict[str, Tensor]:
        """Returns the tensors that the model is given.

        Raises:
            ArgumentError: Texts of different numbers of tokens.
        """
        inputs = self.transformer.inputs(given)
        if "attention_mask" in inputs and bool((inputs["attention_mask"] == 0).any()):
            lengths = inputs["attention_mask"].sum(1).tolist()
            raise ArgumentError(f"all texts must have the same number of tokens, got {lengths}")
        return {name: part for name, part in inputs.items() if isinstance(part, Tensor)}

    def absent(self, given: Any, inputs: Inputs) -> Inputs:
        """Returns the inputs of the baseline's texts, or of one text for all.

        Raises:
            ShapeError: They have other shapes than the texts.
        """
        found = self.inputs(given)
        assert isinstance(inputs, dict)
        for name, part in inputs.items():
            if found.get(name, part).shape[1:] != part.shape[1:] or len(found[name]) not in (1, len(part)):
                raise ShapeError(
                    f"baselines are texts of as many tokens as the inputs, {tuple(part.shape)} or one for "
                    f"all, got {tuple(found[name].shape)}"
                )
        return {name: found[name].expand_as(part) for name, part in inputs.items()}

    def run(self, inputs: Inputs) -> Any:
        """Returns the logits of a pass."""
        return self.transformer(inputs)

    def editing(self, edits: Mapping[Any, Edit]) -> AbstractContextManager[Any]:
        """Returns a block in which activations are edited."""
        return self.transformer.edit(edits)


def _site(full: str, name: str, layer: int | None, shape: Sequence[int]) -> Site:
    axis = HEAD_AXES.get(name, len(shape) - 1 if name in _NEURONS else None)
    short = {"z": "", "mlp_out": "mlp."}.get(name, f"{name}.")
    whole = name if layer is None else f"{short}{layer}"
    if axis is None:
        return Site(whole, full, None, (whole,))
    nodes = tuple(f"{whole}.{unit}" for unit in range(shape[axis]))
    return Site(f"heads {layer}" if name == "z" else whole, full, axis, nodes)
