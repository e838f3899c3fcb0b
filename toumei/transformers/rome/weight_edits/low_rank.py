"""The closed form of rank-one and low-rank editing, a pure function of tensors.

A linear layer W answers keys k with values W k. The methods change it by

    D = R^T (K M K^T + ridge I)^-1 K M

so that the residuals R (n x out) are added to the values of the keys K (n x in), while the values of all
other keys change as little as possible under the metric M. With M = C^-1, the inverse second moment of the
keys, this is ROME (one key, no ridge; Meng et al., 2022, arXiv:2202.05262), MEMIT (ridge lambda; Meng et al.,
2023, arXiv:2210.07229) and EMMET (Gupta et al., 2024, arXiv:2403.14236). With the projection M = P onto the
null space of the keys it is AlphaEdit (Fang et al., 2025, arXiv:2410.02355). Only n x n systems are solved,
and D stays in two factors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ....core.checks import checked
from ....core.errors import ArgumentError, NonFiniteError, ShapeError
from ....core.summaries import counted
from ....core.tensor_specs import Spec, specs


@dataclass(frozen=True, repr=False, eq=False)
class LowRank:
    """A change of a weight (out, in) in two thin factors, ``left @ right``.

    Attributes:
        left: (out, n).
        right: (n, in).
        keys: The keys (n, in) of the edit, if later edits have to preserve them.

    Example:
        >>> LowRank(torch.ones(3, 1), torch.ones(1, 4))
        LowRank(3x4, rank 1)
    """

    left: Tensor
    right: Tensor
    keys: Tensor | None = None

    _specs = specs(
        left=Spec("out rank", finite=True),
        right=Spec("rank in", finite=True),
        keys=Spec("_ in", finite=True),
    )

    @property
    def dense(self) -> Tensor:
        """The change itself, (out, in)."""
        return self.left @ self.right

    @property
    def norm(self) -> float:
        """The Frobenius norm of the change, computed from the factors."""
        squared = ((self.left.T @ self.left) * (self.right @ self.right.T)).sum()
        return float(squared.clamp_min(0).sqrt())

    def __repr__(self) -> str:
        return f"LowRank({self.left.shape[0]}x{self.right.shape[1]}, rank {self.left.shape[1]})"


@checked
def closed_form(
    keys: Tensor, residuals: Tensor, whitened: Tensor, ridge: float = 0.0, exact_keys: Tensor | None = None
) -> LowRank:
    """Returns the change of a weight that adds the residuals to the values of the keys.

    Args:
        keys: The keys K (n, in).
        residuals: The vectors R (m, out) to add to the values of the first m <= n keys. The values of the
            other keys are preserved.
        whitened: The keys times the metric, K M (n, in).
        ridge: The regularization of the change; with 0 it is exact.
        exact_keys: Keys (n, in) at which the change is exact, if they differ from `keys`, which give its
            direction. The original ROME does so.

    Raises:
        ShapeError: The tensors do not fit together.
        NonFiniteError: The system cannot be solved, for example because a key is zero or given twice
            without a ridge.

    Example:
        >>> key, wanted = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]])
        >>> closed_form(key, wanted, whitened=key).dense @ key[0]
        tensor([3., 4., 5.])
    """
    exact_keys = keys if exact_keys is None else exact_keys
    _check(keys, residuals, whitened, exact_keys)
    gram = whitened @ exact_keys.T + ridge * torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    finite = bool(gram.isfinite().all() and residuals.isfinite().all())
    limit = 0.01 / torch.finfo(gram.dtype).eps
    if not finite or (ridge == 0 and not torch.linalg.cond(gram) < limit):
        raise NonFiniteError(
            f"the closed form of {counted(len(keys), 'key')} has no solution: a key is zero, not finite, or "
            f"depends on the others; take a ridge above 0 (given: {ridge:g}) or fewer facts at once"
        )
    directions = torch.linalg.solve(gram, whitened)
    return LowRank(residuals.T.contiguous(), directions[: len(residuals)])


@checked
def null_directions(values: Tensor, vectors: Tensor, threshold: float) -> Tensor:
    """Returns the directions (in, k) that keys do not use: eigenvectors of their second moment.

    Args:
        values: The eigenvalues (in,) of the second moment, ascending.
        vectors: Its eigenvectors (in, in), in the columns.
        threshold: The largest eigenvalue of an unused direction. AlphaEdit takes 2e-2 for all models. The
            threshold is absolute, so it depends on the scale of the keys.

    Raises:
        ArgumentError: No direction is below the threshold.

    Example:
        >>> null_directions(*torch.linalg.eigh(torch.diag(torch.tensor([1.0, 0.0]))), 0.5).abs()
        tensor([[0.],
                [1.]])
    """
    free = vectors[:, values < threshold]
    if free.shape[1] == 0:
        raise ArgumentError(
            f"no direction of the keys has a second moment below {threshold:g} (the smallest is "
            f"{values[0]:.3g}, the median {values.median():.3g}): give a larger threshold"
        )
    return free


def _check(keys: Tensor, residuals: Tensor, whitened: Tensor, exact_keys: Tensor) -> None:
    if keys.dim() != 2 or residuals.dim() != 2 or not 0 < len(residuals) <= len(keys):
        raise ShapeError(
            f"expected keys (n, in) and residuals (at most n, out), got {tuple(keys.shape)} and "
            f"{tuple(residuals.shape)}"
        )
    for name, tensor in (("whitened", whitened), ("exact_keys", exact_keys)):
        if tensor.shape != keys.shape:
            raise ShapeError(
                f"{name} must have the keys' shape {tuple(keys.shape)}, got {tuple(tensor.shape)}"
            )
