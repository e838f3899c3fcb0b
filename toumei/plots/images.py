"""Grids of pictures on matplotlib axes. All of it works without a display; only `show` opens a window."""

import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import check_counts, checked
from ..core.errors import ArgumentError
from ..core.summaries import counted
from .frames import draw_frames, pale
from .pixels import GAP, columns_of, in_range, montage
from .style import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SQUARE, _SPACE = 192, 10  # pixels of a group in a comparison, and between groups


@checked
def image_grid(
    images: Tensor, titles: Sequence[str] = (), columns: int | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Returns axes that show a batch of pictures as a grid, with a title above each.

    A picture whose edge is near white has a thin grey frame, unless all of it is white, as an empty place is.

    Args:
        images: (N, C, H, W) in [0, 1], with one channel, three, or four; the fourth is alpha.
        titles: What to write above the pictures, from the first on.
        columns: Pictures in a row.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: The pictures are not (N, 1, 3 or 4, H, W).
        ArgumentError: There are more titles than pictures.

    Example:
        >>> axes = image_grid(torch.rand(3, 3, 8, 8), ["a", "b", "c"])
        >>> [text.get_text() for text in axes.texts]
        ['a', 'b', 'c']
    """
    canvas, columns, gap = titled_montage(images, titles, columns)
    if ax is None:
        from matplotlib import pyplot

        from .quiet_axes import QuietAxes

        with look():
            figure = pyplot.figure(**figure_size(canvas, columns))
            ax = figure.add_axes((0, 0, 1, 1), axes_class=QuietAxes)
    draw_grid(ax, canvas, images, titles, columns, gap)
    height, width = images.shape[-2:]
    draw_frames(
        ax,
        [
            (
                index % columns * (width + gap) - 0.5,
                _top(index // columns, height, gap, titles),
                width,
                height,
            )
            for index, (image, framed) in enumerate(zip(images, pale(images), strict=True))
            if framed and float(image.min()) < 1
        ],
    )
    return ax


def draw_grid(
    ax: "Axes", canvas: Tensor, images: Tensor, titles: Sequence[str], columns: int, gap: int
) -> None:
    """Draws a montage with its titles, pixel by pixel; see `titled_montage`."""
    ax.imshow(canvas.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    height, width = images.shape[-2:]
    from .fitted_text import FittedText

    for index, title in enumerate(titles):
        x = index % columns * (width + gap) + width / 2 - 0.5
        y = index // columns * (height + gap) + gap - 0.02 * width - 0.5
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": "small", "color": "black"}
        ax.add_artist(FittedText(x, y, title, width + 0.8 * gap, gap, **look))


@checked
def side_by_side(
    groups: Mapping[str, Sequence[Tensor]],
    titles: Sequence[str],
    columns: int = 1,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes that compare pictures: for each title a row of groups, such as a picture and its examples.

    Every group is a square, however many pictures are in it; one alone fills it. A picture whose edge is near
    white has a thin grey frame.

    Args:
        groups: Under each heading a batch (N, 1 or 3, H, W) in [0, 1] for every title.
        titles: What to write before each row.
        columns: Rows that stand beside each other.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: A batch holds no pictures.
        ArgumentError: There are no groups, or one has another number of batches than there are titles.

    Example:
        >>> groups = {"picture": [torch.rand(1, 3, 8, 8)], "examples": [torch.rand(9, 3, 20, 20)]}
        >>> axes = side_by_side(groups, ["conv1:4"])
        >>> [text.get_text() for text in axes.texts]
        ['picture', 'examples', 'conv1:4']
    """
    check_counts(1, columns=columns)
    if not groups or not titles or any(len(group) != len(titles) for group in groups.values()):
        counts = {name: len(group) for name, group in groups.items()}
        raise ArgumentError(f"expected groups of {counted(len(titles), 'batch')}, one a title, got {counts}")
    squares = [_square(group[row]) for row in range(len(titles)) for group in groups.values()]
    columns = min(columns, len(titles))
    rows, width, step = -(-len(titles) // columns), len(groups), _SQUARE + _SPACE
    canvas = torch.ones(3, rows * step, columns * (width * step + 2 * _SPACE))
    frames = []
    for index, (square, boxes) in enumerate(squares):
        row, place = divmod(index, width)
        y, x = row // columns * step + _SPACE // 2, _left(row % columns, place, width)
        canvas[:, y : y + _SQUARE, x : x + _SQUARE] = square
        frames += [(x + left - 0.5, y + top - 0.5, wide, high) for left, top, wide, high in boxes]
    if ax is None:
        from matplotlib import pyplot

        from .quiet_axes import QuietAxes

        inches = (canvas.shape[2] / 130, canvas.shape[1] / 130 + 0.25)
        with look():
            figure = pyplot.figure(figsize=inches, dpi=130, layout="constrained")
            ax = figure.add_subplot(axes_class=QuietAxes)
    ax.imshow(canvas.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    draw_frames(ax, frames)
    from .fitted_text import FittedText

    letters: dict[str, Any] = {"fontsize": "small", "color": "black"}
    for column in range(columns):
        for place, heading in enumerate(groups):
            middle = _left(column, place, width) + _SQUARE / 2
            above = {**letters, "ha": "center", "va": "bottom"}
            ax.add_artist(FittedText(middle, -2, heading, _SQUARE, lines=2, **above))
    for row, title in enumerate(titles):
        left, middle = _left(row % columns, 0, width) - 4, (row // columns + 0.5) * step
        before = {**letters, "ha": "right", "va": "center", "rotation": "vertical"}
        ax.add_artist(FittedText(left, middle, title, tall=_SQUARE, **before))
    return ax


def show() -> None:
    """Shows the open pyplot figures where there is a display, and does nothing where there is none.

    Example:
        >>> show()  # a window, where figures are shown in windows
    """
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a backend without a display says so
        pyplot.show()


def titled_montage(images: Tensor, titles: Sequence[str], columns: int | None) -> tuple[Tensor, int, int]:
    """Returns a montage with room above each picture if there are titles, its columns and the gap between.

    Raises:
        ShapeError: The pictures are not (N, 1, 3 or 4, H, W).
        ArgumentError: There are more titles than pictures.
    """
    usual = columns_of(images)
    check_counts(1, columns=columns)
    columns = columns or usual
    if len(titles) > len(images):
        raise ArgumentError(f"{counted(len(titles), 'title')} for {counted(len(images), 'picture')}")
    if not any(titles):
        return montage(images, columns), columns, GAP
    gap = ceil(0.16 * images.shape[3])
    return F.pad(montage(images, columns, gap), (0, 0, gap, 0), value=1.0), columns, gap


def _top(row: int, height: int, gap: int, titles: Sequence[str]) -> float:
    """The upper edge of the pictures of a row, below their titles if there are any."""
    return row * (height + gap) + (gap if any(titles) else 0) - 0.5


def _square(images: Tensor) -> tuple[Tensor, list[tuple[int, int, int, int]]]:
    """The pictures of a batch as one square (3, H, W), and left, top, width and height of the pale ones."""
    columns_of(images)
    columns = ceil(len(images) ** 0.5)
    scale = _SQUARE // columns - 2 if columns > 1 else _SQUARE
    size = [scale * side // max(images.shape[-2:]) for side in images.shape[-2:]]
    sized = F.interpolate(in_range(images), size, mode="bicubic", antialias=True).clamp(0, 1)
    whole = montage(sized, columns, gap=2)
    below, right = (_SQUARE - side for side in whole.shape[1:])
    (high, wide), x, y = size, right // 2, below // 2
    boxes = [
        (x + index % columns * (wide + 2), y + index // columns * (high + 2), wide, high)
        for index, framed in enumerate(pale(sized))
        if framed
    ]
    return F.pad(whole, (x, right - x, y, below - y), value=1.0), boxes


def _left(column: int, place: int, width: int) -> int:
    """Where a square begins, with room for a title before each column."""
    step = _SQUARE + _SPACE
    return column * (width * step + 2 * _SPACE) + 2 * _SPACE + place * step


def figure_size(canvas: Tensor, columns: int) -> dict[str, Any]:
    """Returns the size of a figure that shows a canvas in these columns without losing a pixel."""
    height, width = canvas.shape[1:]
    inches = max(2.0 * columns, 3.0)
    return {"figsize": (inches, inches * height / width), "dpi": max(120.0, width / inches)}
