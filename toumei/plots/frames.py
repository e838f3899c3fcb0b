"""Thin grey frames of pictures that cannot be told from a white page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOR = "silver"
OUTLINE = f"outline:1px solid {COLOR};outline-offset:-1px"  # CSS, takes no room
_NEAR_WHITE = 0.85  # the mean of the darkest channel along a side


def pale(images: Tensor) -> list[bool]:
    """Returns for each picture (N, C, H, W) in [0, 1] whether one of its sides is near white.

    Example:
        >>> pale(torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]))
        [False, True]
    """
    shown = images.detach().float().cpu()
    if shown.shape[1] == 4:  # what is transparent has no side that a frame could mark
        shown = shown[:, :3] * shown[:, 3:]
    darkest = shown.amin(1)
    sides = darkest[:, 0], darkest[:, -1], darkest[..., 0], darkest[..., -1]
    lightest = torch.stack([side.mean(1) for side in sides]).amax(0)
    return (lightest >= _NEAR_WHITE).tolist()


def draw_frames(ax: "Axes", boxes: Sequence[tuple[float, float, float, float]]) -> None:
    """Draws a frame around each box (left, top, width, height) in the data of the axes.

    All of them are one artist, because a notebook draws no figure of very many.

    Example:
        >>> from matplotlib import pyplot
        >>> figure, ax = pyplot.subplots()
        >>> draw_frames(ax, [(0, 0, 1, 1)])
        >>> len(ax.collections)
        1
    """
    if not boxes:
        return
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    frames = [Rectangle((left, top), width, height) for left, top, width, height in boxes]
    drawn = PatchCollection(frames, facecolor="none", edgecolor=COLOR, linewidth=1.0)
    ax.add_collection(drawn, autolim=False)
