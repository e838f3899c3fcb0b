"""Random square crops of each picture, several in a step, noise, and gradients of norm 1."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.checks import check_memory, checked
from ...core.errors import ArgumentError
from ...core.summaries import counted

_SMALLEST = 0.05  # share of the picture, as in xplique


@checked
class Crops(nn.Module):
    """Shows several random square crops of each picture, all resized to one size.

    Crops are sampled bilinearly at the pixels of the view, without antialiasing: `size` should be at least
    half the size of the crops in pixels. A crop that would reach over the border is moved inside.

    Args:
        views: How many crops of each picture.
        size: Height and width of a crop as the network sees it.
        side: Mean and deviation of the side of a crop, normally distributed, as a share of the shorter side
            of the picture (MACO's paper); drawn shares are limited to 0.05 to 1.
        uniform: `side` is a range instead, from which shares are drawn uniformly.
        spread: Deviation of the centres around the centre of the picture, as a share of its sides.

    Raises:
        ArgumentError: Less than one crop or pixel, negative numbers, or a range that is empty or beyond 1.

    Example:
        >>> Crops(4, 32)(torch.rand(2, 3, 100, 120)).shape
        torch.Size([8, 3, 32, 32])
    """

    def __init__(
        self,
        views: int,
        size: int,
        side: tuple[float, float] = (0.25, 0.1),
        *,
        uniform: bool = False,
        spread: float = 0.15,
    ) -> None:
        super().__init__()
        if views < 1 or size < 1:
            raise ArgumentError(f"Crops needs at least 1 view of 1 pixel, got {views} of {size}")
        if not (0 < side[0] <= 1 and side[1] >= 0 and spread >= 0):
            raise ArgumentError(f"a crop is a positive share of the picture, got {side=} and {spread=}")
        if uniform and not side[0] <= side[1] <= 1:
            raise ArgumentError(f"a range of sides is ascending and ends at 1 at most, got {side}")
        self.views, self.size, self.side, self.uniform, self.spread = views, size, side, uniform, spread

    def draw(self, images: int, height: int, width: int) -> Tensor:
        """Returns crops (images, views, 4): centre x, y and half sides, where the picture spans -1 to 1."""
        first, second = self.side
        if self.uniform:
            share = first + (second - first) * torch.rand(images, self.views)
        else:
            share = (first + second * torch.randn(images, self.views)).clamp(_SMALLEST, 1)
        half = share[..., None] * min(height, width) / torch.tensor([width, height])
        centre = 2 * self.spread * torch.randn(images, self.views, 2)
        return torch.cat([centre.clamp(half - 1, 1 - half), half], dim=2)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the crops (views * N, C, size, size), the first of all pictures first."""
        count, channels = images.shape[:2]
        seen = self.views * count * channels * self.size**2
        check_memory(
            f"{counted(self.views, 'crop', form=',')} of {self.size:,} pixels", seen, "give fewer", itemsize=8
        )
        crops = self.draw(count, *images.shape[2:]).to(images, non_blocking=True)
        x, y, half_width, half_height = crops[..., None].unbind(2)
        steps = (2 * torch.arange(self.size, device=images.device) + 1) / self.size - 1
        x, y = x + half_width * steps, y + half_height * steps
        # One tall view holds all crops of a picture: its gradient is one picture, not one for each crop.
        grid = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), dim=4).flatten(1, 2)
        tall = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        each = tall.view(count, channels, self.views, self.size, self.size)
        return each.permute(2, 0, 1, 3, 4).flatten(0, 1)

    def extra_repr(self) -> str:
        """Returns the number and the size."""
        return f"{self.views}, {self.size}"


@checked
class Noise(nn.Module):
    """Adds noise to every pixel.

    Args:
        normal: Deviation of normally distributed noise.
        uniform: Bound of uniformly distributed noise, which is added to it.

    Raises:
        ArgumentError: A negative number.

    Example:
        >>> Noise(uniform=0.1)(torch.zeros(1, 3, 8, 8)).abs().max() <= 0.1
        tensor(True)
    """

    def __init__(self, normal: float = 0.0, uniform: float = 0.0) -> None:
        super().__init__()
        if normal < 0 or uniform < 0:
            raise ArgumentError(f"noise is not negative, got {normal=} and {uniform=}")
        self.normal, self.uniform = normal, uniform

    def forward(self, images: Tensor) -> Tensor:
        """Returns the noisy pictures."""
        if self.normal:
            images = images + self.normal * torch.randn_like(images)
        if self.uniform:
            images = images + self.uniform * (2 * torch.rand_like(images) - 1)
        return images

    def extra_repr(self) -> str:
        """Returns how strong the noise is."""
        return f"{self.normal:g}, {self.uniform:g}"


class _OneSize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return image.view_as(image)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        norms = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        result: Tensor = gradient / norms.clamp(min=1e-12).reshape(-1, *(1,) * (gradient.dim() - 1))
        return result


class NormalizeGradient(nn.Module):
    """The identity; the gradient of each picture gets the norm 1 (lucid's `normalize_gradient`).

    For optimizers whose steps grow with the gradient, such as SGD. Adam normalizes steps anyway.

    Example:
        >>> image = torch.rand(2, 3, 4, 4, requires_grad=True)
        >>> (5 * NormalizeGradient()(image)).sum().backward()
        >>> image.grad.flatten(1).norm(dim=1).round(decimals=3)
        tensor([1., 1.])
    """

    def forward(self, image: Tensor) -> Tensor:
        """Returns the pictures."""
        result: Tensor = _OneSize.apply(image)
        return result
