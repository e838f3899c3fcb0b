"""Objectives for weighted groups of units: channels of a layer, neurons in a window."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ShapeError, UnitError
from ...core.layout import channels_of
from ...core.summaries import counted
from .objective import ActivationMap, Objective


@checked
@dataclass(frozen=True, repr=False, eq=False)
class ChannelWeights(Objective):
    """A weighted sum of the channels of a layer, each in the mean over its positions.

    Args:
        layer: Name of the layer.
        weights: ``{channel: weight}`` for a few channels; or a weight for each channel, (C,), or for each
            channel of each picture, (N, C).
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        UnitError: No weights, or a negative channel. When a model is attached: a channel that does not exist.
        ShapeError: Weights of a wrong rank. When a model is attached: weights for other channels.

    Example:
        >>> ChannelWeights("conv1", {0: 1.0, 4: -0.5}).score({"conv1": torch.ones(2, 5, 4, 4)})
        tensor([0.5000, 0.5000])
    """

    layer: str
    weights: Tensor | Mapping[int, float]
    channel_axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.weights, Tensor):
            if self.weights.dim() not in (1, 2):
                raise ShapeError(
                    f"weights are (channels,) or (images, channels), got {tuple(self.weights.shape)}"
                )
            object.__setattr__(self, "weights", self.weights.detach())
        elif not self.weights or any(type(one) is not int or one < 0 for one in self.weights):
            raise UnitError(f"weights are for channels from 0 up, at least one; got {self.weights}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    @property
    def images(self) -> int | None:
        """One picture for each of several rows of weights."""
        rows = isinstance(self.weights, Tensor) and self.weights.dim() == 2
        return len(self.weights) if rows else None

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the weighted sum of the channels' means for each picture, (N,)."""
        channels = channels_of(activations, self.layer, self.channel_axis)
        means = channels.values.mean(2)
        if isinstance(self.weights, Tensor):
            _check_weights(self.weights.shape[-1], channels.values, self.layer)
            return (means * self.weights.to(means, non_blocking=True)).sum(1)
        channels.check(list(self.weights))
        terms = [weight * means[:, channel] for channel, weight in self.weights.items()]
        return torch.stack(terms).sum(0)

    def titles(self, images: int) -> list[str]:
        """Returns the layer's name, with the channels where they are few."""
        if isinstance(self.weights, Tensor):
            return [f"{self.layer} weights"] * images
        terms = [f"{weight:+g}*{channel}" for channel, weight in self.weights.items()]
        return [f"{self.layer}:{' '.join(terms)}"] * images


@checked
@dataclass(frozen=True, repr=False, eq=False)
class LocalGroup(Objective):
    """The neurons of a layer in a window of its map, weighted: lucent's `localgroup_weight`.

    Args:
        layer: Name of the layer.
        window: (y, x, height, width) on the map; of a vision transformer, on its patches.
        weights: For each channel, (C,), or for each neuron of the window, (C, height, width); without them
            the score is the mean over the window and the channels.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.

    Raises:
        UnitError: A window without neurons. When a model is attached: one that leaves the map.
        ShapeError: Weights of a wrong shape. When a model is attached: weights for other channels.

    Example:
        >>> LocalGroup("conv1", (1, 0, 2, 3)).score({"conv1": torch.ones(2, 5, 4, 4)})
        tensor([1., 1.])
    """

    layer: str
    window: tuple[int, int, int, int]
    weights: Tensor | None = None
    channel_axis: int | None = field(default=None, kw_only=True)
    grid: tuple[int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        y, x, height, width = self.window
        if min(y, x) < 0 or min(height, width) < 1:
            raise UnitError(f"a window is (y, x, height, width) with at least one neuron, got {self.window}")
        if self.weights is None:
            return
        if self.weights.dim() == 0 or self.weights.shape[1:] not in ((), (height, width)):
            raise ShapeError(
                f"weights are (channels,) or (channels, {height}, {width}), got {tuple(self.weights.shape)}"
            )
        object.__setattr__(self, "weights", self.weights.detach())

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the weighted sum over channels in the mean over the window for each picture, (N,)."""
        channels = channels_of(activations, self.layer, self.channel_axis, self.grid)
        y, x, height, width = self.window
        positions = [
            channels.index((y + row, x + column)) for row in range(height) for column in range(width)
        ]
        group = channels.values[:, :, positions]
        if self.weights is None:
            return group.mean((1, 2))
        _check_weights(len(self.weights), group, self.layer)
        weights = self.weights.to(group, non_blocking=True).reshape(len(self.weights), -1)
        return (group * weights).sum(1).mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the layer's name and the window."""
        return [f"{self.layer} {self.window}"] * images


def _check_weights(count: int, activation: Tensor, layer: str) -> None:
    if count != activation.shape[1]:
        raise ShapeError(
            f"weights for {counted(count, 'channel')} do not fit layer {layer!r}, which has "
            f"{activation.shape[1]}"
        )
