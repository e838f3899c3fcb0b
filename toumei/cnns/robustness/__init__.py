"""Random transforms under which a picture must excite its unit."""

from .crops import Crops, Noise, NormalizeGradient
from .transforms import (
    CropOrPad,
    Jitter,
    Normalize,
    Pad,
    Rotate,
    Scale,
    View,
    Views,
    distill,
    light,
    lucid,
    preprocess,
)

__all__ = [
    "CropOrPad",
    "Crops",
    "Jitter",
    "Noise",
    "Normalize",
    "NormalizeGradient",
    "Pad",
    "Rotate",
    "Scale",
    "View",
    "Views",
    "distill",
    "light",
    "lucid",
    "preprocess",
]
