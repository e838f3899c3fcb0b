"""Pictures as functions of parameters: pixels, spectra, networks, and transforms of them."""

from .accentuated import AccentuatedImage
from .alpha import AlphaImage, random_background
from .color import COLOR_CORRELATION, COLOR_MEAN, ColorSpace
from .color_correlation import color_matrix
from .colored import Colored
from .fft import FFTImage, frequencies
from .gan import GAN
from .generator import Generator
from .laplacian import LaplacianImage
from .maco import MACO
from .magnitude import load_magnitude, magnitude_spectrum, natural_magnitude
from .masked import Masked
from .neural import Neural
from .pixel import PixelImage
from .shared import SharedImage
from .transform import Transform

__all__ = [
    "COLOR_CORRELATION",
    "COLOR_MEAN",
    "GAN",
    "MACO",
    "AccentuatedImage",
    "AlphaImage",
    "ColorSpace",
    "Colored",
    "FFTImage",
    "Generator",
    "LaplacianImage",
    "Masked",
    "Neural",
    "PixelImage",
    "SharedImage",
    "Transform",
    "color_matrix",
    "frequencies",
    "load_magnitude",
    "magnitude_spectrum",
    "natural_magnitude",
    "random_background",
]
