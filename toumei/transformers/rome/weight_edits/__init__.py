"""Low-rank changes of weights, and the registry of the changes that are applied to a model."""

from .low_rank import LowRank, closed_form, null_directions

__all__ = [
    "LowRank",
    "closed_form",
    "null_directions",
]
