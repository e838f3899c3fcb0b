"""One look for all figures: colours that colour-blind people can tell apart, and sizes of letters.

Colours are those of Okabe and Ito. Signed numbers are drawn on one diverging map whose middle, zero, is
white; amounts on sequential maps that begin at white.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.kinds import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY, YELLOW, BLACK, GRAY = "#56B4E9", "#F0E442", "#000000", "#999999"
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, YELLOW)
"""For lines, bars and groups, in this order."""

POSITIVE, NEGATIVE = RED, BLUE
TITLE, LABEL = "medium", "small"
"""Sizes of letters."""

_LOOK: dict[str, Any] = {
    "axes.titlesize": TITLE,
    "axes.labelsize": LABEL,
    "xtick.labelsize": LABEL,
    "ytick.labelsize": LABEL,
    "legend.fontsize": LABEL,
    "legend.title_fontsize": LABEL,
    "figure.titlesize": TITLE,
    "image.interpolation": "nearest",
}


@contextmanager
def look() -> Iterator[None]:
    """While it is active, or in a function that it decorates, figures are made in the library's look.

    Of the user's settings only the resolution stays. Afterwards all are the user's again.

    Example:
        >>> from matplotlib import rcParams
        >>> with look():
        ...     rcParams["axes.labelsize"]
        'small'
    """
    from matplotlib import rcParams, style

    kept = {name: rcParams[name] for name in ("figure.dpi", "savefig.dpi")}
    interactive = rcParams["interactive"]
    try:
        with style.context(
            ["default", {**_LOOK, **kept, "axes.prop_cycle": f"cycler(color={list(COLORS)})"}]
        ):
            try:
                yield
            finally:
                interactive = rcParams["interactive"]
    finally:
        # A notebook turns this on while it makes its first figure. Without it no later figure is shown.
        rcParams["interactive"] = interactive


def look_of(ax: "Axes | None") -> AbstractContextManager[None]:
    """Returns the library's look for a new figure, and the user's for axes that the user gave."""
    return look() if ax is None else nullcontext()


@contextmanager
def drawing(ax: "Axes | None", width: float = 6.0, height: float = 4.0) -> Iterator["Axes"]:
    """Gives the axes to draw on: those that the user gave, or new ones in the library's look.

    Args:
        ax: Axes, whose figure and settings stay the user's; None for a new figure.
        width: Inches of a new figure.
        height: Inches of a new figure.

    Example:
        >>> with drawing(None, 5, 3) as ax:
        ...     line = ax.plot([1, 2])
        >>> ax.figure.get_size_inches().tolist()
        [5.0, 3.0]
    """
    if ax is not None:
        yield ax
        return
    from matplotlib import pyplot

    from .quiet_axes import QuietAxes
    from .shown_once import ShownOnce

    with look():
        figure = pyplot.figure(figsize=(width, height), layout="constrained", FigureClass=ShownOnce)
        ax = figure.add_subplot(axes_class=QuietAxes)
        # ticks are made later, when the settings are the user's again
        ax.tick_params(labelsize=LABEL, color="black", labelcolor="black")
        yield ax


@checked
def palette(count: int, on_dark: bool = False) -> Sequence[str]:
    """Returns colours (hexadecimal) for groups: those of `COLORS` while they suffice, else even hues.

    Args:
        count: How many.
        on_dark: Whether they stand on black, so that black is left out.

    Example:
        >>> palette(2)
        ('#0072B2', '#E69F00')
    """
    colors = tuple(color for color in COLORS if color != BLACK) if on_dark else COLORS
    if count <= len(colors):
        return colors[:count]
    from seaborn import husl_palette

    return tuple(husl_palette(count).as_hex())


@cache
def diverging_map(
    positive: Sequence[str] = (POSITIVE,),
    negative: Sequence[str] = (NEGATIVE,),
    span: tuple[float, float] = (-1.0, 1.0),
) -> "Colormap":
    """Returns the colour map of signed numbers: by default orange above zero, blue below, white at zero.

    Numbers of the same size have the same strength of colour on both sides of zero.

    Args:
        positive: The colours that follow white, at even distances up to the largest number.
        negative: The same for negative numbers, as many.
        span: The smallest and the largest number that are drawn; by default both sides are drawn whole.

    Example:
        >>> [float(part) for part in diverging_map()(0.5)]  # the middle is white
        [1.0, 1.0, 1.0, 1.0]
    """
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    # an odd number of colours has one in the middle
    whole = LinearSegmentedColormap.from_list("diverging", [*negative[::-1], "white", *positive], N=257)
    largest = max(map(abs, span)) or 1.0
    return ListedColormap(whole(torch.linspace(*span, 257).numpy() / largest / 2 + 0.5), "diverging")


def check_colors(**colors: str | None) -> None:
    """Raises an error for the first colour that matplotlib does not know; None is none given.

    Raises:
        ArgumentError: It is no colour.

    Example:
        >>> check_colors(color="tab:blue", edge=None)
    """
    from matplotlib.colors import is_color_like

    for name, color in colors.items():
        if color is not None and not is_color_like(color):
            raise ArgumentError(f"{name} is a colour, such as 'tab:blue' or '#0072B2', got {shown(color)}")


def darker(color: str) -> str:
    """Returns a colour with half of its light, as hexadecimal digits.

    Raises:
        ArgumentError: It is no colour.

    Example:
        >>> darker("#FF8000")
        '#804000'
    """
    from matplotlib.colors import to_hex, to_rgb

    check_colors(color=color)
    red, green, blue = to_rgb(color)
    return to_hex((red / 2, green / 2, blue / 2))


def ink(ax: "Axes") -> str:
    """Returns the colour of letters that can be read on axes: black, or white where they are dark."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(ax.get_facecolor() if ax.axison else ax.figure.get_facecolor())
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def sequential_map(color: str) -> "Colormap":
    """Returns a colour map of amounts: from white, for nothing, through a colour to a darker one.

    Args:
        color: The colour in the middle, such as `GREEN`.
    """
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(f"white-{color}", ["white", color, darker(color)])


def diverging_colors(values: Tensor, limit: float = 1.0) -> Tensor:
    """Returns the colours of signed numbers, (..., 3) in [0, 1]: white at zero.

    Args:
        values: The numbers.
        limit: The number of the strongest orange; its negative is the strongest blue.

    Example:
        >>> diverging_colors(torch.tensor([0.0]))
        tensor([[1., 1., 1.]])
    """
    shares = (values.detach().float().cpu() / limit / 2 + 0.5).clamp(0, 1)
    return torch.tensor(diverging_map()(shares.numpy()), dtype=torch.float32)[..., :3]


def color_bar(
    axes: Any, label: str, limits: tuple[float, float] = (-1.0, 1.0), cmap: "Colormap | None" = None
) -> "Colorbar":
    """Returns a colour bar beside axes that are pictures of numbers.

    Args:
        axes: One or several axes of a figure.
        label: What the colours mean.
        limits: The numbers of the first and the last colour.
        cmap: The colours; by default those of `diverging_map`.

    Example:
        >>> from matplotlib.figure import Figure
        >>> bar = color_bar(Figure().add_subplot(), "contribution")
        >>> bar.ax.get_ylabel(), float(bar.vmin), float(bar.vmax)
        ('contribution', -1.0, 1.0)
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = (axes if not hasattr(axes, "flat") else axes.flat[0]).figure
    colors = ScalarMappable(Normalize(*limits), cmap or diverging_map())
    bar: Colorbar = figure.colorbar(colors, ax=axes, shrink=0.7, aspect=30, label=label)
    if limits == (-1.0, 1.0):
        bar.set_ticks([-1, 0, 1])
    return bar
