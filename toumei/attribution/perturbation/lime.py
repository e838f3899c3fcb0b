"""LIME: a linear model of the scores of an input with random features hidden."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, check_memory
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.summaries import counted
from ..base.batching import BATCH_SIZE, batches
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from .coalitions import CoalitionMethod, Game, Solution
from .features import FeaturesLike
from .shapley import coalitions
from .surrogate import weighted_lasso, weighted_r_squared, weighted_ridge

Space = Literal["features", "inputs"]
Distance = Literal["cosine", "euclidean"]


class Lime(CoalitionMethod):
    """Coefficients of a linear model that is fitted where samples are near the input (Ribeiro et al., 2016).

    Each sample keeps every feature with probability 1/2 and has the weight exp(-d^2 / (2 width^2)) at the
    distance d from the input. The defaults are those of the package lime for pictures and text, except that
    no coefficient is dropped. The fit is in closed form, for all inputs and targets at once. If there are no
    more coalitions than samples, each is taken once, with the weight of its expected number of samples.
    `Attribution.r_squared` says how much of the scores is linear.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        samples: How many samples, the input itself among them.
        space: Measure distances between vectors of zeros and ones that say which features are kept, or
            between the inputs themselves, where they depend on what the hidden features looked like.
        distance: One less the cosine, from 0 to 1, or Euclidean, which in the space of features is the root
            of the number of hidden ones; the package lime takes a width of 0.75 sqrt(M) for tabular inputs.
        width: Of the kernel; ``float("inf")`` for equal weights.
        ridge: Penalty of squared coefficients, 0 for least squares.
        lasso: Instead, penalty of absolute coefficients, which sets small ones to zero.
        features: Which numbers belong together, as for every `CoalitionMethod`: whole numbers in the shape of
            the inputs, or a function from the inputs to them. By default superpixels of pictures, else each
            position, token or column.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: A score is the mean over so many samples of a random baseline, such as `FromData`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of the samples, which all inputs share, and of a random baseline.
        verbose: Show progress after two seconds.

    Example:
        >>> from torch import nn
        >>> method = Lime(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=[0, 1])
        >>> result.features.shape, result.r_squared.shape
        (torch.Size([2, 5, 4]), torch.Size([2, 5]))
    """

    complete = False

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        samples: int = 1000,
        space: Literal["features", "inputs"] = "features",
        distance: Literal["cosine", "euclidean"] = "cosine",
        width: float = 0.25,
        ridge: float = 1.0,
        lasso: float | None = None,
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
        check_choice("space", space, get_args(Space))
        check_choice("distance", distance, get_args(Distance))
        if not width > 0 or not 0 <= ridge < math.inf or (lasso is not None and not 0 < lasso < math.inf):
            raise ArgumentError(
                f"width and lasso are above 0 and ridge is at least 0, lasso and ridge finite; got {width}, "
                f"{lasso} and {ridge}"
            )
        self.samples = samples
        self.space: Space = space
        self.distance: Distance = distance
        self.width = width
        self.ridge = ridge
        self.lasso = lasso

    def solve(self, game: Game) -> Solution:
        """Returns the coefficients and the weighted R² of the fit.

        Raises:
            ArgumentError: Fewer samples than coefficients.
        """
        if min(self.samples, 2**game.count) <= game.count:
            raise ArgumentError(
                f"{counted(self.samples, 'sample')} cannot determine {counted(game.count, 'coefficient')} "
                "and an intercept: give more samples=..., or fewer features=..., such as superpixels"
            )
        check_memory(
            f"a model of {counted(self.samples, 'sample', form=',')} of "
            f"{counted(game.count, 'feature', form=',')}",
            min(self.samples, 2 ** min(game.count, 64)) * game.count,
            "give fewer samples=..., or fewer features=..., such as superpixels",
            itemsize=24,
        )
        keep = _samples(game.count, self.samples, self.seed)
        measure = _of_features if self.space == "features" else _of_inputs
        distances = measure(game, keep, self.distance)
        # coalitions that are taken once stand for all samples, or the penalty would outweigh them
        weights = torch.exp(-distances.square() / (2 * self.width**2)) * self.samples / len(keep)
        scores = game.values(keep)
        if self.lasso is None:
            values, intercept = weighted_ridge(keep, scores, weights, self.ridge)
        else:
            values, intercept = weighted_lasso(keep, scores, weights, self.lasso)
        fitted = torch.einsum("cm,rmt->crt", keep.double(), values) + intercept
        return Solution(values, r_squared=weighted_r_squared(scores, fitted, weights))


def _samples(count: int, samples: int, seed: int | None) -> Tensor:
    if samples >= 2**count:
        return coalitions(count)
    keep = torch.rand(samples, count, generator=make_generator(seed)) < 0.5
    keep[0] = True
    return keep


def _of_features(game: Game, keep: Tensor, distance: str) -> Tensor:
    """Distances (C,) of coalitions to the coalition of all features."""
    kept = keep.double().mean(1)
    return 1 - kept.sqrt() if distance == "cosine" else (keep.shape[1] * (1 - kept)).sqrt()


def _of_inputs(game: Game, keep: Tensor, distance: str) -> Tensor:
    """Distances (C, R) of masked inputs to the inputs, the means over baseline samples."""
    masking, rows = game.masking, game.rows
    shape = (len(keep), len(rows), game.baseline_samples)
    which, row, sample = (
        index.flatten() for index in torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    )
    masks = game.masks(keep, which, row)
    found = []
    for positions in batches(len(which), masking.batch_size):
        inputs = rows[row[positions]]
        masked = masking.masked(masks(positions), inputs, sample[positions])
        pairs = zip(masked, masking.problem.tensors, strict=True)
        flat = [
            tuple(part.reshape(len(inputs), -1).double() for part in (made, tensor[inputs]))
            for made, tensor in pairs
        ]
        made, original = (torch.cat(tensors, 1) for tensors in zip(*flat, strict=True))
        if distance == "cosine":
            found.append(1 - torch.cosine_similarity(made, original, dim=1))
        else:
            found.append((made - original).norm(dim=1))
    return torch.cat(found).cpu().reshape(shape).mean(2)
