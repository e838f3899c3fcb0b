"""Objectives for the units of a network: layers, channels and neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import UnitError
from ...core.layout import channels_of
from ...core.names import Unit, parse
from .objective import ActivationMap, Objective


@checked
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


@checked
@dataclass(frozen=True, repr=False)
class DeepDream(Layer):
    """The mean squared activation of a layer, so that all of its activity grows (Mordvintsev et al. 2015).

    Args:
        layer: Name of the layer.

    Example:
        >>> DeepDream("conv1").score({"conv1": torch.full((1, 5, 4, 4), 3.0)})
        tensor([9.])
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the mean square over all axes but the first, (N,)."""
        return activations[self.layer].flatten(1).square().mean(1)


@checked
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

    unit: str | Unit
    channels: Sequence[int] | None = None
    channel_axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        parsed = parse(self.unit)
        if parsed.position is not None or (parsed.channel is None) == (self.channels is None):
            raise UnitError(
                f"Channel takes 'layer:channel', or 'layer' and channels=[...]; got {str(self.unit)!r}"
                f"{'' if self.channels is None else f' and channels={self.channels}'}"
            )
        if self.channels is not None:
            channels = tuple(map(index, self.channels))
            if not channels or min(channels) < 0:
                raise UnitError(f"channels are whole numbers from 0 up, at least one; got {self.channels}")
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
        channels = channels_of(activations, unit, self.channel_axis)
        channels.check([unit.channel, *(self.channels or ())])
        activation = channels.values
        if self.channels is None:
            return activation[:, unit.channel].mean(1)
        images = torch.arange(len(self.channels), device=activation.device)
        chosen = torch.tensor(self.channels).to(activation.device, non_blocking=True)
        return activation[images, chosen].mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the unit of each picture."""
        if self.channels is None:
            return [str(self.unit)] * images
        return [f"{self.unit}:{channel}" for channel in self.channels]


@checked
@dataclass(frozen=True, repr=False)
class Neuron(Objective):
    """The activation of one channel at one position, by default at the centre of the map.

    Args:
        unit: ``"layer:channel"`` for the centre (H // 2, W // 2), ``"layer:channel:y:x"``, or
            ``"layer:channel:token"``. Of a vision transformer, y:x and the centre mean the patch there.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.

    Raises:
        UnitError: A malformed unit, or one without a channel.

    Example:
        >>> activation = torch.arange(8.0).reshape(1, 2, 2, 2)
        >>> Neuron("conv1:1").score({"conv1": activation}), Neuron("conv1:1:0:1").score({"conv1": activation})
        (tensor([7.]), tensor([5.]))
    """

    unit: str | Unit
    channel_axis: int | None = field(default=None, kw_only=True)
    grid: tuple[int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if parse(self.unit).channel is None:
            raise UnitError(f"Neuron takes 'layer:channel' or 'layer:channel:y:x', got {str(self.unit)!r}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the neuron."""
        return (parse(self.unit).layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the activation of the neuron for each picture, (N,)."""
        unit = parse(self.unit)
        channels = channels_of(activations, unit, self.channel_axis, self.grid)
        channels.check([unit.channel])
        return channels.values[:, unit.channel, channels.index(unit.position)]

    def titles(self, images: int) -> list[str]:
        """Returns the unit."""
        return [str(self.unit)] * images
