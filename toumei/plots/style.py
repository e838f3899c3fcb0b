"""One look for all figures: colours that colour-blind people can tell apart, and sizes of letters.

Colours are those of Okabe and Ito. Contributions and weights are drawn on one diverging map whose middle,
zero, is white; amounts on sequential maps that begin at white.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY, YELLOW, BLACK, GRAY = "#56B4E9", "#F0E442", "#000000", "#999999"
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, YELLOW)
"""For lines, bars and groups, in this order."""

POSITIVE, NEGATIVE = RED, BLUE
TITLE, LABEL, NOTE = "medium", "small", "x-small"
"""Sizes of letters."""


def diverging_map() -> "Colormap":
    """Returns the colour map of signed numbers: red above zero, blue below, white at zero.

    Its limits are those of `symmetric_limits`.
    """
    from matplotlib.colors import LinearSegmentedColormap

    # an odd number of colours has one in the middle
    return LinearSegmentedColormap.from_list("blue-white-red", [NEGATIVE, "white", POSITIVE], N=257)


def sequential_map(color: str) -> "Colormap":
    """Returns a colour map of amounts: from white, for nothing, through a colour to a darker one.

    Args:
        color: The colour in the middle, such as `GREEN`.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    red, green, blue = to_rgb(color)
    dark = (0.45 * red, 0.45 * green, 0.45 * blue)
    return LinearSegmentedColormap.from_list(f"white-{color}", [(1.0, 1.0, 1.0), (red, green, blue), dark])


def symmetric_limits(values: Tensor | Iterable[Tensor]) -> tuple[float, float]:
    """Returns limits of a diverging colour map that put zero in its middle, the same for all panels.

    Args:
        values: The numbers that are shown, of one panel or of several that are compared.

    Example:
        >>> symmetric_limits([torch.tensor([0.5, -2.0]), torch.tensor([1.0])])
        (-2.0, 2.0)
    """
    panels = [values] if isinstance(values, Tensor) else list(values)
    finite = [panel[panel.isfinite()].abs() for panel in panels]
    largest = max((float(panel.max()) for panel in finite if panel.numel()), default=0.0) or 1.0
    return -largest, largest


def diverging_colors(values: Tensor, limit: float = 1.0) -> Tensor:
    """Returns the colours of signed numbers, (..., 3) in [0, 1]: white at zero.

    Args:
        values: The numbers.
        limit: The number of the strongest red; its negative is the strongest blue.

    Example:
        >>> diverging_colors(torch.tensor([0.0]))
        tensor([[1., 1., 1.]])
    """
    shares = (values.detach().float().cpu() / limit / 2 + 0.5).clamp(0, 1)
    return torch.from_numpy(diverging_map()(shares.numpy())[..., :3]).float()
