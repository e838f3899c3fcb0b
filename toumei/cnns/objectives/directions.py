"""Objectives for directions in the channels of a layer: at all positions, at one, or one for each."""

from dataclasses import dataclass, field, replace
from operator import ge
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.layout import channels_first, channels_of, layout_in
from ...core.modules import device_and_dtype
from ...core.summaries import counted
from .objective import ActivationMap, Objective

Similarity = Literal["dot", "cosine", "dot-cosine"]


@checked
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
        self._check()
        if not self.direction.any():
            raise ShapeError(f"a direction is nonzero, got {tuple(self.direction.shape)} of zeros")
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

    def bind(self, model: nn.Module) -> Objective:
        """Returns the objective with its direction on the device of the model."""
        return replace(self, direction=self.direction.to(device_and_dtype(model)[0]))

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the similarity of each picture, (N,)."""
        activation, direction = self._pair(activations)
        if direction.shape[1] != activation.shape[1]:
            raise ShapeError(
                f"a direction of {counted(direction.shape[1], 'channel')} does not fit layer {self.layer!r}, "
                f"which has {activation.shape[1]}"
            )
        direction = direction.to(activation, non_blocking=True)
        return _similarity(activation, direction, self.similarity, self.power).mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the layer's name, numbered where there are several directions."""
        if self.images is None:
            return [f"{self.layer} direction"] * images
        return [f"{self.layer} {index}" for index in range(images)]

    def _check(self) -> None:
        if self.direction.dim() not in (1, 2):
            raise ShapeError(
                f"a direction is a nonzero (channels,) or (images, channels), "
                f"got {tuple(self.direction.shape)}"
            )

    def _pair(self, activations: ActivationMap) -> tuple[Tensor, Tensor]:
        """Returns the activation and the direction as (N or 1, C, positions or 1)."""
        direction = self.direction.reshape(-1, self.direction.shape[-1], 1)
        return channels_of(activations, self.layer, self.channel_axis).values, direction


@checked
@dataclass(frozen=True, repr=False, eq=False)
class NeuronDirection(Direction):
    """How far the activation of a layer points in a direction of its channels at one position.

    Args:
        layer: Name of the layer.
        direction: (C,), or (N, C) for a direction for each picture.
        position: (y, x) or (token,); by default the centre, (H // 2, W // 2).
        similarity: As for `Direction`.
        power: The power of the cosine.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.

    Raises:
        ShapeError: A direction of a wrong rank, or zero.
        ArgumentError: An unknown similarity.
        UnitError: When a model is attached: a position outside of the layer.

    Example:
        >>> activation = torch.arange(8.0).reshape(1, 2, 2, 2)
        >>> NeuronDirection("conv1", torch.ones(2), (0, 1)).score({"conv1": activation})
        tensor([6.])
    """

    position: tuple[int, ...] | None = None
    grid: tuple[int, int] | None = field(default=None, kw_only=True)

    def _pair(self, activations: ActivationMap) -> tuple[Tensor, Tensor]:
        _, direction = super()._pair(activations)
        channels = channels_of(activations, self.layer, self.channel_axis, self.grid)
        index = channels.index(self.position)
        return channels.values[:, :, index : index + 1], direction


@checked
@dataclass(frozen=True, repr=False, eq=False)
class TensorDirection(Direction):
    """How far the activation of a layer points in a direction at each position, with one direction for each.

    If the map is larger than the direction, only its centre is compared, as in lucid.

    Args:
        layer: Name of the layer.
        direction: In the layout of the layer, (1, C, H, W) or (1, T, C), or one for each picture.
        similarity: As for `Direction`, position by position.
        power: The power of the cosine.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        ShapeError: A direction of a wrong rank, or zero. When a model is attached: one larger than the map.
        ArgumentError: An unknown similarity.

    Example:
        >>> TensorDirection("conv1", torch.ones(1, 2, 3, 3)).score({"conv1": torch.ones(1, 2, 7, 5)})
        tensor([2.])
    """

    @property
    def images(self) -> int | None:
        """One picture for each of several directions."""
        return len(self.direction) if len(self.direction) > 1 else None

    def _check(self) -> None:
        if self.direction.dim() < 3:
            raise ShapeError(
                f"a direction for each position is a nonzero (1, C, H, W) or (1, T, C), or one for each "
                f"picture, got {tuple(self.direction.shape)}"
            )

    def _pair(self, activations: ActivationMap) -> tuple[Tensor, Tensor]:
        activation, direction = activations[self.layer], self.direction
        layout = layout_in(activations, self.layer)
        axis = layout.channel_axis if self.channel_axis is None and layout else self.channel_axis
        sizes, wanted = activation.shape[1:], direction.shape[1:]
        channels = {channels_first(one, axis).shape[1] for one in (activation, direction)}
        fits = len(sizes) == len(wanted) and all(map(ge, sizes, wanted)) and len(channels) == 1
        if not fits or (len(sizes) == 2 and sizes != wanted):  # tokens have no centre to crop
            raise ShapeError(
                f"a direction {tuple(wanted)} does not fit layer {self.layer!r}, which makes {tuple(sizes)}"
            )
        for index, (size, part) in enumerate(zip(sizes, wanted, strict=True), start=1):
            activation = activation.narrow(index, (size - part) // 2, part)
        return channels_first(activation, axis), channels_first(direction, axis)


def _similarity(activation: Tensor, direction: Tensor, kind: Similarity, power: float) -> Tensor:
    """Returns the similarity of vectors (N, C, P) and (N or 1, C, P or 1), (N, P)."""
    dot = (activation * direction).sum(1)
    if kind == "dot":
        return dot
    epsilon = 1e-4  # lucid's, added to each norm
    norms = torch.linalg.vector_norm(activation, dim=1), torch.linalg.vector_norm(direction, dim=1)
    cosine: Tensor = dot / (norms[0] + epsilon) / (norms[1] + epsilon)
    return cosine if kind == "cosine" else dot * cosine.clamp(min=0.1) ** power
