"""The second moments of the keys of layers, which editing methods need."""

from .collect import collect_statistics
from .second_moments import IdentityMoment, KeyStatistics, SecondMoment

__all__ = [
    "IdentityMoment",
    "KeyStatistics",
    "SecondMoment",
    "collect_statistics",
]
