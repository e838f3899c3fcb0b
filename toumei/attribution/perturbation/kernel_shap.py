"""KernelSHAP: Shapley values by a weighted regression on some of the coalitions."""

import torch
from torch import Tensor

from ...core.checks import check_counts, check_memory
from ...core.seeding import make_generator
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from .coalitions import CoalitionMethod, Game, Solution
from .features import FeaturesLike
from .kernel_shap_design import Design, kernel_design
from .surrogate import weighted_r_squared


class KernelShap(CoalitionMethod):
    """Shapley values as the closest additive explanation of scores of coalitions (Lundberg and Lee, 2017).

    With all 2^M coalitions, one pass for each, the values are those of `ExactShapley`. The standard error
    comes from the residuals of the coalitions that were drawn; where none or one pair of them was, as with
    2 M samples, it cannot be told and is None.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        samples: How many coalitions are scored, at most 2^M for M features; by default 2 M + 2048.
        features: Which numbers belong together, as for every `CoalitionMethod`: whole numbers in the shape of
            the inputs, or a function from the inputs to them. By default superpixels of pictures, else each
            position, token or column.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: A score is the mean over so many samples of a random baseline, such as `FromData`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of the coalitions, which all inputs share, and of a random baseline.
        verbose: Show progress after two seconds.

    Example:
        >>> from torch import nn
        >>> method = KernelShap(nn.Sequential(nn.Linear(20, 3), nn.Tanh(), nn.Linear(3, 2)), samples=200)
        >>> result = method(torch.randn(5, 20), target=1)
        >>> bool(result.gap.abs().max() < 1e-5), result.r_squared.shape
        (True, torch.Size([5]))
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        samples: int | None = None,
        features: FeaturesLike = None,
        channel_axis: int | None = None,
        baseline_samples: int = 10,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            model,
            layer,
            preprocess,
            features=features,
            channel_axis=channel_axis,
            baseline_samples=baseline_samples,
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
        )
        check_counts(2, samples=samples)
        self.samples = samples

    def solve(self, game: Game) -> Solution:
        """Returns the values, their standard errors and the weighted R² of the regression.

        Raises:
            ArgumentError: Too few samples for the number of features.
        """
        if game.count == 1:
            values = (game.full - game.empty)[:, None]
            return Solution(values, torch.zeros_like(values), torch.ones_like(game.full))
        samples = 2 * game.count + 2048 if self.samples is None else self.samples
        check_memory(
            f"a regression of {samples:,} coalitions of {game.count:,} features",
            samples * game.count,
            "give fewer samples=..., or fewer features=..., such as superpixels",
            itemsize=24,
        )
        design = kernel_design(game.count, samples, make_generator(self.seed))
        scores = game.values(design.keep)
        values, error = kernel_regression(design, scores, game.full, game.empty)
        fitted = torch.einsum("cm,rmt->crt", design.keep.double(), values) + game.empty
        r_squared = weighted_r_squared(scores, fitted, design.weights)
        return Solution(values, error if design.tells_errors else None, r_squared)


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
    # (M, C): how each coalition's score changes the values, and then the part that keeps their sum
    effects = effects - ones @ effects.sum(0, keepdim=True) / ones.sum()
    shares = ones[:, 0] / ones.sum()
    values = torch.einsum("mc,crt->rmt", effects, scores - empty)
    values = values + shares[:, None] * (full - empty)[:, None]
    residuals = scores - empty - torch.einsum("cm,rmt->crt", members, values)
    # a pair pulls the fit towards itself: the residual is scaled to what it is without the pair
    pulled = 1 - 2 * (effects * members.T).sum(0)
    residuals = residuals * (design.sampled / pulled.clamp(min=1e-3))[:, None, None]
    # a complement changes the values in the other direction
    both = residuals[::2] - residuals[1::2]
    return values, torch.einsum("mp,prt->rmt", effects[:, ::2].square(), both.square()).sqrt()
