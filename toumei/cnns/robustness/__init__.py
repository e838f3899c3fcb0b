"""Random transforms under which a picture must excite its unit."""

from .crops import Crops, Noise, NormalizeGradient
from .normalization import Normalize, preprocess
from .presets import distill, light, lucid
from .transforms import CropOrPad, Jitter, Pad, Rotate, Scale, View, Views

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
