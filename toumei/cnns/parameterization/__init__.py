"""Pictures as functions of parameters: pixels, spectra, painting networks, and transforms on top of them."""

from .color import COLOR_CORRELATION, COLOR_MEAN, ColorSpace
from .fft import FFTImage, frequencies
from .generator import Generator
from .neural import Neural
from .pixel import PixelImage
from .transform import Transform

__all__ = [
    "COLOR_CORRELATION",
    "COLOR_MEAN",
    "ColorSpace",
    "FFTImage",
    "Generator",
    "Neural",
    "PixelImage",
    "Transform",
    "frequencies",
]
