"""Regularizers, to subtract from an objective: total variation, norms, blur, complexity of the border."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import checked
from ...core.errors import ShapeError
from .objective import IMAGE, ActivationMap, Objective


@checked
@dataclass(frozen=True, repr=False)
class TotalVariation(Objective):
    """The total variation of a picture: the sum of absolute differences of neighbouring pixels. Subtract it.

    Args:
        layer: The picture, or a layer of maps (N, C, H, W).

    Raises:
        ShapeError: When a model is attached: a layer that makes no maps.

    Example:
        >>> TotalVariation().score({IMAGE: torch.eye(2)[None, None]})
        tensor([4.])
    """

    layer: str = IMAGE

    @property
    def layers(self) -> tuple[str, ...]:
        """The measured layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the sum over channels and positions, (N,)."""
        from kornia.losses import total_variation

        variation: Tensor = total_variation(_maps(activations, self.layer))
        return variation.sum(1)


@checked
@dataclass(frozen=True, repr=False)
class L1(Objective):
    """The L1 norm of the difference of a picture to a constant. Subtract it.

    Args:
        layer: The picture, or a layer.
        constant: The value without a cost; gray is 0.5.

    Example:
        >>> L1(constant=0.5).score({IMAGE: torch.zeros(1, 3, 2, 2)})
        tensor([6.])
    """

    layer: str = IMAGE
    constant: float = 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        """The measured layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the norm of each picture, (N,)."""
        return (activations[self.layer] - self.constant).flatten(1).abs().sum(1)


@checked
@dataclass(frozen=True, repr=False)
class L2(L1):
    """The L2 norm of the difference of a picture to a constant, smoothed at zero as in lucid. Subtract it.

    Args:
        layer: The picture, or a layer.
        constant: The value without a cost; gray is 0.5.

    Example:
        >>> L2(constant=0.5).score({IMAGE: torch.zeros(1, 1, 2, 2)}).round(decimals=3)
        tensor([1.])
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the square root of 1e-6 plus the sum of squares of each picture, (N,)."""
        return ((activations[self.layer] - self.constant).flatten(1).square().sum(1) + 1e-6).sqrt()


@checked
@dataclass(frozen=True, repr=False)
class LInf(L1):
    """The largest absolute difference of a picture to a constant. Subtract it.

    Args:
        layer: The picture, or a layer.
        constant: The value without a cost; gray is 0.5.

    Example:
        >>> LInf(constant=0.5).score({IMAGE: torch.zeros(1, 3, 2, 2)})
        tensor([0.5000])
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the norm of each picture, (N,)."""
        return (activations[self.layer] - self.constant).flatten(1).abs().amax(1)


@checked
@dataclass(frozen=True, repr=False)
class BlurDifference(Objective):
    """Half the squared difference of a picture to its blur, which is held fixed. Subtract it.

    One step of gradient descent on it blurs the picture (Nguyen et al. 2015; lucid's `blur_input_each_step`).

    Args:
        layer: The picture, or a layer of maps (N, C, H, W).

    Raises:
        ShapeError: When a model is attached: a layer that makes no maps.

    Example:
        >>> BlurDifference().score({IMAGE: torch.ones(1, 3, 4, 4)})
        tensor([0.])
    """

    layer: str = IMAGE

    @property
    def layers(self) -> tuple[str, ...]:
        """The measured layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns half the sum of squares over channels and positions, (N,)."""
        image = _maps(activations, self.layer)
        return 0.5 * (image - _blur(image, 3).detach()).square().flatten(1).sum(1)


@checked
@dataclass(frozen=True, repr=False)
class BoundaryComplexity(Objective):
    """How complex and how far from gray the border of a picture is, as in lucid. Subtract it.

    Args:
        width: Width of the border in pixels.
        constant: The colour without a cost.
        layer: The picture, or a layer of maps (N, C, H, W).

    Raises:
        ShapeError: When a model is attached: a layer that makes no maps.

    Example:
        >>> BoundaryComplexity(1).score({IMAGE: torch.full((1, 3, 8, 8), 0.5)})
        tensor([0.])
    """

    width: int = 20
    constant: float = 0.5
    layer: str = IMAGE

    @property
    def layers(self) -> tuple[str, ...]:
        """The measured layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the sum over the border of (blur - x)^2 + 0.8 (x - constant)^2, (N,)."""
        image = _maps(activations, self.layer)
        cost = (_blur(image, 5) - image).square() + 0.8 * (image - self.constant).square()
        border = torch.ones_like(image)
        border[..., self.width : -self.width or None, self.width : -self.width or None] = 0
        return (cost * border).flatten(1).sum(1)


def _maps(activations: ActivationMap, layer: str) -> Tensor:
    maps = activations[layer]
    if maps.dim() != 4:
        raise ShapeError(
            f"expected maps (N, C, H, W), whose positions have neighbours, but layer {layer!r} makes "
            f"{tuple(maps.shape)}"
        )
    return maps


def _blur(image: Tensor, width: int) -> Tensor:
    """Returns lucid's blur: weights 1, but 0.5 at the edge of the kernel and 0 outside of the picture."""
    kernel = image.new_full((1, 1, width, width), 0.5)
    kernel[..., 1:-1, 1:-1] = 1
    planes = image.flatten(0, 1)[:, None]
    blurred = F.conv2d(planes, kernel, padding="same")
    return (blurred / F.conv2d(torch.ones_like(planes), kernel, padding="same")).view_as(image)
