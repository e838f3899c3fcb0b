"""Tokens as a picture: each in the colour of its contribution, line below line, as a text is read."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError
from .style import diverging_colors, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[str, Sequence[str], Tensor]  # what it is called, tokens, and their contributions (M,)

_COLUMNS = (20, 80)  # fewest and most letters in a line
_LEAST = 4  # letters that a contribution takes
_SIZES = (7.0, 9.0)  # points of letters on narrow axes and on wide ones
_FULL = 0.75  # strength of the strongest colour
_LETTER = 0.62  # width of a letter as a share of its size


@checked
def shade(share: float) -> tuple[int, int, int]:
    """Returns a colour of bytes: white for 0, orange up to 1, blue down to -1, light enough for letters.

    Args:
        share: Of the largest contribution, from -1 to 1.

    Example:
        >>> shade(0.0)
        (255, 255, 255)
    """
    if not abs(share) <= 1 + 1e-6:
        raise ArgumentError(f"a share is from -1 to 1, got {share}")
    color = diverging_colors(torch.tensor(share * _FULL))
    red, green, blue = (color * 255).round().int().tolist()
    return red, green, blue


@checked
def token_figure_size(rows: Sequence[Row]) -> tuple[float, float]:
    """Returns inches of a figure on which rows of tokens can be read.

    Example:
        >>> token_figure_size([("", ["the", "cat"] * 40, torch.rand(80))])[0] > 5
        True
    """
    lines = [line for row in rows for line in _lines(row[1], _COLUMNS[1])]
    columns = max(line[-1][1] for line in lines)
    return columns * _SIZES[1] * _LETTER / 72 + 0.5, 0.5 * len(lines) + 0.3 * len(rows) + 0.5


@checked
def draw_tokens(ax: "Axes", rows: Sequence[Row], largest: float | None = None) -> None:
    """Draws rows of tokens below each other, with contributions below the tokens.

    Args:
        ax: Where to draw.
        rows: For each its name, which stands above where it is not empty, its tokens and contributions.
        largest: The magnitude with the full colour, to compare the rows; by default each has a scale.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().add_subplot()
        >>> draw_tokens(ax, [("", ["the", "cat"], torch.tensor([0.1, 0.9]))])
        >>> [text.get_text() for text in ax.texts]
        ['the', '0.1', 'cat', '0.9']
    """
    ax.set_axis_off()  # what is not covered by tokens has the colour of the figure
    inches = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted()).width
    width = 72 * inches / _LETTER
    room = min(max(int(width / _SIZES[0]), _COLUMNS[0]), _COLUMNS[1])
    wrapped = [list(_lines(tokens, room)) for _, tokens, _ in rows]
    columns = max(line[-1][1] for lines in wrapped for line in lines)
    points = min(_SIZES[1], 0.95 * width / columns)
    y, letters = 0.0, ink(ax)
    for (name, tokens, values), lines in zip(rows, wrapped, strict=True):
        if name:
            ax.text(0, y + 0.4, name, fontsize=points, color=letters, va="center", parse_math=False)
            y += 0.8
        full = largest or float(values.abs().max()) or 1.0
        for line in lines:
            for place, end, index in line:
                _draw_cell(ax, (place, end, y), tokens[index], float(values[index]), full, points)
            y += 1.8
    ax.set_xlim(0, columns)
    ax.set_ylim(y, 0)


def _draw_cell(
    ax: "Axes", at: tuple[int, int, float], token: str, value: float, largest: float, points: float
) -> None:
    from matplotlib.patches import Rectangle

    place, end, y = at
    color = tuple(byte / 255 for byte in shade(value / largest))
    ax.add_patch(Rectangle((place, y), end - place - 0.3, 1, color=color))
    middle = (place + end - 0.3) / 2
    options: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False}
    letters: dict[str, Any] = {"fontsize": points, "family": "monospace", "color": "black"}
    ax.text(middle, y + 0.5, token.strip(), **letters, **options)
    ax.text(middle, y + 1.3, f"{value:.2g}", fontsize=0.7 * points, color=ink(ax), **options)


def _lines(tokens: Sequence[str], columns: int) -> Iterator[list[tuple[int, int, int]]]:
    """The tokens of each line: where they begin and end, in letters, and which they are."""
    line: list[tuple[int, int, int]] = []
    for index, token in enumerate(tokens):
        place, width = line[-1][1] if line else 0, max(len(token.strip()), _LEAST) + 1
        if line and place + width > columns:
            yield line
            line, place = [], 0
        line.append((place, place + width, index))
    yield line
