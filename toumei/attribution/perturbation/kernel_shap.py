"""KernelSHAP: Shapley values by a weighted regression on some of the coalitions."""

import torch
from torch import Tensor

from ...core.seeding import make_generator
from .coalitions import CoalitionMethod, Game, Solution
from .kernel_shap_design import Design, kernel_design
from .surrogate import weighted_r_squared


class KernelShap(CoalitionMethod):
    """Shapley values as the closest additive explanation of scores of coalitions (Lundberg and Lee, 2017).

    Values are those of `ExactShapley` once all 2^M coalitions are asked for, with one pass for each. The
    standard error comes from the residuals of the coalitions that were drawn.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = KernelShap(nn.Sequential(nn.Linear(20, 3), nn.Tanh(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 20), target=1, samples=200)
        >>> bool(result.gap.abs().max() < 1e-5), result.r_squared.shape
        (True, torch.Size([5]))
    """

    def solve(self, game: Game, *, seed: int | None, samples: int | None = None) -> Solution:
        """Returns the values, their standard errors and the weighted R² of the regression.

        Args:
            game: The scores of coalitions.
            seed: Seed of the coalitions, which all inputs share.
            samples: How many coalitions are asked for; by default 2 M + 2048, and never more than there are.

        Raises:
            ArgumentError: Too few samples for that many features.
        """
        if game.count == 1:
            values = (game.full - game.empty)[:, None]
            return Solution(values, torch.zeros_like(values), torch.ones_like(game.full))
        samples = 2 * game.count + 2048 if samples is None else samples
        design = kernel_design(game.count, samples, make_generator(seed))
        scores = game.values(design.keep)
        values, error = kernel_regression(design, scores, game.full, game.empty)
        fitted = torch.einsum("cm,rmt->crt", design.keep.double(), values) + game.empty
        return Solution(values, error, weighted_r_squared(scores, fitted, design.weights))


def kernel_regression(design: Design, scores: Tensor, full: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Returns values (R, M, T) and their standard errors, in float64.

    The values minimize the weighted sum of (score - empty - sum of values of the coalition)^2, while all of
    them sum to full - empty.

    Args:
        design: C coalitions and their weights.
        scores: (C, R, T) of the coalitions.
        full: (R, T) with all features.
        empty: (R, T) without any.
    """
    members = design.keep.double()
    weighted = members * design.weights[:, None]
    factor = torch.linalg.cholesky(members.T @ weighted)
    ones = torch.cholesky_solve(members.new_ones(members.shape[1], 1), factor)
    effects = torch.cholesky_solve(weighted.T, factor)
    # (M, C): what each coalition's score moves the values by, and the part that leaves their sum as it is
    effects = effects - ones @ effects.sum(0, keepdim=True) / ones.sum()
    shares = ones[:, 0] / ones.sum()
    values = torch.einsum("mc,crt->rmt", effects, scores - empty)
    values = values + shares[:, None] * (full - empty)[:, None]
    residuals = scores - empty - torch.einsum("cm,rmt->crt", members, values)
    # a pair draws the fit towards itself: undone as if the pair had been left out
    pulled = 1 - 2 * (effects * members.T).sum(0)
    residuals = residuals * (design.sampled / pulled.clamp(min=1e-3))[:, None, None]
    # a complement moves the values the other way
    both = residuals[::2] - residuals[1::2]
    return values, torch.einsum("mp,prt->rmt", effects[:, ::2].square(), both.square()).sqrt()
