"""The preprocessing from pictures in [0, 1] to the input of a network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


_PREPROCESS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception5h": ((117 / 255,) * 3, (1 / 255,) * 3),
}


@checked
def preprocess(name: "str | WeightsEnum") -> nn.Module:
    """Returns the preprocessing from RGB in [0, 1] to the input of a network.

    Args:
        name: ``"imagenet"`` for torchvision's normalization by mean and deviation, ``"inception5h"`` for
            255 x - 117, or trained weights of torchvision, such as ``EfficientNet_V2_L_Weights.DEFAULT`` or
            ``"EfficientNet_V2_L_Weights.DEFAULT"``, for the mean and deviation that they were trained with.

    Raises:
        ArgumentError: There is no preprocessing of this name, or the network normalizes its input itself.

    Example:
        >>> preprocess("inception5h")(torch.ones(1, 3, 1, 1)).flatten().round()
        tensor([138., 138., 138.])
    """
    known = isinstance(name, str) and name in _PREPROCESS
    return Normalize(*(_PREPROCESS[str(name)] if known else _mean_and_deviation(name)))


@checked
class Normalize(nn.Module):
    """Subtracts a mean from each channel and divides by a deviation.

    torchvision copies the numbers to the device at every call, and kornia before version 0.9 copied every
    result to the CPU. This module does neither, so an accelerator never waits.

    Args:
        mean: One number for each channel.
        std: One number for each channel.

    Example:
        >>> Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))(torch.ones(1, 3, 1, 1)).flatten()
        tensor([2., 2., 2.])
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(deviation > 0 for deviation in std):
            raise ArgumentError(f"a mean and a deviation above 0 for each channel, got {mean} and {std}")
        means, deviations = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / deviations)
        self.register_buffer("shift", -means / deviations)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the normalized pictures (N, C, H, W)."""
        if images.dim() < 3 or images.shape[-3] not in (1, len(self.scale)):
            raise ShapeError(
                f"expected pictures of {counted(len(self.scale), 'channel')} (N, {len(self.scale)}, H, W), "
                f"got {tuple(images.shape)}"
            )
        shift, scale = (numbers.to(images.device, non_blocking=True) for numbers in (self.shift, self.scale))
        return torch.addcmul(shift, images, scale)


def _mean_and_deviation(name: "str | WeightsEnum") -> tuple[Sequence[float], Sequence[float]]:
    """The mean and deviation that torchvision knows for trained weights."""
    from torchvision.models import get_weight

    try:
        transforms = (get_weight(name) if isinstance(name, str) else name).transforms()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        known = ", ".join(map(repr, _PREPROCESS))
        raise ArgumentError(
            f"no preprocessing {name!r}: there are {known} and trained weights of torchvision, such as "
            f"'ResNet50_Weights.DEFAULT'"
        ) from error
    if not hasattr(transforms, "mean"):
        raise ArgumentError(f"the network of {name!r} normalizes its input itself: it needs no preprocessing")
    return transforms.mean, transforms.std
