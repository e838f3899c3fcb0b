"""The places of a tensor: where something is, whatever the channels that say what it is."""

import torch
from torch import Tensor


def places(tensor: Tensor) -> torch.Size:
    """Returns the axes over places: of maps (N, C, H, W) height and width, of others the second axis.

    Example:
        >>> places(torch.zeros(1, 3, 4, 5)), places(torch.zeros(1, 6, 2))
        (torch.Size([4, 5]), torch.Size([6]))
    """
    return tensor.shape[2:] if tensor.dim() == 4 else tensor.shape[1:2]


def lifted(mask: Tensor, tensor: Tensor) -> Tensor:
    """Returns a mask of places (b, ...) with axes for the channels, so that it broadcasts to a tensor.

    Example:
        >>> lifted(torch.ones(2, 4, 5), torch.zeros(1, 3, 4, 5)).shape
        torch.Size([2, 1, 4, 5])
    """
    if tensor.dim() == 4:
        return mask[:, None]
    return mask.reshape(*mask.shape, *(1,) * (tensor.dim() - 2))


def over_channels(values: Tensor, tensor: Tensor) -> Tensor:
    """Returns values of places (T, N, ...) spread evenly over a tensor's channels, (T, N, ...) in its shape.

    Example:
        >>> over_channels(torch.ones(1, 1, 4, 5), torch.zeros(1, 2, 4, 5)).unique()
        tensor([0.5000])
    """
    channels = tensor[0].numel() // places(tensor).numel()
    own = lifted(values.flatten(0, 1), tensor) / channels
    return own.expand(-1, *tensor.shape[1:]).unflatten(0, values.shape[:2])
