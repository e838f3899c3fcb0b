"""From optimized numbers to colours: the decorrelation that lucid uses, and the bounds of RGB."""

import torch
from torch import Tensor

from ...core.checks import check_no_nan, checked
from ...core.conversions import has_values
from ...core.errors import ArgumentError, ShapeError
from ...core.kinds import shown

MARGIN = 1e-5  # how close to black and white a picture to start from may be under a sigmoid

# Square root of the colour covariance of ImageNet (lucid, param/color.py), columns scaled to norm at most 1.
_COVARIANCE_ROOT = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOR_CORRELATION = _COVARIANCE_ROOT / torch.linalg.vector_norm(_COVARIANCE_ROOT, dim=0).max()
COLOR_MEAN = torch.tensor([0.48, 0.46, 0.41])


@checked
class ColorSpace:
    """Turns optimized numbers (N, C, H, W) into a picture in [0, 1].

    Args:
        decorrelate: Optimize in a basis in which the colours of natural pictures are uncorrelated: True for
            lucid's basis, a 3x3 matrix for another one, False for none. Only pictures of three channels are
            decorrelated.
        sigmoid: Bound the colours by a sigmoid; otherwise zero is ImageNet's mean colour, or gray without
            decorrelation, and what leaves [0, 1] is clamped.
        channels: Number of channels of the picture.

    Raises:
        ShapeError: The matrix is not 3x3.

    Example:
        >>> ColorSpace()(torch.zeros(1, 3, 1, 1)).flatten()
        tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(self, decorrelate: bool | Tensor = True, sigmoid: bool = True, channels: int = 3) -> None:
        matrix = COLOR_CORRELATION if isinstance(decorrelate, bool) else decorrelate
        if matrix.shape != (3, 3):
            raise ShapeError(f"a colour matrix is 3x3, got {tuple(matrix.shape)}")
        self.sigmoid = sigmoid
        self.matrix = matrix.float() if decorrelate is not False and channels == 3 else None
        self.mean = torch.full((1, 1, 1), 0.5) if self.matrix is None else COLOR_MEAN.view(3, 1, 1)

    @checked
    def to(self, device: torch.device | str) -> "ColorSpace":
        """Moves the constants; returns the object itself."""
        self.matrix = None if self.matrix is None else self.matrix.to(device)
        self.mean = self.mean.to(device)
        return self

    def __call__(self, numbers: Tensor) -> Tensor:
        """Returns the picture (N, C, H, W) in [0, 1]."""
        if self.matrix is not None:
            numbers = torch.einsum("rc,nchw->nrhw", self.matrix, numbers)
        return numbers.sigmoid() if self.sigmoid else (numbers + self.mean).clamp(0, 1)

    @checked
    def inverse(self, image: Tensor, margin: float = MARGIN) -> Tensor:
        """Returns the numbers, in float64, from which these colours make a picture (N, C, H, W) in [0, 1].

        Args:
            image: The picture.
            margin: Under a sigmoid, colours are clamped to this distance from 0 and 1, which have infinite
                logits.

        Raises:
            ShapeError: No pictures (N, C, H, W), with 3 channels if there is a colour matrix, which needs an
                inverse.

        Example:
            >>> colors, image = ColorSpace(), torch.rand(1, 3, 4, 4)
            >>> torch.allclose(colors(colors.inverse(image).float()), image, atol=1e-5)
            True
        """
        if not 0 <= margin < 0.5:
            raise ArgumentError(f"margin is a distance from 0 and 1 below 0.5, got {margin}")
        if (
            not has_values(image)
            or image.dim() != 4
            or image.is_complex()
            or (self.matrix is not None and image.shape[1] != 3)
        ):
            raise ShapeError(f"expected pictures (N, C, H, W) of these colours, got {shown(image)}")
        check_no_nan("image", image)
        image = image.double()
        numbers = image.clamp(margin, 1 - margin).logit() if self.sigmoid else image - self.mean
        if self.matrix is None:
            return numbers
        if torch.linalg.matrix_rank(self.matrix) < 3:
            raise ShapeError("no picture to start from with a colour matrix that has no inverse")
        return torch.einsum("rc,nchw->nrhw", torch.linalg.inv(self.matrix.double()), numbers)
