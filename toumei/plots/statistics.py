"""Heat maps, drawn by matplotlib, and distributions, drawn by seaborn."""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError, ShapeError
from ..core.summaries import counted, shortened
from . import style as look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEADROOM = 1.5  # of an axis, for the legend above all that is drawn
_MOST_COLUMN_LABELS = 12
_LEAST_INCHES = 0.08  # of a cell that has a label: labels of smaller ones lie on top of each other


@checked
def heat_map(
    values: Tensor,
    rows: Sequence[str],
    ax: "Axes",
    *,
    label: str,
    color: str = look.POSITIVE,
    below: tuple[str, str] = (look.GRAY, look.BLACK),
    middle: float = 0.0,
    columns: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> "Axes":
    """Returns axes with a matrix as a heat map: the first row on top, columns numbered from 0, a colour bar.

    Numbers above the middle have a colour, numbers below it by default are gray, and the middle is white.
    The same distance from the middle has the same strength on both sides.

    Args:
        values: (rows, columns); a cell that is NaN stays empty.
        rows: What to write beside each row: of long texts the ends, of many rows every second, third, ...
        ax: Where to draw.
        label: What the numbers are, written beside the colour bar.
        color: The colour of numbers above the middle; the largest are darker.
        below: The colours of numbers below the middle, for half of the largest and for the largest.
        middle: The number that is white, such as that of no effect.
        columns: What to write below each column; by default numbers from 0.
        limits: The smallest and the largest number of the colours, to compare several matrices; by default
            those of the values and the middle.

    Raises:
        ShapeError: The values are no matrix with as many rows as there are labels.
        ArgumentError: What is no colour.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = heat_map(torch.rand(2, 3), ["first", "last"], Figure().add_subplot(), label="effect")
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['first', 'last']
    """
    if values.dim() != 2 or len(values) != len(rows):
        raise ShapeError(
            f"expected a matrix with {counted(len(rows), 'labelled row')}, got {tuple(values.shape)}"
        )
    if columns is not None and values.shape[1] != len(columns):
        raise ShapeError(f"expected {counted(len(columns), 'labelled column')}, got {tuple(values.shape)}")
    look.check_colors(color=color, half=below[0], largest=below[1])
    numbers = values.detach().float().cpu()
    low, high = limits or color_limits(numbers, middle)
    colors = look.diverging_map((color, look.darker(color)), below, (low - middle, high - middle))
    shown = ax.get_window_extent()
    # seaborn's heatmap draws the whole figure to see whether labels overlap: as long as saving it takes
    mesh = ax.pcolormesh(numbers.numpy(), cmap=colors, vmin=low, vmax=high)
    ax.figure.colorbar(mesh, ax=ax, label=label).outline.set_linewidth(0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(0, values.shape[1]), ylim=(len(rows), 0), xlabel="", ylabel="")
    ax.set_yticks(*_ticks(rows, shown.height / ax.figure.dpi))
    if columns is None:
        numbered = range(0, values.shape[1], max(1, ceil(values.shape[1] / _MOST_COLUMN_LABELS)))
        ax.set_xticks([column + 0.5 for column in numbered], list(map(str, numbered)))
    else:
        ax.set_xticks(*_ticks(columns, shown.width / ax.figure.dpi))
    ax.tick_params("x", rotation=0)
    ax.tick_params("y", rotation=0)
    return ax


def _ticks(labels: Sequence[str], inches: float) -> tuple[list[float], list[str]]:
    """Returns places and short labels of as many cells as there is room for along an axis."""
    step = max(1, ceil(len(labels) * _LEAST_INCHES / inches))
    return [cell + 0.5 for cell in range(0, len(labels), step)], [shortened(text) for text in labels[::step]]


@checked
def color_limits(values: Tensor | Iterable[Tensor], middle: float = 0.0) -> tuple[float, float]:
    """Returns the smallest and the largest number of one matrix or of several that are compared.

    The middle lies between them; numbers that are all the same get some room above it.

    Args:
        values: The numbers; those that are not finite do not count.
        middle: The number that is white.

    Example:
        >>> color_limits([torch.tensor([0.5]), torch.tensor([0.25, 1.0])])
        (0.0, 1.0)
    """
    panels = [values] if isinstance(values, Tensor) else list(values)
    if any(panel.is_complex() for panel in panels):
        raise ArgumentError("colours are those of real numbers, got complex ones")
    finite = [panel[panel.isfinite()] for panel in panels]
    ends = [float(end) for panel in finite if panel.numel() for end in panel.aminmax()]
    low, high = min([middle, *ends]), max([middle, *ends])
    return low, high if high > low else low + 1e-6


@checked
def distribution(
    samples: Tensor, value: float, ax: "Axes", *, names: tuple[str, str] = ("samples", "value")
) -> "Axes":
    """Returns axes with a histogram of samples, the interval that holds 95 % of them, and a value as a line.

    The interval goes from the 2.5 to the 97.5 % quantile. Small strokes on the axis are single samples.

    Args:
        samples: (samples,).
        value: What is compared with them.
        ax: Where to draw.
        names: What the samples and the value are called in the legend.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = distribution(torch.linspace(0, 1, 41), 1.5, Figure().add_subplot())
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['95 % of samples', 'value', 'samples']
    """
    from seaborn import histplot, rugplot

    if samples.dim() != 1 or not len(samples):
        raise ShapeError(f"expected samples (samples,), got {tuple(samples.shape)}")
    numbers = samples.detach().double().cpu()
    low, high = numbers.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    bins = min(20, len(numbers))
    histplot(x=numbers.numpy(), bins=bins, color="0.7", edgecolor="white", label=names[0], ax=ax)
    rugplot(x=numbers.numpy(), color="0.4", ax=ax)
    ax.set_ylim(top=_HEADROOM * ax.get_ylim()[1])
    words, drawn = f"95 % of {names[0]}", 1 / _HEADROOM
    ax.axvspan(low, high, ymax=drawn, color="0.5", alpha=0.15, linewidth=0, zorder=0, label=words)
    ax.axvline(value, ymax=drawn, color=look.RED, label=names[1])
    ax.legend(loc="upper center", ncols=2, columnspacing=1, handlelength=1.3)
    return ax
