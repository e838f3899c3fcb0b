"""The closed form of rank-one and low-rank editing, a pure function of tensors.

A linear layer W answers keys k with values W k. The methods change it by

    D = R^T (K M K^T + ridge I)^-1 K M

so that the keys K (n x in) get the residuals R (n x out) added to their values, while all other keys keep
theirs as well as the metric M can say. With M = C^-1, the inverse second moment of the keys, this is ROME
(one key, no ridge; Meng et al., 2022, arXiv:2202.05262), MEMIT (ridge lambda; Meng et al., 2023,
arXiv:2210.07229) and EMMET (Gupta et al., 2024, arXiv:2403.14236); with the projection M = P onto the null
space of the keys it is AlphaEdit (Fang et al., 2025, arXiv:2410.02355). Only n x n systems are solved, and D
stays in two factors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ....core.errors import ArgumentError, NonFiniteError, ShapeError
from ....core.stored_fields import Spec, specs


@dataclass(frozen=True, repr=False, eq=False)
class LowRank:
    """A change of a weight (out, in) in two thin factors, ``left @ right``.

    Attributes:
        left: (out, n).
        right: (n, in).
        keys: The keys (n, in) that it was made for, where later edits are to spare them.

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
        """The Frobenius norm of the change, found without the change itself."""
        squared = ((self.left.T @ self.left) * (self.right @ self.right.T)).sum()
        return float(squared.clamp_min(0).sqrt())

    def __repr__(self) -> str:
        return f"LowRank({self.left.shape[0]}x{self.right.shape[1]}, rank {self.left.shape[1]})"


def closed_form(
    keys: Tensor, residuals: Tensor, whitened: Tensor, ridge: float = 0.0, probes: Tensor | None = None
) -> LowRank:
    """Returns the change of a weight that adds the residuals to the values of the keys.

    Args:
        keys: The keys K (n, in).
        residuals: What is to be added to the values of the first keys, R (m, out), m <= n; the other keys
            are to keep theirs.
        whitened: The keys times the metric, K M (n, in).
        ridge: How much the change is held back; 0 makes it exact.
        probes: Keys (n, in) at which the change is scaled, if they are not the keys that give its direction.
            The original ROME does so.

    Raises:
        ShapeError: The tensors do not fit together.
        NonFiniteError: The system cannot be solved, for example because a key is zero or given twice
            without a ridge.

    Example:
        >>> key, wanted = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]])
        >>> closed_form(key, wanted, whitened=key).dense @ key[0]
        tensor([3., 4., 5.])
    """
    probes = keys if probes is None else probes
    _check(keys, residuals, whitened, probes)
    gram = whitened @ probes.T + ridge * torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    finite = bool(gram.isfinite().all() and residuals.isfinite().all())
    limit = 0.01 / torch.finfo(gram.dtype).eps
    if not finite or (ridge == 0 and not torch.linalg.cond(gram) < limit):
        raise NonFiniteError(
            f"the closed form of {len(keys)} keys has no solution: a key is zero, not finite, or depends on "
            f"the others; a ridge above 0 (given: {ridge:g}) or fewer facts at once would help"
        )
    directions = torch.linalg.solve(gram, whitened)
    return LowRank(residuals.T.contiguous(), directions[: len(residuals)])


def null_directions(values: Tensor, vectors: Tensor, threshold: float) -> Tensor:
    """Returns the directions (in, k) in which keys hardly ever point: eigenvectors of their second moment.

    Args:
        values: The eigenvalues (in,) of the second moment, ascending.
        vectors: Its eigenvectors (in, in), in the columns.
        threshold: Largest eigenvalue that counts as none. AlphaEdit takes 2e-2 for all models: it is
            absolute, so it depends on the scale of the keys.

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


def _check(keys: Tensor, residuals: Tensor, whitened: Tensor, probes: Tensor) -> None:
    if keys.dim() != 2 or residuals.dim() != 2 or not 0 < len(residuals) <= len(keys):
        raise ShapeError(
            f"expected keys (n, in) and residuals (at most n, out), got {tuple(keys.shape)} and "
            f"{tuple(residuals.shape)}"
        )
    for name, tensor in (("whitened", whitened), ("probes", probes)):
        if tensor.shape != keys.shape:
            raise ShapeError(
                f"{name} must have the keys' shape {tuple(keys.shape)}, got {tuple(tensor.shape)}"
            )
