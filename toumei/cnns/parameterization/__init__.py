"""Pictures as functions of parameters: pixels, spectra, painting networks, and transforms on top of them."""

from .accentuated import AccentuatedImage
from .color import COLOR_CORRELATION, COLOR_MEAN, ColorSpace
from .colored import Colored
from .fft import FFTImage, frequencies
from .generator import Generator
from .maco import MACO
from .magnitude import load_magnitude, magnitude_spectrum, natural_magnitude
from .neural import Neural
from .pixel import PixelImage
from .transform import Transform

__all__ = [
    "COLOR_CORRELATION",
    "COLOR_MEAN",
    "MACO",
    "AccentuatedImage",
    "ColorSpace",
    "Colored",
    "FFTImage",
    "Generator",
    "Neural",
    "PixelImage",
    "Transform",
    "frequencies",
    "load_magnitude",
    "magnitude_spectrum",
    "natural_magnitude",
]
