"""Arrays in, matplotlib axes out. All of it works without a display; only `show` opens a window."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import check_counts, checked
from ..core.errors import ArgumentError, ShapeError
from ..core.files import atomic_write
from .style import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pictures are drawn in memory: Pillow takes no notice when a full disk takes only a part of what it writes.
_GAP = 4
_OUTSIDE = 0.05  # how far numbers of a picture may leave [0, 1], such as by rounding or bicubic resizing
_CHECK = 8  # pixels of a field of the checkerboard
_SQUARE, _SPACE = 192, 10  # pixels of a group in a comparison, and between groups


@checked
def montage(images: Tensor, columns: int | None = None, gap: int = _GAP) -> Tensor:
    """Returns the pictures of a batch beside each other on white, as one picture (3, H, W) on the CPU.

    What is transparent shows a checkerboard.

    Args:
        images: (N, C, H, W) in [0, 1], with one channel, three, or four of which the last is alpha.
        columns: Pictures in a row; by default as many as make the whole about square, at most 8.
        gap: White pixels between pictures.

    Raises:
        ShapeError: The pictures are not (N, 1, 3 or 4, H, W), or there are none.

    Example:
        >>> montage(torch.zeros(4, 3, 10, 20), columns=2, gap=1).shape
        torch.Size([3, 21, 41])
    """
    usual = _columns(images)
    check_counts(1, columns=columns)
    columns = columns or usual
    images = _opaque(in_range(images)).expand(-1, 3, -1, -1)
    rows = -(-len(images) // columns)
    height, width = images.shape[2] + gap, images.shape[3] + gap
    canvas = torch.ones(3, rows * height - gap, columns * width - gap)
    for index, image in enumerate(images):
        y, x = index // columns * height, index % columns * width
        canvas[:, y : y + image.shape[1], x : x + image.shape[2]] = image
    return canvas


@checked
def image_grid(
    images: Tensor, titles: Sequence[str] = (), columns: int | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Returns axes that show a batch of pictures as a grid, with a title above each.

    Args:
        images: (N, C, H, W) in [0, 1], with one channel, three, or four of which the last is alpha.
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
    canvas, columns, gap = _canvas(images, titles, columns)
    if ax is None:
        from matplotlib import pyplot

        with look():
            ax = pyplot.figure(**_figure_size(canvas, columns)).add_axes((0, 0, 1, 1))
    ax.imshow(canvas.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    height, width = images.shape[-2:]
    for index, title in enumerate(titles):
        x = index % columns * (width + gap) + width / 2 - 0.5
        y = index // columns * (height + gap) + gap - 0.02 * width - 0.5
        ax.text(x, y, title, ha="center", va="bottom", fontsize="small", color="black")
    return ax


@checked
def side_by_side(
    groups: Mapping[str, Sequence[Tensor]],
    titles: Sequence[str],
    columns: int = 1,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes that compare pictures: for each title a row of groups, such as a picture and its examples.

    Every group is a square, however many pictures are in it; one alone fills it.

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
        raise ArgumentError(f"expected groups of {len(titles)} batches, one a title, got {counts}")
    squares = torch.stack([_square(group[row]) for row in range(len(titles)) for group in groups.values()])
    columns = min(columns, len(titles))
    rows, width, step = -(-len(titles) // columns), len(groups), _SQUARE + _SPACE
    canvas = torch.ones(3, rows * step, columns * (width * step + 2 * _SPACE))
    for index, square in enumerate(squares):
        row, place = divmod(index, width)
        y, x = row // columns * step + _SPACE // 2, _left(row % columns, place, width)
        canvas[:, y : y + _SQUARE, x : x + _SQUARE] = square
    if ax is None:
        from matplotlib import pyplot

        inches = (canvas.shape[2] / 130, canvas.shape[1] / 130 + 0.25)
        with look():
            ax = pyplot.figure(figsize=inches, dpi=130, layout="constrained").add_subplot()
    ax.imshow(canvas.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    letters: dict[str, Any] = {"fontsize": "small", "color": "black"}
    for column in range(columns):
        for place, heading in enumerate(groups):
            middle = _left(column, place, width) + _SQUARE / 2
            ax.text(middle, -2, heading, ha="center", va="bottom", **letters)
    for row, title in enumerate(titles):
        left, middle = _left(row % columns, 0, width) - 4, (row // columns + 0.5) * step
        ax.text(left, middle, title, ha="right", va="center", rotation="vertical", **letters)
    return ax


@checked
def save_grid(
    images: Tensor, path: str | Path, titles: Sequence[str] = (), columns: int | None = None
) -> None:
    """Writes a batch of pictures as a grid with a title above each, and its folder if need be.

    Args:
        images: (N, C, H, W) in [0, 1], with one channel, three, or four of which the last is alpha.
        path: File to write; its ending says the format.
        titles: What to write above the pictures, from the first on.
        columns: Pictures in a row.
    """
    from matplotlib.figure import Figure

    canvas, columns, _ = _canvas(images, titles, columns)
    with look():
        figure = Figure(**_figure_size(canvas, columns))
        image_grid(images, titles, columns, figure.add_axes((0, 0, 1, 1)))
        save_figure(figure, path)


@checked
def save_figure(figure: "Figure", path: str | Path) -> None:
    """Writes a figure, cropped to what it shows, and its folder if need be.

    The ending of the path says the format. The file is written whole or not at all.

    Raises:
        ArgumentError: There is no such format.
    """
    format = _format(path, figure.canvas.get_supported_filetypes())
    with atomic_write(path) as partial, BytesIO() as drawn:
        figure.savefig(drawn, format=format, bbox_inches="tight", pad_inches=0.05)
        partial.write_bytes(drawn.getvalue())


def show() -> None:
    """Shows the open pyplot figures where there is a display, and does nothing where there is none."""
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a backend without a display says so
        pyplot.show()


@checked
def save_pixels(image: Tensor, path: str | Path) -> None:
    """Writes one picture (1, 3 or 4, H, W) in [0, 1] pixel by pixel, and its folder if need be.

    A PNG keeps the alpha channel of a picture that has one.

    Raises:
        ArgumentError: The ending of the path is of no format.
    """
    keeps_alpha = len(image) == 4 and Path(path).suffix.lower() == ".png"
    picture = to_pil(in_range(image) if keeps_alpha else montage(image[None]))
    from PIL import Image

    format = Image.registered_extensions()[f".{_format(path, Image.registered_extensions())}"]
    with atomic_write(path) as partial, BytesIO() as drawn:
        picture.save(drawn, format=format)
        partial.write_bytes(drawn.getvalue())


@checked
def save_animation(frames: Sequence[Tensor], path: str | Path, seconds: float = 0.2) -> None:
    """Writes an endless animation (GIF) of batches of pictures, each batch a montage.

    Args:
        frames: Batches (N, C, H, W) in [0, 1].
        path: File to write; its folder is made if need be.
        seconds: How long a frame is shown; the last one is shown five times as long.

    Raises:
        ArgumentError: There are no frames.
    """
    if not frames:
        raise ArgumentError("an animation needs at least one frame")
    first, *rest = [to_pil(montage(frame)) for frame in frames]
    durations = [round(1000 * seconds)] * len(rest) + [round(5000 * seconds)]
    with atomic_write(path) as partial, BytesIO() as drawn:
        first.save(drawn, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
        partial.write_bytes(drawn.getvalue())


def _format(path: str | Path, known: Iterable[str]) -> str:
    """The format that the ending of a path names."""
    ending = Path(path).suffix.lower().removeprefix(".")
    names = sorted({name.removeprefix(".") for name in known})
    if ending not in names:
        raise ArgumentError(f"cannot write {path}: its ending should be one of {', '.join(names)}")
    return ending


def in_range(images: Tensor) -> Tensor:
    """Returns pictures on the CPU, with what is outside [0, 1] cut off, and warns of more than rounding.

    Example:
        >>> in_range(torch.tensor([-0.01, 0.5]))
        tensor([0.0000, 0.5000])
    """
    images = images.detach().float().cpu()
    if images.numel():
        low, high = float(images.min()), float(images.max())
        if low < -_OUTSIDE or high > 1 + _OUTSIDE:
            warnings.warn(
                f"pictures have values in [0, 1], got {low:.3g} to {high:.3g}: what is outside is cut off. "
                "Give the pictures before normalization",
                stacklevel=3,
            )
    return images.clamp(0, 1)


@checked
def check_overlay(maps: Sequence[int], pictures: Sequence[int]) -> None:
    """Checks that maps (height, width) can lie over pictures (height, width) without being stretched.

    A map of a layer may be a pixel smaller or larger than the proportions of the picture say.

    Raises:
        ShapeError: The proportions differ.

    Example:
        >>> check_overlay((7, 7), (224, 224))
        >>> check_overlay((7, 7), (224, 448))
        Traceback (most recent call last):
        ...
        toumei.core.errors.ShapeError: maps of 7 x 7 do not have the proportions of pictures of 224 x 448...
    """
    for size in (maps, pictures):
        if len(size) != 2 or min(size) < 1:
            raise ShapeError(f"expected a height and a width from 1 on, got {tuple(size)}")
    (height, width), (tall, wide) = maps, pictures
    least, most = tall / (height + 1), tall / max(height - 1, 0.5)
    if not (wide / (width + 1) <= most and least <= wide / max(width - 1, 0.5)):
        raise ShapeError(
            f"maps of {height} x {width} do not have the proportions of pictures of {tall} x {wide}: "
            "give the pictures as the network saw them, resized and cropped"
        )


def _canvas(images: Tensor, titles: Sequence[str], columns: int | None) -> tuple[Tensor, int, int]:
    """A montage with room above each picture if there are titles, its columns and the gap between them."""
    usual = _columns(images)
    check_counts(1, columns=columns)
    columns = columns or usual
    if len(titles) > len(images):
        raise ArgumentError(f"{len(titles)} titles for {len(images)} pictures")
    if not any(titles):
        return montage(images, columns), columns, _GAP
    gap = ceil(0.16 * images.shape[3])
    return F.pad(montage(images, columns, gap), (0, 0, gap, 0), value=1.0), columns, gap


def _square(images: Tensor) -> Tensor:
    """The pictures of a batch as one square picture (3, H, W)."""
    _columns(images)
    columns = ceil(len(images) ** 0.5)
    scale = _SQUARE // columns - 2 if columns > 1 else _SQUARE
    size = [scale * side // max(images.shape[-2:]) for side in images.shape[-2:]]
    sized = F.interpolate(images.detach().float().cpu(), size, mode="bicubic", antialias=True).clamp(0, 1)
    whole = montage(sized, columns, gap=2)
    below, right = (_SQUARE - side for side in whole.shape[1:])
    return F.pad(whole, (right // 2, right - right // 2, below // 2, below - below // 2), value=1.0)


def _left(column: int, place: int, width: int) -> int:
    """Where a square begins, with room for a title before each column."""
    step = _SQUARE + _SPACE
    return column * (width * step + 2 * _SPACE) + 2 * _SPACE + place * step


def _opaque(images: Tensor) -> Tensor:
    """Pictures with an alpha channel before a checkerboard, others as they are."""
    if images.shape[1] != 4:
        return images
    y, x = (torch.arange(pixels) // _CHECK for pixels in images.shape[2:])
    board = 1 - 0.2 * ((y[:, None] + x[None, :]) % 2)
    return torch.lerp(board, images[:, :3], images[:, 3:])


def _columns(images: Tensor) -> int:
    """How many pictures of a batch stand in a row, once it is clear that it is a batch of pictures."""
    if images.dim() != 4 or images.shape[1] not in (1, 3, 4) or len(images) == 0:
        raise ShapeError(f"expected pictures (N, 1, 3 or 4, H, W), got {tuple(images.shape)}")
    if not images.numel():
        raise ShapeError(f"the pictures have no pixels: {tuple(images.shape)}")
    count, _, height, width = images.shape
    return int(min(count, 8, max(1, round((count * height / width) ** 0.5 + 0.49))))


def _figure_size(canvas: Tensor, columns: int) -> dict[str, Any]:
    """The size of a figure that shows a canvas in these columns without losing a pixel."""
    height, width = canvas.shape[1:]
    inches = max(2.0 * columns, 3.0)
    return {"figsize": (inches, inches * height / width), "dpi": max(120.0, width / inches)}


@checked
def to_pil(image: Tensor) -> Any:
    """Returns one picture (3 or 4, H, W) in [0, 1] as a PIL image."""
    from PIL import Image

    if image.dim() != 3 or image.shape[0] not in (3, 4) or not image.numel() or image.is_complex():
        raise ShapeError(f"expected a picture (3 or 4, H, W), got {tuple(image.shape)} of {image.dtype}")
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
