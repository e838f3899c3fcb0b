"""How many dimensions the activations of a layer use: effective rank and participation ratio."""

import torch
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.finite import check_finite
from ..core.layout import channels_first


@checked
def effective_rank(activation: Tensor, *, centred: bool = False, channel_axis: int | None = None) -> float:
    """Returns the exponential of the entropy of the normalized singular values (Roy and Vetterli, 2007).

    It lies between 1 and the number of channels.

    Args:
        activation: (N, C), (N, C, H, W) or (N, T, C); every position counts as a sample.
        centred: Subtract the mean of each channel first.
        channel_axis: As in `toumei.core.channels_first`.

    Raises:
        ArgumentError: An activation of zeros.
        NonFiniteError: An activation with NaN or infinite numbers.

    Example:
        >>> round(effective_rank(torch.eye(4)), 4)
        4.0
    """
    shares = _singular_values(activation, centred, channel_axis)
    shares = shares / shares.sum()
    return float(torch.special.entr(shares).sum().exp())


@checked
def participation_ratio(
    activation: Tensor, *, centred: bool = True, channel_axis: int | None = None
) -> float:
    """Returns the squared sum of the covariance's eigenvalues over their sum of squares (Gao et al., 2017).

    The arguments and errors are those of `effective_rank`.

    Example:
        >>> round(participation_ratio(torch.eye(4), centred=False), 4)
        4.0
    """
    variances = _singular_values(activation, centred, channel_axis).square()
    return float(variances.sum().square() / variances.square().sum())


def _singular_values(activation: Tensor, centred: bool, channel_axis: int | None) -> Tensor:
    check_finite(activation, "activations")
    laid_out = channels_first(activation.detach(), channel_axis).double()
    samples = laid_out.movedim(1, 2).flatten(0, 1)
    samples = samples - samples.mean(0) if centred else samples
    values: Tensor = torch.linalg.eigvalsh(samples.T @ samples).clamp(min=0).sqrt()
    if not values.any():
        raise ArgumentError("an activation of zeros has no rank")
    return values
