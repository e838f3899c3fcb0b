"""Pictures of attributions: heat maps over pictures, bars, and coloured tokens as a page of its own."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import ShapeError
from .result import Attribution, parts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heat_map(values: Tensor) -> Tensor:
    """Returns what a picture's contributions look like: summed over channels, 1 at the 99th percentile.

    Args:
        values: (N, C, H, W).

    Returns:
        (N, H, W) between -1 and 1.
    """
    summed = values.float().sum(1)
    largest = torch.quantile(summed.flatten(1).abs(), 0.99, dim=1)
    return (summed / largest.clamp(min=1e-12)[:, None, None]).clamp(-1, 1)


def plot_attribution(result: Attribution, images: Tensor | None = None, ax: "Axes | None" = None) -> "Axes":
    """Returns axes with the contributions: red for the target, blue against it.

    Args:
        result: Attributions of pictures or maps (N, C, H, W), or of columns or tokens (N, M); the first
            tensor is shown, and of several targets the first.
        images: Pictures (N, 1 or 3, H, W) in [0, 1] to lay the heat maps over.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Values that are neither maps nor rows.
    """
    from matplotlib import pyplot

    values = parts_of(result[0].values if result.several else result.values)[0]
    if values.dim() == 3:
        values = values.sum(2)  # of tokens: over the channels of their embeddings
    if values.dim() not in (2, 4):
        raise ShapeError(f"only maps (N, C, H, W) and rows (N, M) are drawn, got {tuple(values.shape)}")
    if ax is None:
        size = (2.2 * len(values), 2.4) if values.dim() == 4 else (0.3 * values.shape[1] + 2, 2.4)
        ax = pyplot.figure(figsize=size, layout="constrained").add_subplot()
    if values.dim() == 4:
        _draw_maps(ax, heat_map(values), images)
    else:
        width = 0.8 / len(values)
        for row, own in enumerate(values.tolist()):
            places = [place + (row - (len(values) - 1) / 2) * width for place in range(len(own))]
            ax.bar(places, own, width)
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_ylabel("contribution")
    ax.set_title(result.method, fontsize="medium")
    return ax


def attribution_html(result: Attribution, tokens: Sequence[Sequence[str]] | None = None) -> str:
    """Returns a piece of HTML with the contributions, tokens coloured red for the target and blue against it.

    Args:
        result: Attributions of tokens (N, M) or (N, M, C); others are described in a line.
        tokens: The tokens of each input; their numbers by default.
    """
    head = f"<p>{escape(repr(result))}</p>"
    values = parts_of(result[0].values if result.several else result.values)[0]
    values = values.sum(2) if values.dim() == 3 else values
    if values.dim() != 2 or values.shape[1] > 2000:
        return head
    rows = []
    for index, own in enumerate(values.float()):
        names = tokens[index] if tokens is not None else [str(place) for place in range(len(own))]
        largest = float(own.abs().max()) or 1.0
        cells = "".join(
            f'<span title="{value:.4g}" style="background:{_color(value / largest)};padding:2px">'
            f"{escape(name)}</span>"
            for name, value in zip(names, own.tolist(), strict=True)
        )
        rows.append(f'<p style="font-family:monospace;line-height:1.8">{cells}</p>')
    return head + "".join(rows)


def _draw_maps(ax: "Axes", heat: Tensor, images: Tensor | None) -> None:
    height, width = heat.shape[-2:] if images is None else images.shape[-2:]
    for index, own in enumerate(heat):
        left = index * (width + 2)
        extent = (left, left + width, height, 0)
        if images is not None:
            gray = images[index].mean(0).cpu().numpy()
            ax.imshow(gray, cmap="gray", extent=extent, vmin=0, vmax=1)
        alpha = own.abs().clamp(0, 1).pow(0.7).numpy() if images is not None else None
        ax.imshow(own.numpy(), cmap="bwr", extent=extent, vmin=-1, vmax=1, alpha=alpha)
    ax.set_xlim(0, len(heat) * (width + 2) - 2)
    ax.set_ylim(height, 0)
    ax.set_axis_off()


def _color(share: float) -> str:
    other = round(255 * (1 - abs(share)))
    return f"rgb(255,{other},{other})" if share > 0 else f"rgb({other},{other},255)"
