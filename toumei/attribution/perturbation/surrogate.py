"""Linear surrogates: weighted ridge regression in closed form, Lasso, and how well they fit."""

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.summaries import counted


def weighted_ridge(
    members: Tensor, scores: Tensor, weights: Tensor, ridge: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns the coefficients (R, M, T) and intercepts (R, T) that minimize a weighted sum of squares.

    That is the sum of weight (score - intercept - members . coefficients)^2, plus ridge times the sum of the
    squared coefficients.

    Args:
        members: (C, M).
        scores: (C, R, T).
        weights: (C,), or (C, R) for weights that differ by input.
        ridge: At least 0.

    Raises:
        ArgumentError: The rows cannot determine the coefficients.

    Example:
        >>> members = torch.tensor([[0., 0.], [0., 1.], [1., 0.], [1., 1.]])
        >>> scores = (3 * members[:, 0] - members[:, 1] + 2).reshape(4, 1, 1)
        >>> weighted_ridge(members, scores, torch.ones(4))[0].flatten().round(decimals=6)
        tensor([ 3., -1.], dtype=torch.float64)
    """
    members, scores = members.double(), scores.double()
    # one linear system for all inputs and targets, or one for each input
    columns = scores.flatten(1)[None] if weights.dim() == 1 else scores.transpose(0, 1)
    shares = weights.double().reshape(len(members), -1).T
    shares = shares / shares.sum(1, keepdim=True)
    centre, mean = shares @ members, torch.einsum("gc,gck->gk", shares, columns)
    weighted = members * shares[..., None]
    gram = weighted.transpose(1, 2) @ members - centre[:, :, None] * centre[:, None]
    total = weights.double().reshape(len(members), -1).sum(0)
    gram = gram + (ridge / total)[:, None, None] * torch.eye(members.shape[1], dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any() or (factor.diagonal(dim1=1, dim2=2).amin(1) < 1e-7).any():
        raise ArgumentError(
            f"{counted(len(members), 'sample')} cannot determine {counted(members.shape[1], 'coefficient')}: "
            "give more samples=..., a wider kernel, or ridge=..."
        )
    aims = weighted.transpose(1, 2) @ columns - centre[:, :, None] * mean[:, None]
    solution = torch.cholesky_solve(aims, factor)
    intercept = mean - (centre[:, :, None] * solution).sum(1)
    if weights.dim() == 2:
        return solution, intercept
    return solution[0].unflatten(1, scores.shape[1:]).movedim(1, 0), intercept[0].unflatten(
        0, scores.shape[1:]
    )


def weighted_lasso(members: Tensor, scores: Tensor, weights: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Returns the coefficients (R, M, T) and intercepts (R, T) of the Lasso, by scikit-learn.

    They minimize half of the weighted mean of squares plus alpha times the sum of absolute coefficients.

    Args:
        members: (C, M).
        scores: (C, R, T).
        weights: (C,) or (C, R).
        alpha: Over 0.
    """
    from sklearn.linear_model import Lasso

    inputs, targets = scores.shape[1:]
    solution = torch.zeros(inputs, members.shape[1], targets, dtype=torch.float64)
    intercept = torch.zeros(inputs, targets, dtype=torch.float64)
    per_input = weights[:, None].expand(-1, inputs) if weights.dim() == 1 else weights
    rows = members.double().numpy()
    for row in range(inputs):
        for target in range(targets):
            model = Lasso(alpha, max_iter=10_000)
            model.fit(rows, scores[:, row, target].double().numpy(), per_input[:, row].double().numpy())
            solution[row, :, target] = torch.from_numpy(model.coef_)
            intercept[row, target] = float(model.intercept_)
    return solution, intercept


def weighted_r_squared(scores: Tensor, fitted: Tensor, weights: Tensor) -> Tensor:
    """Returns the share of the weighted variance of scores that is fitted, (...); 1 for constant scores.

    Args:
        scores: (C, ...).
        fitted: (C, ...).
        weights: (C,) or (C, R).
    """
    weights = weights.reshape(*weights.shape, *(1,) * (scores.dim() - weights.dim()))
    mean = (weights * scores).sum(0) / weights.sum(0)
    rest = (weights * (scores - fitted).square()).sum(0)
    spread = (weights * (scores - mean).square()).sum(0)
    # rounding errors of a constant are no variance
    constant = spread <= 1e-13 * (weights * scores.square()).sum(0)
    return torch.where(constant, 1.0, 1 - rest / spread.clamp(min=torch.finfo(spread.dtype).tiny))
