"""Do contributions lie where the evidence is known to be?"""

from torch import Tensor

from ..core.errors import ShapeError


def heat(values: Tensor) -> Tensor:
    """Returns the magnitude of what each place of pictures contributes over its channels, (N, H, W)."""
    return values.detach().double().sum(1).abs()


def pointing_game(values: Tensor, masks: Tensor) -> Tensor:
    """Returns whether the place that contributes most lies in the mask, (N,) bool (Zhang et al., 2018).

    Args:
        values: Contributions (N, C, H, W).
        masks: (N, H, W) bool.

    Raises:
        ShapeError: Masks that do not fit.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[0.0, 3.0], [1.0, -1.0]]]])
        >>> pointing_game(values, torch.tensor([[[True, False], [True, True]]]))
        tensor([False])
    """
    own = _fitting(values, masks)
    best = own.flatten(1).argmax(1, keepdim=True)
    return masks.cpu().bool().flatten(1).gather(1, best)[:, 0]


def mass_inside(values: Tensor, masks: Tensor) -> Tensor:
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
        >>> mass_inside(values, torch.tensor([[[True, False], [True, True]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    own = _fitting(values, masks).flatten(1)
    inside = (own * masks.cpu().flatten(1)).sum(1)
    return inside / own.sum(1).clamp(min=1e-300)


def _fitting(values: Tensor, masks: Tensor) -> Tensor:
    if values.dim() != 4 or masks.shape != (len(values), *values.shape[2:]):
        raise ShapeError(
            f"contributions (N, C, H, W) and masks (N, H, W), got {tuple(values.shape)}, {tuple(masks.shape)}"
        )
    return heat(values.cpu())
