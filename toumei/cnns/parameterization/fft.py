"""Pictures whose spectrum is optimized, so that all frequencies move at the same speed."""

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import check_counts, check_memory, checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from .color import MARGIN, ColorSpace
from .colored import Colored, gray_like
from .generator import check_deviation, check_size


@checked
def frequencies(height: int, width: int) -> Tensor:
    """Returns the absolute frequency of each bin of `rfft2`, (height, width // 2 + 1), in cycles per pixel.

    Example:
        >>> frequencies(2, 2)
        tensor([[0.0000, 0.5000],
                [0.5000, 0.7071]])
    """
    check_counts(1, height=height, width=width)
    check_memory(f"a spectrum of {height:,} by {width:,}", height * width, "give a smaller size")
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :])


@checked
class FFTImage(Colored):
    """Pictures whose Fourier coefficients, scaled by 1 / frequency, are the parameters (lucid's `fft_image`).

    The coefficients are multiplied by ``1 / max(f, 1 / max(H, W)) ** decay``, transformed back with the
    orthonormal inverse transform, and divided by `saturation`. Any height and width, odd or even.

    Args:
        images: How many pictures.
        channels: Colour channels, three for RGB.
        height: Height in pixels.
        width: Width in pixels.
        sd: Standard deviation of the coefficients to start from.
        decay: Exponent of the frequency in the scale; 1 as in natural pictures.
        saturation: What the picture is divided by before the colours; higher is grayer (lucid: 4).
        decorrelate: See `ColorSpace`.
        sigmoid: See `ColorSpace`.
        seed: Seed of the coefficients.

    Raises:
        ShapeError: A size that is not a positive whole number, or a colour matrix that is not 3x3.

    Example:
        >>> FFTImage(1, 3, 31, 20, seed=0).get_image().shape
        torch.Size([1, 3, 31, 20])
    """

    def __init__(
        self,
        images: int,
        channels: int,
        height: int,
        width: int,
        *,
        sd: float = 0.01,
        decay: float = 1.0,
        saturation: float = 4.0,
        decorrelate: bool | Tensor = True,
        sigmoid: bool = True,
        seed: int | None = None,
    ) -> None:
        check_size("FFTImage", images, channels, height, width)
        check_deviation(sd)
        self.size = (height, width)
        scale = frequencies(height, width).clamp(min=1 / max(height, width)) ** -decay
        # A factor for each real number, not one for each pair: broadcasting over the last axis is slow.
        self.scale = (scale / saturation)[..., None].repeat(1, 1, 2)
        if not (self.scale.isfinite() & (self.scale != 0)).all():
            raise ArgumentError(
                f"decay {decay} and saturation {saturation} leave frequencies out, or make them infinite"
            )
        noise = torch.randn(images, channels, *scale.shape, 2, generator=make_generator(seed))
        self.coefficients = (noise * sd).requires_grad_()
        self.colors = ColorSpace(decorrelate, sigmoid, channels)

    @classmethod
    @checked
    def from_image(
        cls,
        image: Tensor,
        *,
        decay: float = 1.0,
        saturation: float = 4.0,
        decorrelate: bool | Tensor = True,
        sigmoid: bool = True,
        margin: float = MARGIN,
    ) -> Self:
        """Returns a generator that starts from these pictures, on their device.

        Args:
            image: (N, C, H, W) in [0, 1].
            decay: See the class.
            saturation: See the class.
            decorrelate: See `ColorSpace`.
            sigmoid: See `ColorSpace`. Pixels at 0 and 1 have next to no gradient under a sigmoid; without
                one they are exact and free to move.
            margin: See `ColorSpace.inverse`.

        Raises:
            ShapeError: Pictures of another rank or range, or a colour matrix without an inverse.

        Example:
            >>> photograph = torch.rand(1, 3, 9, 16)
            >>> torch.allclose(FFTImage.from_image(photograph).get_image(), photograph, atol=1e-5)
            True
        """
        colors = {"decorrelate": decorrelate, "sigmoid": sigmoid}
        made, numbers = gray_like(cls, image, margin, decay=decay, saturation=saturation, **colors)
        spectrum = torch.view_as_real(torch.fft.rfft2(numbers, norm="ortho"))
        made.coefficients = (spectrum / made.scale).float().requires_grad_()
        return made

    @property
    def parameters(self) -> list[Tensor]:
        """The coefficients before scaling, (N, C, H, W // 2 + 1, 2): real and imaginary parts."""
        return [self.coefficients]

    def numbers(self) -> Tensor:
        """Returns the inverse transform of the scaled coefficients, (N, C, H, W)."""
        spectrum = torch.view_as_complex(self.scale * self.coefficients)
        result: Tensor = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return result

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the coefficients, their scale and the colour matrix."""
        self.coefficients = self.coefficients.detach().to(device).requires_grad_()
        self.scale = self.scale.to(device)
        self.colors.to(device)
        return self
