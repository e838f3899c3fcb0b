"""Units as strings, and activations of any model in one layout.

The grammar of a unit::

    layer                  every unit of the layer        mixed3a
    layer:channel          one channel                    mixed3a:74
    layer:channel:token    a channel at one token         encoder.layers.3:20:0
    layer:channel:y:x      a channel at one position      mixed3a:74:3:5

Channels are axis 1 of (N, C, H, W) and (N, C) activations and the last axis of token activations (N, T, C).
Where that is wrong, as for the (N, H, W, C) maps of a Swin transformer, the axis is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

from torch import Tensor

from .errors import ShapeError, UnitError

_GRAMMAR = "'layer', 'layer:channel', 'layer:channel:token' or 'layer:channel:y:x'"


@dataclass(frozen=True)
class Unit:
    """A layer, or one of its channels, or a channel at one position.

    Attributes:
        layer: Name of a module.
        channel: Index of the channel, None for all.
        position: (y, x) on a map, (token,) in a sequence, None for all or for the centre.
    """

    layer: str
    channel: int | None = None
    position: tuple[int, ...] | None = None

    def __str__(self) -> str:
        numbers = () if self.channel is None else (self.channel, *(self.position or ()))
        return ":".join([self.layer, *map(str, numbers)])


def parse(text: str) -> Unit:
    """Returns the unit that a string names.

    Args:
        text: See the grammar above.

    Raises:
        UnitError: The string does not follow the grammar.

    Example:
        >>> parse("mixed3a:74")
        Unit(layer='mixed3a', channel=74, position=None)
    """
    layer, *numbers = text.split(":") if isinstance(text, str) else ("",)
    if not layer or len(numbers) > 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise UnitError(f"cannot read the unit {text!r}: expected {_GRAMMAR}, with whole numbers from 0 on")
    channel, *position = map(int, numbers) if numbers else (None,)
    return Unit(layer, channel, tuple(position) or None)


def channels_first(activation: Tensor, channel_axis: int | None = None) -> Tensor:
    """Returns the activation as (N, C, positions), a view wherever possible.

    Args:
        activation: (N, C), (N, C, H, W), (N, T, C), or any other shape with the batch first.
        channel_axis: The axis of the channels, where the rule of this module is wrong.

    Raises:
        ShapeError: The activation has no batch and channel axes, or not the axis that was named.

    Example:
        >>> import torch
        >>> channels_first(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 197])
    """
    axis = _channel_axis(activation, channel_axis)
    return activation.movedim(axis, 1).reshape(activation.shape[0], activation.shape[axis], -1)


def check_channels(channels: Sequence[int], activation: Tensor, layer: str) -> None:
    """Checks that channels exist in an activation.

    Args:
        channels: The indices.
        activation: (N, C, positions), as `channels_first` returns it.
        layer: The layer's name, for the message.

    Raises:
        UnitError: A channel is outside; the message says how many there are.
    """
    count = activation.shape[1]
    for channel in channels:
        if channel >= count:
            raise UnitError(
                f"no channel {channel} in layer {layer!r}: it has {count} channels, 0 to {count - 1}"
            )


def position_index(activation: Tensor, unit: Unit, channel_axis: int | None = None) -> int:
    """Returns the index of a unit's position among the flattened positions of `channels_first`.

    Without a position it is the centre: (H // 2, W // 2) of a map as in lucid, the middle of a sequence. The
    tokens of a vision transformer count as a square grid behind the class and register tokens (197 tokens: a
    class token and 14 x 14), so y:x and the centre mean places in the picture there.

    Args:
        activation: The activation as the layer returned it.
        unit: The unit; only its position is read, its layer is for the message.
        channel_axis: As for `channels_first`.

    Raises:
        UnitError: The position is outside of the layer.

    Example:
        >>> import torch
        >>> position_index(torch.zeros(1, 8, 6, 10), parse("conv:0:2:3"))
        23
    """
    axis = _channel_axis(activation, channel_axis)
    sizes = tuple(size for index, size in enumerate(activation.shape) if index not in (0, axis))
    position, first = unit.position, 0
    if len(sizes) == 1 and (position is None or len(position) == 2):
        side = isqrt(sizes[0])
        first, sizes = sizes[0] - side * side, (side, side)
    if position is None:
        position = tuple(size // 2 for size in sizes)
    if len(position) != len(sizes) or any(index >= size for index, size in zip(position, sizes, strict=True)):
        raise UnitError(
            f"no position {':'.join(map(str, position))} in layer {unit.layer!r}: its positions are {sizes}"
        )
    index = 0
    for step, size in zip(position, sizes, strict=True):
        index = index * size + step
    return first + index


def _channel_axis(activation: Tensor, named: int | None) -> int:
    rank = activation.dim()
    axis = named if named is not None else (rank - 1 if rank == 3 else 1)
    axis = axis + rank if axis < 0 else axis
    if rank < 2 or not 0 < axis < rank:
        raise ShapeError(
            f"expected an activation with a batch and a channel axis {axis}, got {tuple(activation.shape)}"
        )
    return axis
