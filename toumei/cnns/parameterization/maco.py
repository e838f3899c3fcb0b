"""Pictures with the spectral magnitudes of natural images; only their phases are optimized."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.seeding import make_generator
from .color import ColorSpace
from .colored import Colored
from .generator import check_size
from .magnitude import load_magnitude, natural_magnitude

_EPSILON = 1e-4  # horama's, added to each standard deviation


@checked
class MACO(Colored):
    """Pictures whose spectra have fixed magnitudes, so that only phases are optimized (MACO).

    The phases of a picture are standardized, combined with the magnitudes, and transformed back. The result
    is standardized, its colours are recorrelated and bounded by a sigmoid (Fel et al., Unlocking Feature
    Visualization for Deeper Networks with MAgnitude Constrained Optimization, 2023; the formulas are those
    of the authors' library horama). While pictures are optimized, the absolute gradient of each pixel is
    summed in `transparency`: where it is low, the pixel had little effect.

    The method shows the network random crops of a canvas and takes steps of NAdam with a learning rate of 1.
    The paper: 256 steps, ``Crops(32, 224, (0.25, 0.1))`` and uniform noise of 0.1. Horama: 1000 steps, a
    canvas of 1280 pixels, ``Crops(6, 224, (0.25, 0.3), uniform=True)``, ``Normalize((0.5,) * 3, (0.2,) * 3)``
    for a range of -2.5 to 2.5, and then ``Noise(0.05, 0.025)``.

    Args:
        images: How many pictures.
        channels: Colour channels, three for RGB.
        height: Height in pixels.
        width: Width in pixels.
        magnitude: (C, H', W'), resized to (C, H, W // 2 + 1): that of your images by `magnitude_spectrum`, or
            a ``.npy`` or ``.safetensors`` file; by default `natural_magnitude`.
        decorrelate: See `ColorSpace`.
        seed: Seed of the phases, which are normally distributed.

    Raises:
        ShapeError: A size that is not a positive whole number, or magnitudes of another rank or number of
            channels, negative, not finite, or zero.

    Example:
        >>> import toumei.cnns.objectives as obj
        >>> from toumei.cnns import robustness
        >>> from toumei.cnns.parameterization import Transform
        >>> from toumei.models import SimpleCNN
        >>> maco = MACO(2, 3, 48, 48, seed=0)
        >>> shown = Transform(maco, robustness.Crops(4, 32), robustness.Noise(0.05, 0.025))
        >>> fv = obj.Pipeline(shown, obj.Channel("conv1", channels=[0, 3])).attach(SimpleCNN(3, 10))
        >>> result = fv.optimize(3, torch.optim.NAdam, lr=1.0, verbose=False)
        >>> maco.transparent().shape
        torch.Size([2, 4, 48, 48])
    """

    def __init__(
        self,
        images: int,
        channels: int,
        height: int,
        width: int,
        *,
        magnitude: Tensor | str | Path | None = None,
        decorrelate: bool | Tensor = True,
        seed: int | None = None,
    ) -> None:
        check_size("MACO", images, channels, height, width)
        self.size = (height, width)
        self.magnitude = _fitting(magnitude, channels, height, width)
        phase = torch.randn(images, *self.magnitude.shape, generator=make_generator(seed))
        self.phase = phase.requires_grad_()
        self.colors = ColorSpace(decorrelate, channels=channels)
        self.transparency = torch.zeros(images, 1, height, width)

    @property
    def parameters(self) -> list[Tensor]:
        """The phases before standardization, (N, C, H, W // 2 + 1)."""
        return [self.phase]

    def numbers(self) -> Tensor:
        """Returns the standardized pictures (N, C, H, W) before the colours."""
        phase = standardized(self.phase)
        return standardized(
            torch.fft.irfft2(torch.polar(self.magnitude.expand_as(phase), phase), s=self.size)
        )

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]; their gradient is added to `transparency`."""
        result: Tensor = _Watched.apply(super().get_image(), self.transparency)
        return result

    @checked
    def transparent(self, clip: float = 1.0, opaque: float = 80.0) -> Tensor:
        """Returns the pictures as the authors show them, on the CPU: (N, C + 1, H, W), the last is alpha.

        Args:
            clip: Percentile of the colours that becomes black, and 100 minus it white, in each picture.
            opaque: Percentile of the transparency above which pixels are opaque. Before any step all are.

        Raises:
            ArgumentError: No percentiles, from 0 to 100.
        """
        if not (0 <= clip <= 100 and 0 <= opaque <= 100):
            raise ArgumentError(f"percentiles go from 0 to 100, got clip={clip} and opaque={opaque}")
        with torch.no_grad():
            image, alpha = super().get_image().float().cpu(), self.transparency.float().cpu()
        low, high = _percentile(image, clip), _percentile(image, 100 - clip)
        colors = (image.clamp(low, high) - low) / (high - low).clamp(min=1e-12)
        alpha = (alpha / _percentile(alpha, opaque)).nan_to_num(nan=1.0).clamp(max=1)
        return torch.cat([colors, alpha], dim=1)

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the phases, the magnitudes, the transparency and the colour matrix."""
        self.phase = self.phase.detach().to(device).requires_grad_()
        self.magnitude = self.magnitude.to(device)
        self.transparency = self.transparency.to(device)
        self.colors.to(device)
        return self


def standardized(tensor: Tensor) -> Tensor:
    """Returns each picture of a batch minus its mean, divided by its standard deviation plus 0.0001."""
    deviation, mean = torch.std_mean(tensor, dim=(1, 2, 3), keepdim=True)
    return (tensor - mean) / (deviation + _EPSILON)


class _Watched(torch.autograd.Function):
    """The identity; the absolute gradient, averaged over channels, is added to a tensor."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, total: Tensor) -> Tensor:
        ctx.total = total
        return image.view_as(image)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.total += gradient.abs().mean(1, keepdim=True)
        return gradient, None


def _fitting(magnitude: Tensor | str | Path | None, channels: int, height: int, width: int) -> Tensor:
    """The magnitudes (C, H, W // 2 + 1) of a canvas."""
    if magnitude is None:
        return natural_magnitude(channels, height, width)
    if not isinstance(magnitude, Tensor):
        magnitude = load_magnitude(magnitude)
    magnitude = magnitude.detach().to("cpu", torch.float32)
    if magnitude.dim() != 3 or len(magnitude) != channels or magnitude.numel() == 0:
        raise ShapeError(f"the magnitude must be ({channels}, H, W), got {tuple(magnitude.shape)}")
    if not (magnitude.isfinite().all() and (magnitude >= 0).all() and magnitude.any()):
        raise ShapeError("the magnitude must be finite, nowhere negative, and somewhere positive")
    size = (height, width // 2 + 1)
    return F.interpolate(magnitude[None], size=size, mode="bilinear", antialias=True)[0]


def _percentile(pictures: Tensor, percent: float) -> Tensor:
    """A percentile of each picture, (N, 1, 1, 1)."""
    # torch's quantile is limited to 16 million values.
    values = np.percentile(pictures.flatten(1).numpy(), percent, axis=1)
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).view(-1, 1, 1, 1)
