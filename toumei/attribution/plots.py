"""Figures and HTML of attributions: heat maps over pictures, bars, and coloured tokens.

Functions take tensors and names, no results: values are (T, N, ...), with an axis of targets in front.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import ShapeError
from ..core.notebooks import escaped
from ..plots import style
from ..plots.html import picture, token_spans
from ..plots.pixels import check_overlay, in_range
from ..plots.style import color_bar, drawing
from ..plots.tokens import Row, draw_tokens, token_figure_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TOKENS, _MOST_PICTURES = 2000, 24  # on a page
_MOST_SHOWN = 5000  # tokens of all rows together


def heat_map(values: Tensor) -> Tensor:
    """Returns the contributions of pictures, summed over channels and scaled to 1 at the 99th percentile.

    Where all positions share a large offset, such as the scores that RISE averages, the offset is removed.

    Args:
        values: (N, C, H, W).

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
    # the 99th percentile of a map that is mostly empty may be 0
    largest = torch.stack([_percentile(flat) for flat in summed.flatten(1).abs()])
    return (summed / largest.clamp(min=1e-12)[:, None, None]).clamp(-1, 1)


def plot_attribution(
    values: Tensor,
    title: str = "",
    names: Sequence[str] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    images: Tensor | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with the contributions: orange for the target, blue against it.

    Args:
        values: Contributions of pictures or maps (T, N, C, H, W), shown as heat maps, or of tokens
            (T, N, M, C) or columns (T, N, M), shown as bars, or in colours if there are tokens. Only the
            first target is shown, but all of tokens.
        title: Stands above.
        names: Of the T targets.
        tokens: The tokens of each input.
        images: Pictures (N, 1 or 3, H, W) in [0, 1] to lay the heat maps over.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Values that are neither maps nor rows, or pictures that are not as many.
    """
    values = _without_channels(values)
    if values.dim() not in (3, 5):
        raise ShapeError(f"only maps (N, C, H, W) and rows (N, M) are drawn, got {tuple(values.shape[1:])}")
    maps, count = values.dim() == 5, values.shape[1]
    if images is not None and (images.dim() != 4 or len(images) != count):
        raise ShapeError(f"expected {count} pictures (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if maps and images is not None:
        check_overlay(values.shape[-2:], images.shape[-2:])
    rows = None if maps or tokens is None else list(_rows(values, names, tokens))
    size = (2.2 * count + 0.8, 2.4) if maps else (min(0.35 * values.shape[2] + 2, 14), 2.6)
    with drawing(ax, *(size if rows is None else token_figure_size(rows))) as ax:
        if maps:
            _draw_maps(ax, heat_map(values[0]), images)
            target = f" to {names[0]}" if names else ""
            color_bar(ax, f"contribution{target},\n1: strongest of each map")
        elif rows is not None:
            draw_tokens(ax, rows)
        else:
            _draw_bars(ax, values[0], names)
        ax.set_title(title)
    return ax


def attribution_html(
    values: Tensor,
    title: str = "",
    names: Sequence[str] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
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
    """
    head = f'<p style="font-family:sans-serif">{escaped(title)}</p>'
    values = _without_channels(values)
    if values.dim() == 5:
        return head + _pictures(values, names)
    if values.dim() != 3 or values.shape[2] > _MOST_TOKENS:
        return head
    if tokens is None:
        tokens = [[f" {position}" for position in range(values.shape[2])]] * values.shape[1]
    rows = list(_rows(values, names, tokens))
    most = max(1, _MOST_SHOWN // max(values.shape[2], 1))
    lines = [
        f"<p>{escaped(name) + ': ' if name else ''}{token_spans(words, row)}</p>"
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


def _pictures(values: Tensor, names: Sequence[str] | None) -> str:
    """The heat maps of values (T, N, C, H, W) as pictures, a line for each target."""
    most = max(1, _MOST_PICTURES // len(values))
    lines = []
    for target, of_target in enumerate(values[:_MOST_PICTURES, :most]):
        name = f"{escaped(names[target])}: " if names else ""
        lines.append(f"<p>{name}{''.join(map(_picture, heat_map(of_target)))}</p>")
    left = values.shape[0] * values.shape[1] - len(lines) * min(most, values.shape[1])
    more = f"<p>and {left} more</p>" if left else ""
    return f'<div style="font-family:sans-serif">{"".join(lines)}{more}</div>'


def _picture(heat: Tensor) -> str:
    """A heat map (H, W) as a PNG within the page: white for 0, orange for the target, blue against it."""
    look = "height:128px;image-rendering:pixelated;border:1px solid silver;margin:2px"
    return picture(style.diverging_colors(heat).movedim(2, 0), look)


def _without_channels(values: Tensor) -> Tensor:
    """Values (T, N, ...), those of tokens (T, N, M, C) summed over their channels, (T, N) as one column."""
    values = values[..., None] if values.dim() == 2 else values
    return (values.sum(3) if values.dim() == 4 else values).float()


def _percentile(values: Tensor) -> Tensor:
    """The 99th percentile, or the maximum where that is 0."""
    rank = max(1, round(0.99 * values.numel()))
    largest = values.kthvalue(rank).values
    return largest if largest > 0 else values.max()


def _draw_bars(ax: "Axes", values: Tensor, names: Sequence[str] | None) -> None:
    width = 0.8 / len(values)
    for row, heights in enumerate(values):
        positions = [column + (row - (len(values) - 1) / 2) * width for column in range(len(heights))]
        colors = None
        if len(values) == 1:
            colors = [style.POSITIVE if height > 0 else style.NEGATIVE for height in heights]
        label = names[row] if names and len(values) > 1 else None
        ax.bar(positions, heights.tolist(), width, color=colors or style.COLORS[row % 8], label=label)
    ax.axhline(0, color="black", linewidth=0.6)
    several = len(values) > 1
    ax.set_xlabel("feature")
    ax.set_ylabel("contribution" + (f" to {names[0]}" if names and not several else ""))
    if names and several:
        ax.legend(title="target")


def _draw_maps(ax: "Axes", heat: Tensor, images: Tensor | None) -> None:
    height, width = heat.shape[-2:] if images is None else images.shape[-2:]
    gray = None if images is None else in_range(images).mean(1)
    gap = max(1, width // 30)
    for index, of_picture in enumerate(heat):
        left = index * (width + gap)
        extent = (left, left + width, height, 0)
        if gray is not None:
            ax.imshow(gray[index].numpy(), cmap="gray", extent=extent, vmin=0, vmax=1)
        alpha = None if gray is None else of_picture.abs().clamp(0, 1).pow(0.7).numpy()
        ax.imshow(of_picture.numpy(), cmap=style.diverging_map(), extent=extent, vmin=-1, vmax=1, alpha=alpha)
    ax.set_xlim(0, len(heat) * (width + gap) - gap)
    ax.set_ylim(height, 0)
    ax.set_axis_off()
