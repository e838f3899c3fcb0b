"""Objectives for the units of a network: layers, channels, neurons, directions and classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError, ShapeError, UnitError
from ...core.units import channels_first, check_channels, parse, position_index
from .objective import ActivationMap, Objective

Similarity = Literal["dot", "cosine", "dot-cosine"]


@dataclass(frozen=True, repr=False)
class Layer(Objective):
    """The mean activation of a layer.

    Args:
        layer: Name of the layer.

    Example:
        >>> Layer("conv1").score({"conv1": torch.ones(2, 5, 4, 4)})
        tensor([1., 1.])
    """

    layer: str

    def __post_init__(self) -> None:
        if parse(self.layer).channel is not None:
            raise UnitError(f"{type(self).__name__} takes the name of a whole layer, got {self.layer!r}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the mean over all axes but the first, (N,)."""
        return activations[self.layer].flatten(1).mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the layer's name."""
        return [self.layer] * images


@dataclass(frozen=True, repr=False)
class DeepDream(Layer):
    """The mean squared activation of a layer: whatever excites it is made stronger (Mordvintsev et al. 2015).

    Args:
        layer: Name of the layer.

    Example:
        >>> DeepDream("conv1").score({"conv1": torch.full((1, 5, 4, 4), 3.0)})
        tensor([9.])
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the mean square over all axes but the first, (N,)."""
        return activations[self.layer].flatten(1).square().mean(1)


@dataclass(frozen=True, repr=False)
class Channel(Objective):
    """The mean activation of a channel over all positions; with several channels, one for each picture.

    Args:
        unit: ``"layer:channel"``, or only the layer where `channels` are given.
        channels: A channel for each picture of the batch.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        UnitError: A malformed unit, or one with a position, or without a channel.

    Example:
        >>> Channel("mixed4a", channels=[3, 9]).titles(2)
        ['mixed4a:3', 'mixed4a:9']
    """

    unit: str
    channels: Sequence[int] | None = None
    channel_axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        parsed = parse(self.unit)
        if parsed.position is not None or (parsed.channel is None) == (self.channels is None):
            raise UnitError(
                f"Channel takes 'layer:channel', or 'layer' and channels=[...]; got {self.unit!r}"
                f"{'' if self.channels is None else f' and channels={self.channels}'}"
            )
        if self.channels is not None:
            channels = tuple(map(index, self.channels))
            if not channels or min(channels) < 0:
                raise UnitError(f"channels are whole numbers from 0 on, at least one; got {self.channels}")
            object.__setattr__(self, "channels", channels)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the channel."""
        return (parse(self.unit).layer,)

    @property
    def images(self) -> int | None:
        """One picture for each of several channels."""
        return None if self.channels is None else len(self.channels)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the mean over positions of each picture's channel, (N,)."""
        unit = parse(self.unit)
        activation = channels_first(activations[unit.layer], self.channel_axis)
        if self.channels is None:
            check_channels([unit.channel], activation, unit.layer)  # type: ignore[list-item]
            return activation[:, unit.channel].mean(1)
        check_channels(self.channels, activation, unit.layer)
        images = torch.arange(len(self.channels), device=activation.device)
        channels = torch.tensor(self.channels).to(activation.device, non_blocking=True)
        return activation[images, channels].mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the unit of each picture."""
        if self.channels is None:
            return [self.unit] * images
        return [f"{self.unit}:{channel}" for channel in self.channels]


@dataclass(frozen=True, repr=False)
class Neuron(Objective):
    """The activation of one channel at one position, by default at the centre of the map.

    Args:
        unit: ``"layer:channel"`` for the centre (H // 2, W // 2), ``"layer:channel:y:x"``, or
            ``"layer:channel:token"``. Of a vision transformer, y:x and the centre mean the patch there.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        UnitError: A malformed unit, or one without a channel.

    Example:
        >>> activation = torch.arange(8.0).reshape(1, 2, 2, 2)
        >>> Neuron("conv1:1").score({"conv1": activation}), Neuron("conv1:1:0:1").score({"conv1": activation})
        (tensor([7.]), tensor([5.]))
    """

    unit: str
    channel_axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if parse(self.unit).channel is None:
            raise UnitError(f"Neuron takes 'layer:channel' or 'layer:channel:y:x', got {self.unit!r}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the neuron."""
        return (parse(self.unit).layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the activation of the neuron for each picture, (N,)."""
        unit = parse(self.unit)
        activation = activations[unit.layer]
        laid_out = channels_first(activation, self.channel_axis)
        check_channels([unit.channel], laid_out, unit.layer)  # type: ignore[list-item]
        if laid_out.shape[2] == 1 and unit.position is None:
            return laid_out[:, unit.channel, 0]
        return laid_out[:, unit.channel, position_index(activation, unit, self.channel_axis)]

    def titles(self, images: int) -> list[str]:
        """Returns the unit."""
        return [self.unit] * images


@dataclass(frozen=True, repr=False, eq=False)
class Direction(Objective):
    """How far the activations of a layer point in a direction of its channels, averaged over positions.

    Args:
        layer: Name of the layer.
        direction: (C,), or (N, C) for a direction for each picture.
        similarity: ``"dot"``, ``"cosine"``, or ``"dot-cosine"``: dot * max(0.1, cosine) ** power, which
            keeps the picture from growing in other directions (lucid's `_dot_cossim`).
        power: The power of the cosine.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        ShapeError: A direction of a wrong rank, or zero.
        ArgumentError: An unknown similarity.

    Example:
        >>> activation = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
        >>> Direction("conv1", torch.tensor([2.0, 0.0])).score({"conv1": activation})
        tensor([6.])
    """

    layer: str
    direction: Tensor
    similarity: Similarity = field(default="dot", kw_only=True)
    power: float = field(default=2.0, kw_only=True)
    channel_axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.direction.dim() not in (1, 2) or not self.direction.any():
            zeros = "" if self.direction.any() else " of zeros"
            raise ShapeError(
                f"a direction is a nonzero (channels,) or (images, channels), "
                f"got {tuple(self.direction.shape)}{zeros}"
            )
        object.__setattr__(self, "direction", self.direction.detach())
        if self.similarity not in get_args(Similarity):
            raise ArgumentError(f"similarity is one of {get_args(Similarity)}, got {self.similarity!r}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    @property
    def images(self) -> int | None:
        """One picture for each of several directions."""
        return len(self.direction) if self.direction.dim() == 2 else None

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the similarity of each picture, (N,)."""
        activation = channels_first(activations[self.layer], self.channel_axis)
        direction = self.direction.to(activation, non_blocking=True).reshape(-1, self.direction.shape[-1], 1)
        if direction.shape[1] != activation.shape[1]:
            raise ShapeError(
                f"a direction of {direction.shape[1]} channels does not fit layer {self.layer!r}, "
                f"which has {activation.shape[1]}"
            )
        dot = (activation * direction).sum(1)
        if self.similarity == "dot":
            return dot.mean(1)
        epsilon = 1e-4  # lucid's, added to each norm
        norms = torch.linalg.vector_norm(activation, dim=1), torch.linalg.vector_norm(direction, dim=1)
        cosine = dot / (norms[0] + epsilon) / (norms[1] + epsilon)
        if self.similarity == "cosine":
            return cosine.mean(1)
        return (dot * cosine.clamp(min=0.1) ** self.power).mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the layer's name, numbered where there are several directions."""
        return (
            [f"{self.layer} {i}" for i in range(images)]
            if self.images
            else [f"{self.layer} direction"] * images
        )


@dataclass(frozen=True, repr=False)
class ClassLogit(Objective):
    """The logit of a class.

    Args:
        target: Index of the class, or its name among the categories.
        layer: Where the logits are: by default the model's `logits_layer` if it has one, else its output.
        categories: Names of the classes, for a target that is a name: by default the model's `categories`
            or, for a Hugging Face model, the labels of its configuration.

    Raises:
        UnitError: A negative index. When a model is attached: a name that is not among its categories, an
            index that its logits do not have, or a name for a model without categories.

    Example:
        >>> ClassLogit(3, layer="head").score({"head": torch.arange(5.0)[None]})
        tensor([3.])
    """

    target: int | str
    layer: str | None = field(default=None, kw_only=True)
    categories: Sequence[str] | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.target, int) and self.target < 0:
            raise UnitError(f"the index of a class is a whole number from 0 on, got {self.target}")
        if self.categories is not None:
            object.__setattr__(self, "categories", tuple(self.categories))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the logits."""
        return (self.layer or "",)

    def bind(self, model: nn.Module) -> Objective:
        """Returns the objective with the layer and the index of the class filled in."""
        labels = getattr(getattr(model, "config", None), "id2label", None) or {}
        known = self.categories or getattr(model, "categories", None) or [labels[i] for i in sorted(labels)]
        layer = self.layer if self.layer is not None else getattr(model, "logits_layer", "")
        return replace(self, target=self._index(model, known), layer=layer, categories=known)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the logit of the class for each picture, (N,)."""
        logits = channels_first(activations[self.layers[0]])
        if not isinstance(self.target, int):
            raise UnitError(f"the index of class {self.target!r} is known once a model is attached")
        check_channels([self.target], logits, self.layers[0] or "output")
        return logits[:, self.target].mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the name of the class where it is known, else its index."""
        names: dict[int | str, str] = dict(enumerate(self.categories or ()))
        return [str(names.get(self.target, self.target))] * images

    def _index(self, model: nn.Module, known: Sequence[str] | None) -> int:
        if isinstance(self.target, int):
            return self.target
        if not known:
            raise UnitError(
                f"{type(model).__name__} has no categories to find {self.target!r} in: give "
                f"ClassLogit({self.target!r}, categories=[...]) or an index"
            )
        if self.target not in known:
            near = [name for name in known if self.target.lower() in name.lower()][:6] or list(known)[:6]
            raise UnitError(f"no class {self.target!r} among {len(known)} categories: {', '.join(near)}, ...")
        return list(known).index(self.target)
