"""Whether contributions lie where the evidence is known to be."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.checks import check_no_nan, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.finite import check_finite
from ...core.kinds import shown
from ..base.result import Attribution, values_of


@checked
def pointing_game(values: Tensor | Attribution, masks: Tensor) -> Tensor:
    """Returns whether the position with the largest contribution lies in the mask, (N,): 1 or 0.

    It is the maximum of the map, as in the paper (Zhang et al., 2018): a strong reason against the target is
    no hit. Where several positions share the maximum, such as those of one superpixel, it is the share of
    them in the mask: the expected score of a random one. Unlike in the paper, a position near the mask but
    outside of it is no hit.

    Args:
        values: Contributions (N, C, H, W), or what a method returned.
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[-4.0, 3.0], [1.0, -1.0]]], [[[2.0, 2.0], [0.0, 0.0]]]])
        >>> pointing_game(values, torch.tensor([[[True, False], [True, True]]]).expand(2, 2, 2))
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    summed = _summed(values, masks).flatten(1)
    best = (summed == summed.amax(1, keepdim=True)).double()
    return (best * masks.cpu().flatten(1)).sum(1) / best.sum(1)


@checked
def relevance_mass_accuracy(values: Tensor | Attribution, masks: Tensor) -> Tensor:
    """Returns the share of the magnitude of contributions that lies in the mask, (N,).

    For random contributions it is the mask's share of the picture; without any contribution it is 0.

    Args:
        values: Contributions (N, C, H, W), or what a method returned.
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[0.0, 3.0], [2.0, -1.0]]]])
        >>> relevance_mass_accuracy(values, torch.tensor([[[True, False], [True, True]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    magnitude = _summed(values, masks).abs().flatten(1)
    inside = (magnitude * masks.cpu().flatten(1)).sum(1)
    return inside / magnitude.sum(1).clamp(min=1e-300)


@checked
def balance_inside(values: Tensor | Attribution, masks: Tensor) -> Tensor:
    """Returns the sum of contributions in the mask as a share of all magnitude, (N,) from -1 to 1.

    `relevance_mass_accuracy` says whether a map shows the object; this says whether the object is a reason
    for the target: contributions with random signs, as in a network that was never trained, have a mean of 0.

    Args:
        values: Contributions (N, C, H, W), or what a method returned.
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[0.0, 3.0], [2.0, -1.0]]]])
        >>> balance_inside(values, torch.tensor([[[True, False], [True, True]]]))
        tensor([0.1667], dtype=torch.float64)
    """
    summed = _summed(values, masks).flatten(1)
    inside = (summed * masks.cpu().flatten(1)).sum(1)
    return inside / summed.abs().sum(1).clamp(min=1e-300)


@checked
def chance_level(
    measure: Callable[[Tensor, Tensor], Tensor],
    values: Tensor | Attribution,
    masks: Tensor,
    others: int = 30,
) -> Tensor:
    """Returns the mean of a measure over the masks of other images, (N,).

    This much comes from the positions that contributions and objects prefer, such as the middle, and from the
    size of objects; only what is above it comes from the image.

    Args:
        measure: `relevance_mass_accuracy`, `pointing_game` or `balance_inside`.
        values: Contributions (N, C, H, W), or what a method returned.
        masks: (N, H, W) bool.
        others: Most masks to take the mean over.

    Raises:
        ArgumentError: There are no other images, or `measure` returned something else than (N,).
        NonFiniteError: It returned NaN.
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])
        >>> masks = torch.tensor([[[True, False]], [[False, True]]])
        >>> relevance_mass_accuracy(values, masks), chance_level(relevance_mass_accuracy, values, masks)
        (tensor([1., 1.], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """
    if not masks.dim() or len(masks) < 2 or others < 1:
        raise ArgumentError(
            f"the chance level needs masks of two images or more, got {shown(masks)} and others={others}"
        )
    shifts = range(1, min(len(masks), others + 1))
    values = values_of(values)
    found = [measure(values, masks.roll(shift, 0)) for shift in shifts]
    for one in found:
        if not isinstance(one, Tensor) or one.shape != values.shape[:1]:
            raise ArgumentError(
                f"measure returns a number for each image, ({len(values)},); it returned {shown(one)}"
            )
        check_no_nan("measure", one)
    return torch.stack(found).mean(0)


def located(values: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Returns the columns (N,) that say whether contributions (N, C, H, W) lie in masks (N, H, W)."""
    found = {"balance": balance_inside(values, masks)}
    for name, measure in (("inside", relevance_mass_accuracy), ("pointing", pointing_game)):
        found[name] = measure(values, masks)
        if len(masks) > 1:
            found[f"{name}_chance"] = chance_level(measure, values, masks)
    return found


def _summed(values: Tensor | Attribution, masks: Tensor) -> Tensor:
    """The contributions of pictures, summed over channels, (N, H, W)."""
    values = values_of(values)
    if values.dim() != 4 or masks.shape != (len(values), *values.shape[2:]):
        raise ShapeError(
            f"contributions (N, C, H, W) and masks (N, H, W), got {tuple(values.shape)}, {tuple(masks.shape)}"
        )
    check_finite(values, "the contributions")
    return values.detach().cpu().double().sum(1)
