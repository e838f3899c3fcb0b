"""Figures and HTML of attributions: heat maps over pictures, and coloured tokens.

Functions take tensors and names, no results: values are (T, N, ...), with an axis of targets in front.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..core.errors import ShapeError
from ..core.notebooks import escaped
from ..core.summaries import counted
from ..plots import style
from ..plots.frames import draw_frames, pale
from ..plots.html import picture, token_spans
from ..plots.pixels import check_overlay, in_range
from ..plots.style import LABEL, color_bar, drawing
from ..plots.tokens import Row, draw_tokens, token_figure_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TOKENS, _MOST_PICTURES = 2000, 24  # on a page
_MOST_SHOWN = 5000  # tokens of all rows together


def heat_map(
    values: Tensor,
    percentile: float = 99.0,
    sign: Literal["both", "positive", "negative", "absolute"] = "both",
) -> Tensor:
    """Returns the contributions of pictures, summed over channels and scaled to 1 at a percentile.

    Where all positions share a large offset, such as the scores that RISE averages, the offset is removed.

    Args:
        values: (N, C, H, W).
        percentile: Of the magnitudes of each map, what becomes 1; larger ones are clipped.
        sign: Which contributions are kept; others are 0.

    Returns:
        (N, H, W) between -1 and 1.

    Example:
        >>> heat_map(torch.tensor([[[[2.0, -1.0]], [[2.0, -1.0]]]])).shape
        torch.Size([1, 1, 2])
    """
    summed = values.float().sum(1)
    low, high = summed.amin((1, 2), keepdim=True), summed.amax((1, 2), keepdim=True)
    summed = torch.where((low > high / 2) & (low < high), summed - low, summed)
    summed = torch.where((high < low / 2) & (low < high), summed - high, summed)
    if sign == "absolute":
        summed = summed.abs()
    elif sign != "both":
        summed = summed.clamp(min=0) if sign == "positive" else summed.clamp(max=0)
    # the percentile of a map that is mostly empty may be 0
    largest = torch.stack([_percentile(flat, percentile) for flat in summed.flatten(1).abs()])
    return (summed / largest.clamp(min=1e-12)[:, None, None]).clamp(-1, 1)


def plot_attribution(
    values: Tensor,
    title: str = "",
    names: Sequence[str] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    images: Tensor | None = None,
    ax: "Axes | None" = None,
    labels: Sequence[str] | None = None,
    *,
    compared: bool = False,
) -> "Axes":
    """Returns axes with the contributions: orange for the target, blue against it.

    Args:
        values: Contributions of pictures or maps (T, N, C, H, W), shown as heat maps of the first target, or
            of tokens (T, N, M, C) or (T, N, M), in colours for all targets.
        title: Stands above.
        names: Of the T targets.
        tokens: The tokens of each input.
        images: Pictures (N, 1 or 3, H, W) in [0, 1] to lay the heat maps over.
        ax: Where to draw; a new figure by default.
        labels: What to write above each heat map.
        compared: Whether rows of tokens have one scale; by default the strongest of each has the full colour.

    Raises:
        ShapeError: Values that are neither maps nor rows, or pictures that are not as many.
    """
    values = _without_channels(values)
    if values.dim() not in (3, 5):
        raise ShapeError(f"only maps (N, C, H, W) and rows (N, M) are drawn, got {tuple(values.shape[1:])}")
    maps, count = values.dim() == 5, values.shape[1]
    if not maps and tokens is None:
        tokens = [[str(position) for position in range(values.shape[2])]] * count
    if images is not None and (images.dim() != 4 or len(images) != count):
        raise ShapeError(f"expected {counted(count, 'picture')} (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if maps and images is not None:
        check_overlay(values.shape[-2:], images.shape[-2:])
    rows = None if maps or tokens is None else list(_rows(values, names, tokens))
    with drawing(ax, *(token_figure_size(rows) if rows else (2.2 * count + 0.8, 2.4))) as ax:
        if maps:
            _draw_maps(ax, heat_map(values[0]), images, labels or ())
            target = f" to {names[0]}" if names else ""
            color_bar(ax, f"contribution{target},\n1: strongest of each map")
        else:
            draw_tokens(ax, rows or [], float(values.abs().max()) if compared else None)
        ax.set_title(title, pad=18 if maps and labels else None)
    return ax


def attribution_html(
    values: Tensor,
    title: str = "",
    names: Sequence[str] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    labels: Sequence[str] | None = None,
    *,
    compared: bool = False,
) -> str:
    """Returns a piece of HTML without links to other files: orange for the target and blue against it.

    Tokens are shown as text, the strongest one of a row in the full colour; the number of a token appears
    under the pointer. Pictures are shown as heat maps.

    Args:
        values: Contributions of tokens (T, N, M) or (T, N, M, C), or of pictures or maps (T, N, C, H, W);
            others are not shown.
        title: Stands above.
        names: Of the T targets.
        tokens: The tokens of each input; by default their numbers.
        labels: What to write below each picture.
        compared: Whether rows of tokens have one scale.
    """
    head = f'<p style="font-family:sans-serif">{escaped(title)}</p>'
    values = _without_channels(values)
    if values.dim() == 5:
        return head + _pictures(values, names, labels)
    if values.dim() != 3 or values.shape[2] > _MOST_TOKENS:
        return head
    if tokens is None:
        tokens = [[f" {position}" for position in range(values.shape[2])]] * values.shape[1]
    rows = list(_rows(values, names, tokens))
    most = max(1, _MOST_SHOWN // max(values.shape[2], 1))
    largest = float(values.abs().max()) if compared else None
    lines = [
        f"<p>{escaped(name) + ': ' if name else ''}{token_spans(words, row, largest)}</p>"
        for name, words, row in rows[:most]
    ]
    if len(rows) > most:
        lines.append(f"<p>and {len(rows) - most} more</p>")
    look = "font-family:monospace;line-height:2;white-space:pre-wrap"
    return f'{head}<div style="{look}">{"".join(lines)}</div>'


def _rows(values: Tensor, names: Sequence[str] | None, tokens: Sequence[Sequence[str]]) -> Iterator[Row]:
    """Yields the target's name, tokens and contributions (M,) for each target and input of (T, N, M)."""
    for target, of_target in enumerate(values):
        for row, words in zip(of_target, tokens, strict=True):
            yield (names[target] if names else ""), words, row


def _pictures(values: Tensor, names: Sequence[str] | None, labels: Sequence[str] | None) -> str:
    """The heat maps of values (T, N, C, H, W) as pictures, a line for each target."""
    labels = labels or [""] * values.shape[1]
    most = max(1, _MOST_PICTURES // len(values))
    lines = []
    for target, of_target in enumerate(values[:_MOST_PICTURES, :most]):
        name = f"{escaped(names[target])}: " if names else ""
        lines.append(f"<p>{name}{''.join(map(_picture, heat_map(of_target), labels))}</p>")
    left = values.shape[0] * values.shape[1] - len(lines) * min(most, values.shape[1])
    more = f"<p>and {left} more</p>" if left else ""
    return f'<div style="font-family:sans-serif">{"".join(lines)}{more}</div>'


def _picture(heat: Tensor, label: str) -> str:
    """A heat map (H, W) as a PNG within the page: white for 0, orange for the target, blue against it."""
    look = "height:128px;image-rendering:pixelated;border:1px solid silver;margin:2px"
    shown = picture(style.diverging_colors(heat).movedim(2, 0), look)
    below = f"<br>{escaped(label)}"
    frame = "display:inline-block;text-align:center;vertical-align:top"
    return f'<span style="{frame}">{shown}{below}</span>' if label else shown


def _without_channels(values: Tensor) -> Tensor:
    """Values (T, N, ...), those of tokens (T, N, M, C) summed over their channels, (T, N) as one column."""
    values = values[..., None] if values.dim() == 2 else values
    return (values.sum(3) if values.dim() == 4 else values).float()


def _percentile(values: Tensor, percentile: float) -> Tensor:
    """The percentile, or the maximum where that is 0."""
    rank = max(1, round(percentile / 100 * values.numel()))
    largest = values.kthvalue(rank).values
    return largest if largest > 0 else values.max()


def _draw_maps(ax: "Axes", heat: Tensor, images: Tensor | None, labels: Sequence[str]) -> None:
    from ..plots.fitted_text import FittedText

    height, width = heat.shape[-2:] if images is None else images.shape[-2:]
    gap = max(1, width // 30)
    for index, of_picture in enumerate(heat):
        left = index * (width + gap)
        image = None if images is None else images[index]
        draw_map(ax, of_picture, image, (left, left + width, height, 0))
        if labels:
            look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": LABEL, "parse_math": False}
            middle = left + width / 2
            ax.add_artist(FittedText(middle, -height / 40, labels[index], width + gap / 2, lines=2, **look))
    ax.set_xlim(0, len(heat) * (width + gap) - gap)
    ax.set_ylim(height, 0)
    ax.set_axis_off()


def draw_map(
    ax: "Axes", heat: Tensor | None, image: Tensor | None, extent: tuple[float, float, float, float]
) -> None:
    """Draws a heat map, a picture, or a heat map over a picture in gray.

    What is near white at its edge has a thin grey frame.

    Args:
        ax: Where to draw.
        heat: (H, W) between -1 and 1.
        image: (1 or 3, H, W) in [0, 1].
        extent: Left, right, bottom and top in the data of the axes.
    """
    where: dict[str, Any] = {"extent": extent}
    left, right, bottom, top = extent
    seen = style.diverging_colors(heat).movedim(2, 0) if image is None and heat is not None else image
    if seen is not None and pale(seen[None])[0]:
        draw_frames(ax, [(left, top, right - left, bottom - top)])
    if image is not None:
        shown = in_range(image)
        if heat is None:
            ax.imshow(shown.expand(3, -1, -1).permute(1, 2, 0).numpy(), **where)
            return
        ax.imshow(shown.mean(0).numpy(), cmap="gray", vmin=0, vmax=1, **where)
    assert heat is not None
    alpha = None if image is None else heat.abs().clamp(0, 1).pow(0.7).numpy()
    ax.imshow(heat.numpy(), cmap=style.diverging_map(), vmin=-1, vmax=1, alpha=alpha, **where)
