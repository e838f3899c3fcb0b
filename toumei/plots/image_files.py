"""Pictures and figures in files, which are written whole or not at all.

They are drawn in memory: Pillow takes no notice when a full disk takes only a part of what it writes.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.files import atomic_write
from .images import draw_grid, figure_size, titled_montage
from .pixels import in_range, montage, to_pil
from .style import look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked
def save_grid(
    images: Tensor, path: str | Path, titles: Sequence[str] = (), columns: int | None = None
) -> None:
    """Writes a batch of pictures as a grid with a title above each, and its folder if need be.

    Args:
        images: (N, C, H, W) in [0, 1], with one channel, three, or four; the fourth is alpha.
        path: File to write; its ending says the format.
        titles: What to write above the pictures, from the first on.
        columns: Pictures in a row.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_grid(torch.rand(2, 3, 8, 8), f"{folder}/grid.png", ["first", "second"])
        ...     (Path(folder) / "grid.png").exists()
        True
    """
    from matplotlib.figure import Figure

    canvas, columns, gap = titled_montage(images, titles, columns)
    with look():
        figure = Figure(**figure_size(canvas, columns))
        draw_grid(figure.add_axes((0, 0, 1, 1)), canvas, images, titles, columns, gap)
        save_figure(figure, path)


@checked
def save_figure(figure: "Figure", path: str | Path) -> None:
    """Writes a figure, cropped to what it shows, and its folder if need be.

    The ending of the path says the format. The file is written whole or not at all.

    Raises:
        ArgumentError: There is no such format.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_figure(Figure(), f"{folder}/new/figure.png")
        ...     (Path(folder) / "new" / "figure.png").exists()
        True
    """
    format = _format(path, figure.canvas.get_supported_filetypes())
    with atomic_write(path) as partial, BytesIO() as drawn:
        figure.savefig(drawn, format=format, bbox_inches="tight", pad_inches=0.05)
        partial.write_bytes(drawn.getvalue())


@checked
def save_pixels(image: Tensor, path: str | Path) -> None:
    """Writes one picture (1, 3 or 4, H, W) in [0, 1] pixel by pixel, and its folder if need be.

    A PNG keeps the alpha channel of a picture that has one.

    Args:
        image: The picture.
        path: The file.

    Raises:
        ArgumentError: The ending of the path is of no format.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_pixels(torch.rand(3, 8, 8), f"{folder}/image.png")
        ...     (Path(folder) / "image.png").exists()
        True
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

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_animation([torch.rand(1, 3, 8, 8) for _ in range(3)], f"{folder}/steps.gif")
        ...     (Path(folder) / "steps.gif").exists()
        True
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
