"""Which features of a dictionary are which known ones."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs


@dataclass(frozen=True, repr=False, eq=False)
class FeatureMatches(Saved):
    """The best one-to-one match of known directions with those of a dictionary.

    Attributes:
        cosines: Of each known direction with its match, (known,).
        matches: Which feature it is, (known,).

    Example:
        >>> FeatureMatches(torch.tensor([0.99, 0.4]), torch.tensor([1, 0]))
        FeatureMatches(2 features: mean cosine 0.695, 50.0% at .95 or above)
    """

    cosines: Tensor
    matches: Tensor

    _specs = specs(cosines="known", matches=Spec("known", "integer"))

    @property
    def mean(self) -> float:
        """The mean cosine (mean matched cosine similarity)."""
        return float(self.cosines.mean())

    @checked
    def share_above(self, cosine: float = 0.95) -> float:
        """Returns the share of known directions whose match has a cosine of at least this."""
        return float((self.cosines >= cosine).float().mean())

    def __repr__(self) -> str:
        return (
            f"FeatureMatches({counted(len(self.cosines), 'feature')}: mean cosine {self.mean:.3f}, "
            f"{self.share_above():.1%} at .95 or above)"
        )


@checked
def match_features(directions: Tensor, known: Tensor) -> FeatureMatches:
    """Returns the one-to-one match with the largest sum of cosines (Hungarian method).

    Args:
        directions: Those of a dictionary, (features, width), such as its `W_dec`.
        known: The true ones, (known, width), at most as many.

    Raises:
        ShapeError: They are no matrices of one width, or there are fewer features than known ones.

    Example:
        >>> match_features(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.eye(2)).matches
        tensor([1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    if directions.dim() != 2 or known.dim() != 2 or directions.shape[1] != known.shape[1]:
        raise ShapeError(
            f"expected directions of one width, got {tuple(directions.shape)} and {tuple(known.shape)}"
        )
    if not 1 <= len(known) <= len(directions):
        raise ShapeError(
            f"{counted(len(known), 'known feature')} cannot be matched with "
            f"{counted(len(directions), 'feature')}"
        )
    cosines = F.normalize(known.double(), dim=1).cpu() @ F.normalize(directions.double(), dim=1).cpu().T
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    matches = torch.as_tensor(columns)
    return FeatureMatches(cosines[torch.as_tensor(rows), matches].float(), matches)
