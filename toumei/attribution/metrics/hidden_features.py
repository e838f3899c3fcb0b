"""Contributions of features, and the scores of inputs in which some features are hidden."""

import torch
from torch import Tensor, nn

from ...core.errors import ShapeError
from ...core.finite import check_finite
from ..base.problem import Problem
from ..base.problem_arguments import make_problem
from ..base.reliability import check_inputs, check_scores
from ..base.targets import Target
from ..perturbation.features import Segments
from ..perturbation.masking import Masking


def feature_sums(features: Segments, values: Tensor, inputs: Tensor) -> Tensor:
    """Returns the contribution of each feature, (N, M) float64; values may have fewer channels than inputs.

    Raises:
        ShapeError: Values that do not fit the inputs.
        NonFiniteError: Values that are NaN or infinite.
    """
    shape = (*inputs.shape[:1], *values.shape[1:2], *inputs.shape[2:])
    if (
        not inputs.dim()
        or values.dim() != inputs.dim()
        or values.shape != shape
        or (inputs.dim() > 1 and values.shape[1] not in (1, inputs.shape[1]))
    ):
        raise ShapeError(f"contributions {tuple(values.shape)} do not fit inputs {tuple(inputs.shape)}")
    index = features.index[0] if features.per_input else features.index[0][None]
    if index.shape[1:2] > values.shape[1:2]:
        raise ShapeError(
            f"contributions {tuple(values.shape)} have fewer channels than features that differ by channel"
        )
    check_finite(values, "the contributions")
    which = index.cpu().expand(values.shape).reshape(len(values), -1)
    flat = values.detach().cpu().double().reshape(len(values), -1)
    sums = flat.new_zeros(len(values), features.count + 1).scatter_add_(1, which, flat)
    return sums[:, : features.count]


def checked_problem(model: nn.Module, inputs: Tensor, target: Target | None, batch_size: int) -> Problem:
    """Returns the problem of a metric, whose inputs have no NaN.

    Raises:
        NonFiniteError: Inputs with NaN whose scores are NaN.
    """
    problem = make_problem(model, inputs, target)
    check_inputs(problem, batch_size)
    return problem


def scores_of_kept(masking: Masking, features: Segments, keep: Tensor, rows: Tensor) -> Tensor:
    """Returns the scores (B,) in float64 of inputs that keep some features.

    Args:
        masking: Hides the others.
        features: Which numbers belong together.
        keep: (B, M) which features each keeps.
        rows: (B,) which of the inputs each is made of.

    Raises:
        NonFiniteError: Scores that are NaN or infinite.
    """
    device = masking.problem.tensors[0].device
    features, kept, inputs = features.to(device), keep.to(device), rows.to(device)
    scores = torch.zeros(len(rows), dtype=torch.float64)

    def masks(batch: Tensor) -> tuple[Tensor, ...]:
        return features.masks(kept[batch], inputs[batch])

    for batch, found in masking.stream(masks, rows, torch.zeros_like(rows)):
        scores[batch.cpu()] = found[:, 0].cpu().double()
    check_scores(scores, "the scores of inputs with parts hidden", rows)
    return scores
