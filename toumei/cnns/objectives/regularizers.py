"""Quantities of pictures and batches that are added to or subtracted from an objective."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.units import channels_first
from .objective import IMAGE, ActivationMap, Objective


@dataclass(frozen=True, repr=False)
class TotalVariation(Objective):
    """The total variation of a picture: the sum of absolute differences of neighbouring pixels. Subtract it.

    Args:
        layer: The picture, or a layer of maps (N, C, H, W).

    Example:
        >>> TotalVariation().score({IMAGE: torch.eye(2)[None, None]})
        tensor([4.])
    """

    layer: str = IMAGE

    @property
    def layers(self) -> tuple[str, ...]:
        """What it measures."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the sum over channels and positions, (N,)."""
        from kornia.losses import total_variation

        variation: Tensor = total_variation(activations[self.layer])
        return variation.sum(1)


@dataclass(frozen=True, repr=False)
class L1(Objective):
    """The L1 norm of the difference of a picture to a constant. Subtract it.

    Args:
        layer: The picture, or a layer.
        constant: What costs nothing; gray is 0.5.

    Example:
        >>> L1(constant=0.5).score({IMAGE: torch.zeros(1, 3, 2, 2)})
        tensor([6.])
    """

    layer: str = IMAGE
    constant: float = 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        """What it measures."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the norm of each picture, (N,)."""
        return (activations[self.layer] - self.constant).flatten(1).abs().sum(1)


@dataclass(frozen=True, repr=False)
class L2(L1):
    """The L2 norm of the difference of a picture to a constant, smoothed at zero as in lucid. Subtract it.

    Args:
        layer: The picture, or a layer.
        constant: What costs nothing; gray is 0.5.

    Example:
        >>> L2(constant=0.5).score({IMAGE: torch.zeros(1, 1, 2, 2)}).round(decimals=3)
        tensor([1.])
    """

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the square root of 1e-6 plus the sum of squares of each picture, (N,)."""
        return ((activations[self.layer] - self.constant).flatten(1).square().sum(1) + 1e-6).sqrt()


@dataclass(frozen=True, repr=False)
class Diversity(Objective):
    """How different the pictures of a batch look to a layer. Add it, with weights around 100.

    For each picture, minus the sum of cosines between its Gram matrix and those of the others (Olah et al.,
    Feature Visualization, 2017). The mean over the pictures is minus lucid's `diversity`.

    Args:
        layer: Name of the layer.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Example:
        >>> Diversity("conv1").score({"conv1": torch.ones(3, 2, 4, 4)})
        tensor([-2., -2., -2.])
    """

    layer: str
    channel_axis: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns minus the sum of similarities to the other pictures, (N,)."""
        activation = channels_first(activations[self.layer], self.channel_axis)
        grams = torch.einsum("ncp,ndp->ncd", activation, activation).flatten(1)
        grams = grams * grams.square().sum(1, keepdim=True).clamp(min=1e-10).rsqrt()
        cosines = grams @ grams.T
        return cosines.diagonal() - cosines.sum(1)
