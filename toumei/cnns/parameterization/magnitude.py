"""The magnitudes of natural images by frequency: measured on images, from a file, or a closed form."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.files import check_regular
from ...core.summaries import counted
from ...models.download import load_state_dict
from ..inputs import as_images, images_in
from .color import ColorSpace
from .fft import frequencies
from .generator import check_size

# The mean spectrum of ImageNet in decorrelated colours, as MACO's authors published it, falls like these
# powers of the frequency (cycles per pixel), each above one of these frequencies. The high end is low
# because photographs were enlarged to 512 pixels.
_BENDS = (0.0, 0.05, 0.12, 0.2, 0.3)
_SLOPES = (-1.3, -1.5, -1.8, -2.5, -5.0)
_ENERGY = (0.37, 0.39, 0.24)  # of the three channels


@checked
def natural_magnitude(channels: int, height: int, width: int) -> Tensor:
    """Returns the magnitudes of natural images by a closed form, (channels, height, width // 2 + 1).

    A continuous piecewise power law, fitted to the mean spectrum of ImageNet. Three channels are decorrelated
    RGB and share the energy as in ImageNet; other numbers of channels share it equally. Pictures of these
    magnitudes have a standard deviation of about 1.

    Args:
        channels: Number of channels.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.

    Raises:
        ShapeError: A size that is not a positive whole number.

    Example:
        >>> natural_magnitude(3, 31, 20).shape
        torch.Size([3, 31, 11])
    """
    check_size("natural_magnitude", 1, channels, height, width)
    frequency = frequencies(height, width).clamp(min=1 / max(height, width))
    magnitude = frequency ** _SLOPES[0]
    for bend, before, slope in zip(_BENDS[1:], _SLOPES[:-1], _SLOPES[1:], strict=True):
        magnitude = magnitude * (frequency / bend).clamp(min=1) ** (slope - before)
    magnitude = magnitude * (height * width / magnitude.square().mean()).sqrt()
    energy = torch.tensor(_ENERGY if channels == 3 else [1 / channels] * channels)
    return (channels * energy).sqrt().view(-1, 1, 1) * magnitude


@checked
def magnitude_spectrum(
    loader: Iterable[Any], size: int | tuple[int, int] = 512, *, decorrelate: bool | Tensor = True
) -> Tensor:
    """Returns the mean magnitude of each frequency in images, (C, H, W // 2 + 1), in one pass over them.

    Images are resized to one size, minus the mean colour of ImageNet, and put into decorrelated colours.
    Only the sum is kept, in float64.

    Args:
        loader: Batches (N, C, H, W) or single images (C, H, W) in [0, 1], of any sizes; of tuples, such as
            images with labels, the first entry.
        size: Height and width that images are resized to.
        decorrelate: As given to `MACO`.

    Raises:
        ArgumentError: The loader is empty.
        ShapeError: Images of another rank or range, or of different numbers of channels.

    Example:
        >>> magnitude_spectrum([torch.rand(2, 3, 40, 50), torch.rand(3, 24, 32)], size=32).shape
        torch.Size([3, 32, 17])
    """
    height, width = (size, size) if isinstance(size, int) else size
    check_counts(1, height=height, width=width)
    total, count = torch.zeros(0), 0
    for batch in loader:
        images = as_images(images_in(batch), "images")
        channels = images.shape[1]
        if count and channels != len(total):
            raise ShapeError(f"images of {counted(channels, 'channel')} after images of {len(total)}")
        resized = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
        colors = ColorSpace(decorrelate, sigmoid=False, channels=channels).to(images.device)
        magnitudes = torch.fft.rfft2(colors.inverse(resized)).abs().sum(0).cpu()
        total, count = magnitudes + total if count else magnitudes, count + len(images)
    if count == 0:
        raise ArgumentError("no images to measure the spectrum of: the loader is empty")
    return (total / count).float()


@checked
def load_magnitude(path: str | Path) -> Tensor:
    """Returns the magnitudes that a file holds: a ``.npy`` array or the one tensor of a ``.safetensors``.

    Args:
        path: The file, such as the one that horama downloads.

    Raises:
        ArgumentError: Another ending, several tensors, or a damaged file.

    Example:
        >>> from safetensors.torch import save_file
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_file({"magnitude": torch.rand(3, 32, 17)}, f"{folder}/spectrum.safetensors")
        ...     load_magnitude(f"{folder}/spectrum.safetensors").shape
        torch.Size([3, 32, 17])
    """
    path = Path(path)
    if path.suffix == ".npy":
        check_regular(path, "read")
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (ValueError, EOFError, TypeError) as error:
            raise ArgumentError(f"{path} holds no array, or is damaged or cut short: {error}") from error
    if path.suffix == ".safetensors":
        tensors = list(load_state_dict(path).values())
        if len(tensors) == 1:
            return tensors[0]
        raise ArgumentError(
            f"{path} should hold the magnitude alone, it holds {counted(len(tensors), 'tensor')}"
        )
    raise ArgumentError(f"magnitudes are read from .npy and .safetensors files, got {str(path)!r}")
