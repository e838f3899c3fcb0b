"""Do contributions lie where the evidence is known to be?"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import ArgumentError, ShapeError


def pointing_game(values: Tensor, masks: Tensor) -> Tensor:
    """Returns whether the place that speaks most for the target lies in the mask, (N,): 1 or 0.

    It is the highest place of the map, as in the paper (Zhang et al., 2018): a strong reason against the
    target is no hit. Where several places are as high, such as those of one superpixel, it is the share of
    them that lies in the mask: what a pick at random would score in the mean. Unlike in the paper, a place
    beside the mask is no hit, however near it is.

    Args:
        values: Contributions (N, C, H, W).
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[-4.0, 3.0], [1.0, -1.0]]], [[[2.0, 2.0], [0.0, 0.0]]]])
        >>> pointing_game(values, torch.tensor([[[True, False], [True, True]]]).expand(2, 2, 2))
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    own = _summed(values, masks).flatten(1)
    best = (own == own.amax(1, keepdim=True)).double()
    return (best * masks.cpu().flatten(1)).sum(1) / best.sum(1)


def relevance_mass_accuracy(values: Tensor, masks: Tensor) -> Tensor:
    """Returns the share of the magnitude of contributions that lies in the mask, (N,).

    Contributions at random have the mask's share of the picture. Without any contribution it is 0.

    Args:
        values: Contributions (N, C, H, W).
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[0.0, 3.0], [2.0, -1.0]]]])
        >>> relevance_mass_accuracy(values, torch.tensor([[[True, False], [True, True]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    own = _summed(values, masks).abs().flatten(1)
    inside = (own * masks.cpu().flatten(1)).sum(1)
    return inside / own.sum(1).clamp(min=1e-300)


def balance_inside(values: Tensor, masks: Tensor) -> Tensor:
    """Returns how much more speaks for the target than against it inside the mask, (N,) from -1 to 1.

    It is the sum of the contributions in the mask, as a share of all magnitude. Where
    `relevance_mass_accuracy` says
    whether a map shows the object, this says whether the object is a reason: contributions whose sign is
    random, as in a network that was never trained, have 0 in the mean, wherever they lie.

    Args:
        values: Contributions (N, C, H, W).
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[0.0, 3.0], [2.0, -1.0]]]])
        >>> balance_inside(values, torch.tensor([[[True, False], [True, True]]]))
        tensor([0.1667], dtype=torch.float64)
    """
    own = _summed(values, masks).flatten(1)
    inside = (own * masks.cpu().flatten(1)).sum(1)
    return inside / own.abs().sum(1).clamp(min=1e-300)


def chance_level(
    measure: Callable[[Tensor, Tensor], Tensor], values: Tensor, masks: Tensor, others: int = 30
) -> Tensor:
    """Returns what a measure says of contributions and the masks of other images, the mean over them, (N,).

    So much comes from the places that contributions and objects prefer, such as the middle, and from the size
    of objects; what is above it comes from the image.

    Args:
        measure: `relevance_mass_accuracy`, `pointing_game` or `balance_inside`.
        values: Contributions (N, C, H, W).
        masks: (N, H, W) bool.
        others: Over how many masks at most.

    Raises:
        ArgumentError: There are no other images.
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])
        >>> masks = torch.tensor([[[True, False]], [[False, True]]])
        >>> relevance_mass_accuracy(values, masks), chance_level(relevance_mass_accuracy, values, masks)
        (tensor([1., 1.], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """
    if len(masks) < 2 or others < 1:
        raise ArgumentError(f"masks of others need two images or more, got {len(masks)} and others={others}")
    shifts = range(1, min(len(masks), others + 1))
    return torch.stack([measure(values, masks.roll(shift, 0)) for shift in shifts]).mean(0)


def located(values: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Returns the columns (N,) that say whether contributions (N, C, H, W) lie in masks (N, H, W)."""
    found = {"balance": balance_inside(values, masks)}
    for name, measure in (("inside", relevance_mass_accuracy), ("pointing", pointing_game)):
        found[name] = measure(values, masks)
        if len(masks) > 1:
            found[f"{name}_chance"] = chance_level(measure, values, masks)
    return found


def _summed(values: Tensor, masks: Tensor) -> Tensor:
    """What each place of pictures contributes over its channels, (N, H, W)."""
    if values.dim() != 4 or masks.shape != (len(values), *values.shape[2:]):
        raise ShapeError(
            f"contributions (N, C, H, W) and masks (N, H, W), got {tuple(values.shape)}, {tuple(masks.shape)}"
        )
    return values.detach().cpu().double().sum(1)
