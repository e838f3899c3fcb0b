"""Weight matrices side by side as one picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ...plots import style
from ...plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Borders = tuple[Sequence[float], Sequence[float]]  # between rows and between columns, as shares of the length


def draw_matrices(
    matrices: Sequence[Tensor],
    names: Sequence[str],
    borders: Sequence[Borders] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with matrices of weights that are not negative, each with its largest weight in its title.

    Args:
        matrices: The weights (target units, source units).
        names: What to write above each.
        borders: Lines between the clusters of each matrix; by default none.
        ax: Where to draw; a new figure by default.
    """
    borders = [((), ())] * len(matrices) if borders is None else borders
    with drawing(ax, max(2.2 * len(matrices), 3) + 0.8, 2.8) as ax:
        for index, (matrix, name, lines) in enumerate(zip(matrices, names, borders, strict=True)):
            _draw_matrix(ax, 1.1 * index, matrix.detach().float().cpu(), name)
            _draw_borders(ax, 1.1 * index, lines)
        ax.set_xlim(-0.05, 1.1 * len(matrices) - 0.05)
        ax.set_ylim(1.1, -0.25)
        ax.set_axis_off()
        style.color_bar(ax, "weight, 1: largest of the matrix", (0.0, 1.0), style.sequential_map(style.BLUE))
    return ax


def _draw_matrix(ax: "Axes", left: float, matrix: Tensor, name: str) -> None:
    """A matrix of weights in the square whose left edge is given, and its title."""
    largest = float(matrix.max())
    colors = style.sequential_map(style.BLUE)
    extent = (left, left + 1, 1, 0)
    ax.imshow(matrix.numpy(), cmap=colors, vmin=0, vmax=largest or 1, extent=extent, aspect="auto")
    title = f"{name}\nlargest {largest:.2g}"
    ax.text(left + 0.5, -0.03, title, ha="center", va="bottom", fontsize="x-small", color="black")


def _draw_borders(ax: "Axes", left: float, lines: Borders) -> None:
    """Lines between the clusters of the sorted rows and columns of a matrix, and a frame."""
    rows, columns = lines
    ax.vlines([left + border for border in (0, *columns, 1)], 0, 1, style.GRAY, lw=0.5)
    ax.hlines([0, *rows, 1], left, left + 1, style.GRAY, lw=0.5)
