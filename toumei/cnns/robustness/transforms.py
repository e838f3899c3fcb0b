"""Transformation robustness: random views of a picture, so that it excites its unit however it is moved.

The transforms are kornia augmentations: each image of a batch gets other random numbers unless
``same_on_batch`` is set, and an `nn.Sequential` can hold them with others of `kornia.augmentation`. `Views`
multiplies the matrices of several transforms and resamples once, which costs less and blurs less than one
resampling for each. Outside of the picture a view is gray (0.5, lucid's padding). `Crops` shows several views
of each picture in one step, as MACO does, and `Noise` adds noise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import check_memory, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted
from .affine_maps import Size, grid_from_pixels, maps_about_centre, pixels_from_grid, shift_maps

_GRAY = 0.5


@checked
class View(GeometricAugmentationBase2D, ABC):  # type: ignore[misc]  # kornia has no types
    """Base of the geometric transforms: a random affine map from pixels of a picture to those of its view.

    A subclass implements `draw`, which returns the map and the size of the view.

    Args:
        same_on_batch: All images of a batch get the same map.
        fill: The value outside of the picture.

    Example:
        >>> from toumei.cnns.robustness import Jitter
        >>> isinstance(Jitter(4), View)
        True
    """

    _compute_matrix_lazily = True  # the map is drawn on the CPU; the device needs it only inverted

    def __init__(self, same_on_batch: bool = False, fill: float = _GRAY) -> None:
        if abs(fill) > torch.finfo(torch.float16).max:  # sums of larger ones are infinite in low precision
            raise ArgumentError(f"fill is a finite number, got {fill}")
        super().__init__(p=1.0, same_on_batch=same_on_batch)
        self.fill = fill

    @abstractmethod
    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns maps (images, 3, 3) from pixel (x, y, 1) to pixel of the view, and the view's (H, W)."""

    def generate_parameters(self, batch_shape: Any) -> dict[str, Tensor]:
        """Returns random parameters for a batch of this shape: maps on the CPU, and the size of the view."""
        maps, size = self.draw(1 if self.same_on_batch else batch_shape[0], tuple(batch_shape[-2:]))
        if min(size) < 1:
            raise ShapeError(f"nothing is left of a picture of {tuple(batch_shape[-2:])} pixels in {self!r}")
        seen = batch_shape[0] * batch_shape[1] * size[0] * size[1]
        check_memory(f"a view of {size[0]:,} by {size[1]:,} pixels", seen, "give fewer pixels", itemsize=8)
        # kornia's containers read the size under this name for the parameters of the next transform.
        return {
            "maps": maps.expand(batch_shape[0], 3, 3),
            "output_size": torch.tensor([size] * batch_shape[0]),
        }

    def compute_transformation(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]
    ) -> Tensor:
        """Returns the maps on the device of the picture."""
        return params["maps"].to(input)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Returns the views (N, C, H', W') of pictures (N, C, H, W), resampled bilinearly."""
        height, width = params["output_size"][0].tolist()
        to_picture = (
            grid_from_pixels(input.shape[-2:])
            @ torch.linalg.inv(params["maps"])
            @ pixels_from_grid((height, width))
        )
        # Copied without waiting for the accelerator.
        theta = to_picture[:, :2].to(input.device, input.dtype, non_blocking=True)
        grid = F.affine_grid(theta, [*input.shape[:2], height, width], align_corners=False)
        return F.grid_sample(input - self.fill, grid, align_corners=False) + self.fill

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


@checked
class Pad(View):
    """Adds a border of this many pixels on every side, or crops one if the number is negative.

    Example:
        >>> Pad(2)(torch.ones(1, 3, 4, 6)).shape
        torch.Size([1, 3, 8, 10])
    """

    def __init__(self, pixels: int, **options: Any) -> None:
        super().__init__(**options)
        self.pixels = pixels

    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns the same shift for every image."""
        shift = torch.full((images,), float(self.pixels))
        return shift_maps(shift, shift), (size[0] + 2 * self.pixels, size[1] + 2 * self.pixels)

    def extra_repr(self) -> str:
        """Returns the width of the border."""
        return str(self.pixels)


@checked
class CropOrPad(View):
    """Crops or pads around the centre to a fixed size, for networks that take only one.

    Args:
        height: Pixels of the result.
        width: Pixels of the result.

    Example:
        >>> CropOrPad(8, 8)(torch.ones(1, 3, 5, 11)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, height: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = (height, width)

    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns the same whole-pixel shift for every image."""
        y, x = ((new - old) // 2 for new, old in zip(self.size, size, strict=True))
        return shift_maps(torch.full((images,), float(x)), torch.full((images,), float(y))), self.size

    def extra_repr(self) -> str:
        """Returns the size."""
        return f"{self.size[0]}, {self.size[1]}"


@checked
class Jitter(View):
    """Shifts by a random whole number of pixels: a crop that is this much smaller, at a random position.

    Example:
        >>> Jitter(3)(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 5, 5])
    """

    def __init__(self, pixels: int, **options: Any) -> None:
        super().__init__(**options)
        if pixels < 1:
            raise ArgumentError(f"Jitter moves by at least 1 pixel, got {pixels}")
        self.pixels = pixels

    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns shifts of 0 to -pixels, independent in x and y."""
        x, y = -torch.randint(self.pixels + 1, (2, images)).float()
        return shift_maps(x, y), (size[0] - self.pixels, size[1] - self.pixels)

    def extra_repr(self) -> str:
        """Returns the range."""
        return str(self.pixels)


@checked
class _Choice(View):
    """A transform that picks one of several values for each image."""

    def __init__(self, values: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        if len(values) == 0:
            raise ArgumentError(f"{type(self).__name__} needs at least one value to choose from")
        self.values = torch.tensor([float(value) for value in values])

    def pick(self, images: int) -> Tensor:
        """Returns a random choice (images,) of the values."""
        return self.values[torch.randint(len(self.values), (images,))]

    def extra_repr(self) -> str:
        """Returns how many values there are, with the smallest and the largest one."""
        return f"{counted(len(self.values), 'value')} from {self.values.min():g} to {self.values.max():g}"


class Scale(_Choice):
    """Zooms about the centre by one of these factors; the view keeps the size of the picture.

    Example:
        >>> Scale([0.9, 1.0, 1.1])(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, values: Sequence[float], **options: Any) -> None:
        super().__init__(values, **options)
        if not (self.values > 0).logical_and(self.values < math.inf).all():
            raise ArgumentError(f"Scale zooms by factors above 0, got {values}")

    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns zooms about the centre."""
        factor = self.pick(images)
        return maps_about_centre(factor, torch.zeros(images), size), size


class Rotate(_Choice):
    """Turns about the centre by one of these angles in degrees; the view keeps the size of the picture.

    Example:
        >>> Rotate(range(-5, 6))(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, values: Sequence[float], **options: Any) -> None:
        super().__init__(values, **options)
        if not self.values.isfinite().all():
            raise ArgumentError(f"Rotate turns by finite angles, got {values}")

    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns rotations about the centre, positive angles counter-clockwise as displayed."""
        angle = self.pick(images) * (math.pi / 180)
        return maps_about_centre(angle.cos(), angle.sin(), size), size


@checked
class Views(View):
    """Several transforms in sequence, resampled once.

    Args:
        *pieces: Transforms of this module.
        **options: `same_on_batch` and `fill`, for all of them.

    Raises:
        ArgumentError: No transforms, or one with another `same_on_batch` or `fill`.

    Example:
        >>> Views(Pad(4), Jitter(8), Rotate([-5, 0, 5]))(torch.rand(2, 3, 32, 20)).shape
        torch.Size([2, 3, 32, 20])
    """

    def __init__(self, *pieces: View, **options: Any) -> None:
        super().__init__(**options)
        if not pieces:
            raise ArgumentError("Views needs at least one transform")
        for piece in pieces:
            if piece.same_on_batch > self.same_on_batch or piece.fill not in (_GRAY, self.fill):
                raise ArgumentError(
                    f"same_on_batch and fill are for all pieces: give them to Views, not {piece}"
                )
        self.pieces = pieces

    def draw(self, images: int, size: Size) -> tuple[Tensor, Size]:
        """Returns the product of the maps of all transforms."""
        maps = torch.eye(3).expand(images, 3, 3)
        for piece in self.pieces:
            step, size = piece.draw(images, size)
            maps = step @ maps
        return maps, size

    def extra_repr(self) -> str:
        """Returns the transforms."""
        return ", ".join(repr(piece) for piece in self.pieces)
