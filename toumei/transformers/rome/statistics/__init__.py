"""Second moments of the keys of a layer, which edits need."""

from .collect import collect_statistics
from .second_moments import Identity, KeyStatistics, SecondMoment

__all__ = [
    "Identity",
    "KeyStatistics",
    "SecondMoment",
    "collect_statistics",
]
