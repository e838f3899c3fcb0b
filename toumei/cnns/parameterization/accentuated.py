"""A given picture whose spectrum is changed, with a gradient that favours low frequencies."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ..inputs import as_images
from .color import MARGIN, ColorSpace
from .colored import Colored
from .fft import frequencies


@checked
class AccentuatedImage(Colored):
    """Given pictures that are changed through their spectra (feature accentuation, Hamblin et al. 2024).

    The parameters are the coefficients of the discrete Fourier transform themselves; only their gradient is
    multiplied by ``sqrt(H W) / max(f, 1 / max(H, W)) ** decay``, as in the library horama. An optimizer that
    divides each gradient by its size, such as Adam, removes the factor: use `torch.optim.SGD`, or
    `FFTImage.from_image`, where the scale is a part of the picture.

    Args:
        image: The pictures to start from, (N, C, H, W) in [0, 1]; the generator is on their device.
        decay: Exponent of the frequency in the gradient's factor.
        decorrelate: See `ColorSpace`.
        sigmoid: See `ColorSpace`.
        margin: See `ColorSpace.inverse`.

    Raises:
        ShapeError: Pictures of another rank or range, or a colour matrix without an inverse.

    Example:
        >>> photograph = torch.rand(1, 3, 9, 16)
        >>> torch.allclose(AccentuatedImage(photograph).get_image(), photograph, atol=1e-5)
        True
    """

    def __init__(
        self,
        image: Tensor,
        *,
        decay: float = 1.5,
        decorrelate: bool | Tensor = True,
        sigmoid: bool = True,
        margin: float = MARGIN,
    ) -> None:
        image = as_images(image, "image", single=False)
        height, width = self.size = tuple(image.shape[-2:])
        self.colors = ColorSpace(decorrelate, sigmoid, image.shape[1]).to(image.device)
        spectrum = torch.fft.rfft2(self.colors.inverse(image, margin))
        self.coefficients = torch.view_as_real(spectrum).float().requires_grad_()
        factor = frequencies(height, width).clamp(min=1 / max(height, width)) ** -decay
        self.factor = (factor * (height * width) ** 0.5)[..., None].to(image.device)

    @property
    def parameters(self) -> list[Tensor]:
        """The coefficients, (N, C, H, W // 2 + 1, 2): real and imaginary parts."""
        return [self.coefficients]

    def numbers(self) -> Tensor:
        """Returns the inverse transform of the coefficients, (N, C, H, W)."""
        coefficients = _Preconditioned.apply(self.coefficients, self.factor)
        result: Tensor = torch.fft.irfft2(torch.view_as_complex(coefficients), s=self.size)
        return result

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the coefficients, the factor of their gradient and the colour matrix."""
        self.coefficients = self.coefficients.detach().to(device).requires_grad_()
        self.factor = self.factor.to(device)
        self.colors.to(device)
        return self


class _Preconditioned(torch.autograd.Function):
    """The identity; the gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None
