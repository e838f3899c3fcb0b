"""Pictures made from a photograph."""

from .accentuation import accentuate
from .caricatures import caricature
from .dreaming import deep_dream
from .inversion import invert

__all__ = [
    "accentuate",
    "caricature",
    "deep_dream",
    "invert",
]
