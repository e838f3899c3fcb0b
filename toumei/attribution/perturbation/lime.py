"""LIME: a linear model of the scores of an input with random features hidden."""

from typing import Literal

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from .coalitions import CoalitionMethod, Game, Solution
from .shapley import coalitions
from .surrogate import weighted_lasso, weighted_r_squared, weighted_ridge


class Lime(CoalitionMethod):
    """Coefficients of a linear model that is fitted where samples are near the input (Ribeiro et al., 2016).

    Each sample keeps every feature with probability 1/2, and weighs exp(-d^2 / (2 width^2)) at distance d
    from the input. The defaults are those of the package lime for pictures and text, except that no
    coefficient is dropped. The fit is in closed form, for all inputs and targets at once; where there are no
    more coalitions than samples, each is taken once and weighs as often as samples would hit it in the mean.
    `Attribution.r_squared` says how much of the scores is linear.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = Lime(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=[0, 1])
        >>> result.features.shape, result.r_squared.shape
        (torch.Size([2, 5, 4]), torch.Size([2, 5]))
    """

    complete = False

    def solve(
        self,
        game: Game,
        *,
        seed: int | None,
        samples: int = 1000,
        space: Literal["features", "inputs"] = "features",
        distance: Literal["cosine", "euclidean"] = "cosine",
        width: float = 0.25,
        ridge: float = 1.0,
        lasso: float | None = None,
    ) -> Solution:
        """Returns the coefficients and the weighted R² of the fit.

        Args:
            game: The scores of coalitions.
            seed: Seed of the samples, which all inputs share.
            samples: How many, the input itself among them.
            space: Measure distances between what is kept, vectors of zeros and ones, or between the inputs
                themselves, where they depend on what the hidden features looked like.
            distance: One less the cosine, from 0 to 1, or Euclidean, which in the space of features is the
                root of how many are hidden; the package lime takes a width of 0.75 sqrt(M) for tables.
            width: Of the kernel; ``float("inf")`` for equal weights.
            ridge: Penalty of squared coefficients, 0 for least squares.
            lasso: Instead, penalty of absolute coefficients, which sets small ones to zero.

        Raises:
            ArgumentError: Fewer samples than coefficients, or an argument that makes no sense.
        """
        if min(samples, 2**game.count) <= game.count:
            raise ArgumentError(
                f"{samples} samples do not determine {game.count} coefficients and an intercept: give more "
                f"samples=..., or fewer features=..., such as superpixels"
            )
        if not width > 0 or ridge < 0 or (lasso is not None and lasso <= 0):
            raise ArgumentError(
                f"width and lasso are over 0 and ridge from 0 on, got {width}, {lasso} and {ridge}"
            )
        if space not in ("features", "inputs") or distance not in ("cosine", "euclidean"):
            raise ArgumentError(
                f"space is 'features' or 'inputs' and distance 'cosine' or 'euclidean', got {space!r} and "
                f"{distance!r}"
            )
        keep = _samples(game.count, samples, seed)
        measure = _of_features if space == "features" else _of_inputs
        # coalitions that are taken once stand for all samples, or the penalty would outweigh them
        weights = torch.exp(-measure(game, keep, distance).square() / (2 * width**2)) * samples / len(keep)
        scores = game.values(keep)
        if lasso is None:
            values, intercept = weighted_ridge(keep, scores, weights, ridge)
        else:
            values, intercept = weighted_lasso(keep, scores, weights, lasso)
        fitted = torch.einsum("cm,rmt->crt", keep.double(), values) + intercept
        return Solution(values, r_squared=weighted_r_squared(scores, fitted, weights))


def _samples(count: int, samples: int, seed: int | None) -> Tensor:
    if samples >= 2**count:
        return coalitions(count)
    keep = torch.rand(samples, count, generator=make_generator(seed)) < 0.5
    keep[0] = True
    return keep


def _of_features(game: Game, keep: Tensor, distance: str) -> Tensor:
    """Distances (C,) of coalitions to that of all features."""
    kept = keep.double().mean(1)
    return 1 - kept.sqrt() if distance == "cosine" else (keep.shape[1] * (1 - kept)).sqrt()


def _of_inputs(game: Game, keep: Tensor, distance: str) -> Tensor:
    """Distances (C, R), the means over draws of the baseline, of masked inputs to the inputs."""
    masking, rows = game.masking, game.rows
    shape = (len(keep), len(rows), masking.draws)
    places = [place.flatten() for place in torch.meshgrid(*map(torch.arange, shape), indexing="ij")]
    masks = game.masks(keep, places[0], places[1])
    found = []
    for positions in torch.arange(len(places[0])).split(masking.batch_size):
        own = rows[places[1][positions]]
        masked = masking.masked(masks(positions), own, places[2][positions])
        pairs = zip(masked, masking.problem.tensors, strict=True)
        flat = [(made.flatten(1).double(), tensor[own].flatten(1).double()) for made, tensor in pairs]
        made, original = (torch.cat(tensors, 1) for tensors in zip(*flat, strict=True))
        if distance == "cosine":
            found.append(1 - torch.cosine_similarity(made, original, dim=1))
        else:
            found.append((made - original).norm(dim=1))
    return torch.cat(found).cpu().reshape(shape).mean(2)
