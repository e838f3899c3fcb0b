"""Linear surrogates: weighted ridge regression in closed form, Lasso, and how well they fit."""

import torch
from torch import Tensor


def weighted_r_squared(scores: Tensor, fitted: Tensor, weights: Tensor) -> Tensor:
    """Returns the share of the weighted variance of scores that is fitted, (...); 1 for constant scores.

    Args:
        scores: (C, ...).
        fitted: (C, ...).
        weights: (C,) or (C, ...).
    """
    weights = weights.reshape(*weights.shape, *(1,) * (scores.dim() - weights.dim()))
    mean = (weights * scores).sum(0) / weights.sum(0)
    rest = (weights * (scores - fitted).square()).sum(0)
    spread = (weights * (scores - mean).square()).sum(0)
    # rounding errors of a constant are no variance
    constant = spread <= 1e-14 * (weights * scores.square()).sum(0)
    return torch.where(constant, 1.0, 1 - rest / spread.clamp(min=torch.finfo(spread.dtype).tiny))
