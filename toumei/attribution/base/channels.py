"""The positions of a tensor: where something is, as opposed to the channels, which say what it is.

Channels are axis 1 of maps (N, C, H, W) and of videos (N, C, T, H, W), and the last axis of tokens (N, T, C).
Tabular inputs (N, M) have none. Signals (N, C, L) look like tokens: give `channel_axis` for them.
"""

import torch
from torch import Tensor

from ...core.errors import ShapeError


def channels_of(tensor: Tensor, channel_axis: int | None = None) -> int | None:
    """Returns the axis of a tensor's channels, None where it has none.

    Args:
        tensor: (N, ...).
        channel_axis: The axis, where the rule of this module is wrong.

    Raises:
        ShapeError: The tensor does not have the axis that is named.

    Example:
        >>> signals = torch.zeros(1, 6, 2)
        >>> channels_of(signals), channels_of(signals, 1)
        (2, 1)
    """
    rank = tensor.dim()
    if rank < 3:
        return None
    axis = (2 if rank == 3 else 1) if channel_axis is None else channel_axis
    axis = axis + rank if axis < 0 else axis
    if not 0 < axis < rank:
        raise ShapeError(f"channels are on axis 1 to {rank - 1} of {tuple(tensor.shape)}, got {channel_axis}")
    return axis


def positions(tensor: Tensor, channel_axis: int | None = None) -> torch.Size:
    """Returns the sizes of the axes of positions: all axes but those of the batch and of the channels.

    Example:
        >>> positions(torch.zeros(1, 3, 4, 5)), positions(torch.zeros(1, 6, 2))
        (torch.Size([4, 5]), torch.Size([6]))
        >>> positions(torch.zeros(1, 6, 2), 1)
        torch.Size([2])
    """
    channels = channels_of(tensor, channel_axis)
    return torch.Size(size for axis, size in enumerate(tensor.shape) if axis not in (0, channels))


def add_channels(mask: Tensor, tensor: Tensor, channel_axis: int | None = None) -> Tensor:
    """Returns a mask of positions (b, ...) with an axis for the channels, so that it broadcasts to a tensor.

    Example:
        >>> add_channels(torch.ones(2, 4, 5), torch.zeros(1, 3, 4, 5)).shape
        torch.Size([2, 1, 4, 5])
    """
    channels = channels_of(tensor, channel_axis)
    return mask if channels is None else mask.unsqueeze(channels)


def over_channels(values: Tensor, tensor: Tensor, channel_axis: int | None = None) -> Tensor:
    """Returns values of positions (T, N, ...) spread evenly over a tensor's channels, in its shape.

    Example:
        >>> over_channels(torch.ones(1, 1, 4, 5), torch.zeros(1, 2, 4, 5)).unique()
        tensor([0.5000])
    """
    channels = channels_of(tensor, channel_axis)
    count = 1 if channels is None else tensor.shape[channels]
    shares = add_channels(values.flatten(0, 1), tensor, channel_axis) / count
    result: Tensor = shares.expand(-1, *tensor.shape[1:]).unflatten(0, values.shape[:2])
    return result
