"""Pictures beside their contributions, by one method or several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError, ShapeError
from ..core.summaries import counted
from ..plots import style
from ..plots.pixels import OUTSIDE, check_overlay, columns_of
from ..plots.style import color_bar, drawing
from .base.contributions import Contributions
from .base.inputs import parts_of
from .plots import draw_map, heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Part = Literal["original", "map", "blend"]
Sign = Literal["both", "positive", "negative", "absolute"]


@checked
def overlay(
    results: Sequence[Contributions],
    images: Tensor,
    *,
    show: Sequence[Part] = ("original", "blend"),
    sign: Sign = "both",
    percentile: float = 99.0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with a row for each picture: the picture, and the maps of one method or several.

    Beside each row stand the class and its score; above each column the method.

    Args:
        results: Attributions of the same pictures, each to one target.
        images: The pictures (N, 1 or 3, H, W) in [0, 1], before normalization.
        show: ``"original"`` the picture, ``"map"`` the contributions alone, ``"blend"`` the contributions
            over the picture in gray.
        sign: Which contributions are shown: ``"both"``, those that speak for the class (``"positive"``),
            those against it (``"negative"``), or magnitudes (``"absolute"``).
        percentile: Of the magnitudes of a map, what has the full colour; larger ones are clipped.
        ax: Where to draw; a new figure by default.

    Raises:
        ArgumentError: No attribution, one to several targets, or nothing to show.
        ShapeError: Attributions of no pictures, pictures that are not as many, not in [0, 1], or that have
            other proportions than the maps.

    Example:
        >>> import torch
        >>> from toumei.attribution import Saliency
        >>> from toumei.models import ShapesCNN
        >>> images = torch.rand(2, 3, 32, 32)
        >>> axes = overlay([Saliency(ShapesCNN())(images, "ring")], images, sign="absolute")
        >>> [text.get_text() for text in axes.texts][2:]
        ['original', 'Saliency']
    """
    if not results or not show:
        raise ArgumentError("there is nothing to show: give attributions, and one of original, map, blend")
    if not 0 < percentile <= 100:
        raise ArgumentError(f"a percentile lies above 0 and up to 100, got {percentile}")
    maps = [heat_map(_maps_of(result, images), percentile, sign) for result in results]
    parts = [(part, number) for number in range(len(results)) for part in show if part != "original"]
    columns: list[tuple[Part, int]] = [("original", 0)] if "original" in show else []
    columns = [*columns, *parts]
    labels = [_label(results, row) for row in range(len(images))]
    height, width = images.shape[-2:]
    gap = width / 16
    right, bottom = len(columns) * (width + gap) - gap, len(images) * (height + gap) - gap
    with drawing(ax, 1.9 * right / width + 2.2, 1.9 * bottom / width + 0.5) as ax:
        for row in range(len(images)):
            top = row * (height + gap)
            for column, (part, number) in enumerate(columns):
                left = column * (width + gap)
                extent = (left, left + width, top + height, top)
                heat = None if part == "original" else maps[number][row]
                draw_map(ax, heat, None if part == "map" else images[row], extent)
            _write(ax, labels[row], -gap, top + height / 2, tall=height + gap / 2, ha="right", va="center")
        for column, (part, number) in enumerate(columns):
            text = part if part == "original" else results[number].method
            text += ", map" if part == "map" and "blend" in show else ""
            middle = column * (width + gap) + width / 2
            _write(ax, text, middle, -gap / 2, wide=width + gap / 2, lines=2, ha="center", va="bottom")
        ax.set_xlim(0, right)
        ax.set_ylim(bottom, 0)
        ax.set_axis_off()
        if parts:
            _bar(ax, sign, percentile)
        # a colour bar moves pictures to the right, where the layout does not see how far classes reach left
        ax.set_anchor("W")
    return ax


def _maps_of(result: Contributions, images: Tensor) -> Tensor:
    """The contributions (N, C, H, W) that are drawn over pictures."""
    if result.several:
        raise ArgumentError("this attribution is for several targets: give attribution[i], that for one")
    columns_of(images)
    maps = [part for part in parts_of(result.values) if part.dim() == 4]
    if len(maps) != 1:
        shapes = [tuple(part.shape) for part in parts_of(result.values)]
        raise ShapeError(f"expected contributions of pictures (N, C, H, W), got {shapes}")
    if len(maps[0]) != len(images):
        raise ShapeError(f"{counted(len(images), 'picture')} for contributions of {len(maps[0])}")
    low, high = float(images.min()), float(images.max())
    if low < -OUTSIDE or high > 1 + OUTSIDE:
        raise ShapeError(
            f"pictures have values in [0, 1], got {low:.3g} to {high:.3g}: give them before normalization, "
            f"those of bytes divided by 255"
        )
    check_overlay(maps[0].shape[-2:], images.shape[-2:])
    return maps[0]


def _label(results: Sequence[Contributions], row: int) -> str:
    """The name of a picture, its class and its score, as far as all attributions agree."""
    first = results[0]
    names = {_class_of(result, row) for result in results}
    lines = [first.row_names[row]] if first.row_names else []
    if len(names) == 1 and (name := names.pop()):
        lines.append(name)
        lines.append(f"score {float(first.output[row]):.3g}")
    return "\n".join(lines)


def _class_of(result: Contributions, row: int) -> str:
    if result.classes is not None:
        return result.classes[row]
    return result.names[0] if result.names else ""


def _write(ax: "Axes", text: str, x: float, y: float, **where: Any) -> None:
    from ..plots.fitted_text import FittedText

    look: dict[str, Any] = {"fontsize": style.LABEL, "color": "black", "parse_math": False, **where}
    ax.add_artist(FittedText(x, y, text, **look))


def _bar(ax: "Axes", sign: Sign, percentile: float) -> None:
    """The colour bar of the maps that have this sign."""
    unit = f"1: {percentile:g}th percentile of each map"
    if sign == "both":
        color_bar(ax, f"contribution to the class,\n{unit}")
        return
    ends = (-1.0, 0.0) if sign == "negative" else (0.0, 1.0)
    what = "magnitude of the contribution" if sign == "absolute" else f"{sign} contribution"
    color_bar(ax, f"{what},\n{unit}", ends, style.diverging_map(span=ends)).set_ticks(list(ends))
