"""Pictures of attributions: heat maps over pictures, bars, and coloured tokens, in figures and as HTML."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import ShapeError
from ..plots.html import escaped, picture, token_spans
from ..plots.tokens import Row, draw_tokens, token_figure_size
from .base.result import Attribution, parts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TOKENS, _MOST_PICTURES = 2000, 24  # on a page


def heat_map(values: Tensor) -> Tensor:
    """Returns what a picture's contributions look like: summed over channels, 1 at the 99th percentile.

    Where places differ little from what they have in common, as the scores do that RISE averages, what is
    above that is shown.

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
    # of pictures that are mostly empty the 99th percentile may be nothing
    largest = torch.stack([_percentile(own) for own in summed.flatten(1).abs()])
    return (summed / largest.clamp(min=1e-12)[:, None, None]).clamp(-1, 1)


def plot_attribution(result: Attribution, images: Tensor | None = None, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the contributions: red for the target, blue against it.

    Args:
        result: Attributions of pictures or maps (N, C, H, W), shown as heat maps, of tokens, shown in the
            colours of their contributions, or of columns (N, M), shown as bars. The first tensor is shown,
            and of several targets the first, but of tokens all.
        images: Pictures (N, 1 or 3, H, W) in [0, 1] to lay the heat maps over.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Values that are neither maps nor rows, or pictures that are not as many.
    """
    from matplotlib import pyplot

    values = _by_target(result)
    if values.dim() not in (3, 5):
        raise ShapeError(
            f"only maps (N, C, H, W) and rows (N, M) are drawn, got {tuple(parts_of(result.values)[0].shape)}"
        )
    maps, count = values.dim() == 5, values.shape[1]
    if images is not None and (images.dim() != 4 or len(images) != count):
        raise ShapeError(f"expected {count} pictures (N, 1 or 3, H, W), got {tuple(images.shape)}")
    tokens = None if maps or result.tokens is None else list(_rows(result, values, result.tokens))
    if ax is None:
        size = (2.2 * count, 2.4) if maps else (min(0.35 * values.shape[2] + 2, 14), 2.6)
        size = size if tokens is None else token_figure_size(tokens)
        ax = pyplot.figure(figsize=size, layout="constrained").add_subplot()
    if maps:
        _draw_maps(ax, heat_map(values[0]), images)
    elif tokens is not None:
        draw_tokens(ax, tokens)
    else:
        _draw_bars(ax, values[0], result)
    ax.set_title(result.method, fontsize="medium")
    return ax


def attribution_html(result: Attribution, tokens: Sequence[Sequence[str]] | None = None) -> str:
    """Returns a piece of HTML that needs nothing else: red for the target and blue against it.

    Tokens stand as text, the strongest of a row in the full colour; the number of a token is shown while the
    pointer is on it. Of pictures there are the heat maps.

    Args:
        result: Attributions of tokens (N, M) or (N, M, C), or of pictures or maps (N, C, H, W); others are
            described in a line.
        tokens: The tokens of each input; by default those of the result, or their numbers.
    """
    head = f'<p style="font-family:sans-serif">{escaped(repr(result))}</p>'
    values = _by_target(result)
    if values.dim() == 5:
        return head + _pictures(result, values)
    if values.dim() != 3 or values.shape[2] > _MOST_TOKENS:
        return head
    shown = tokens if tokens is not None else result.tokens
    if shown is None:
        shown = [[f" {place}" for place in range(values.shape[2])]] * values.shape[1]
    lines = []
    for name, names, own in _rows(result, values, shown):
        lines.append(f"<p>{escaped(name) + ': ' if name else ''}{token_spans(names, own)}</p>")
    style = "font-family:monospace;line-height:2;white-space:pre-wrap"
    return f'{head}<div style="{style}">{"".join(lines)}</div>'


def _rows(result: Attribution, values: Tensor, tokens: Sequence[Sequence[str]]) -> Iterator[Row]:
    """Tokens and contributions (T, N, M) of each target and input, with the target's name."""
    for target, of_target in enumerate(values):
        for own, names in zip(of_target, tokens, strict=True):
            yield (result.names[target] if result.names else ""), names, own


def _pictures(result: Attribution, values: Tensor) -> str:
    """The heat maps of values (T, N, C, H, W) as pictures, a line for each target."""
    most = max(1, _MOST_PICTURES // len(values))
    lines = []
    for target, own in enumerate(values[:_MOST_PICTURES, :most]):
        name = f"{escaped(result.names[target])}: " if result.names else ""
        lines.append(f"<p>{name}{''.join(map(_picture, heat_map(own)))}</p>")
    left = values.shape[0] * values.shape[1] - len(lines) * min(most, values.shape[1])
    more = f"<p>and {left} more</p>" if left else ""
    return f'<div style="font-family:sans-serif">{"".join(lines)}{more}</div>'


def _picture(heat: Tensor) -> str:
    """A heat map (H, W) as a PNG within the page: white for nothing, red for the target, blue against it."""
    colors = torch.stack([1 - (-heat).clamp(min=0), 1 - heat.abs(), 1 - heat.clamp(min=0)])
    style = "height:128px;image-rendering:pixelated;border:1px solid silver;margin:2px"
    return picture(colors, style)


def _by_target(result: Attribution) -> Tensor:
    """The first tensor of the values with an axis of targets in front, without the channels of tokens."""
    values = parts_of(result.values)[0]
    values = values if result.several else values[None]
    return (values.sum(3) if values.dim() == 4 else values).float()


def _percentile(values: Tensor) -> Tensor:
    """The 99th percentile, or the maximum where that is nothing."""
    rank = max(1, round(0.99 * values.numel()))
    largest = values.kthvalue(rank).values
    return largest if largest > 0 else values.max()


def _draw_bars(ax: "Axes", values: Tensor, result: Attribution) -> None:
    width = 0.8 / len(values)
    for row, own in enumerate(values):
        places = [place + (row - (len(values) - 1) / 2) * width for place in range(len(own))]
        colors = ["firebrick" if value > 0 else "royalblue" for value in own] if len(values) == 1 else None
        ax.bar(places, own.tolist(), width, color=colors)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_ylabel("contribution" + (f" to {result.names[0]}" if result.names else ""))


def _draw_maps(ax: "Axes", heat: Tensor, images: Tensor | None) -> None:
    height, width = heat.shape[-2:] if images is None else images.shape[-2:]
    gap = max(1, width // 30)
    for index, own in enumerate(heat):
        left = index * (width + gap)
        extent = (left, left + width, height, 0)
        if images is not None:
            gray = images[index].detach().float().mean(0).cpu().numpy()
            ax.imshow(gray, cmap="gray", extent=extent, vmin=0, vmax=1)
        alpha = own.abs().clamp(0, 1).pow(0.7).numpy() if images is not None else None
        ax.imshow(own.numpy(), cmap="bwr", extent=extent, vmin=-1, vmax=1, alpha=alpha)
    ax.set_xlim(0, len(heat) * (width + gap) - gap)
    ax.set_ylim(height, 0)
    ax.set_axis_off()
