"""The sets of transforms that lucid and the Distill article use, and a weaker one."""

from typing import Any

from ...core.checks import checked
from .transforms import Jitter, Pad, Rotate, Scale, Views


@checked
def lucid(**options: Any) -> Views:
    """Returns lucid's standard transforms; the view is 12 pixels larger than the picture.

    Padding 12, jitter 8, scale 0.9 to 1.1, rotation by -10 to 10 degrees (0 more often), jitter 4: the list
    `standard_transforms` of lucid's ``optvis/transform.py``, with other random numbers for each image.

    Args:
        **options: `same_on_batch` and `fill` of `Views`.

    Example:
        >>> import torch
        >>> lucid()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 3, 76, 76])
    """
    scales = [1 + (step - 5) / 50 for step in range(11)]
    return Views(Pad(12), Jitter(8), Scale(scales), Rotate([*range(-10, 11), *[0] * 5]), Jitter(4), **options)


@checked
def distill(**options: Any) -> Views:
    """Returns the transforms of the Distill article; the view has the size of the picture.

    Padding 16, jitter 16, scale 0.95 to 1.05, rotation by -5 to 5 degrees, jitter 8, and the rest of the
    padding cropped (Olah et al., Feature Visualization, 2017).

    Args:
        **options: `same_on_batch` and `fill` of `Views`.

    Example:
        >>> import torch
        >>> distill()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 3, 64, 64])
    """
    scales = [1, 0.975, 1.025, 0.95, 1.05]
    return Views(Pad(16), Jitter(16), Scale(scales), Rotate(range(-5, 6)), Jitter(8), Pad(-4), **options)


@checked
def light(**options: Any) -> Views:
    """Returns a weak set of transforms for small pictures; the view has the size of the picture.

    Padding 2, jitter 2 twice, scale 0.95 to 1.05, rotation by -5 to 5 degrees.

    Args:
        **options: `same_on_batch` and `fill` of `Views`.

    Example:
        >>> import torch
        >>> light()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 3, 64, 64])
    """
    return Views(
        Pad(2), Jitter(2), Scale([0.95, 0.975, 1, 1.025, 1.05]), Rotate(range(-5, 6)), Jitter(2), **options
    )
