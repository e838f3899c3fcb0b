"""Contributions of the columns of a table: bars, waterfalls, swarms, dependence.

The forms are those of Lundberg and Lee (2017) and Lundberg et al. (2020): orange speaks for the score, blue
against it, and the value of a column is told by other colours.
"""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.checks import check_counts, checked
from ..core.errors import NonFiniteError, ShapeError
from ..core.summaries import counted
from . import style
from .style import color_bar, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 10
"""Columns that are drawn; the others are added up."""

_ROUNDING = 1e-7  # of the largest number, below which another one is a sum that rounding leaves
_VALUES = "viridis"  # of the values of columns, from low to high
_ROOM = 0.2  # beside bars for their numbers, as a share of the width
_POINTS = 12  # least bins of a swarm


def number_text(value: float, largest: float, sign: bool = False) -> str:
    """Returns a number with three digits; what only rounding leaves of 0 beside the largest one is 0.

    Example:
        >>> number_text(0.25, 3.0), number_text(0.25, 3.0, sign=True), number_text(-3e-16, 3.0, sign=True)
        ('0.25', '+0.25', '0')
    """
    if abs(value) <= _ROUNDING * largest:
        return "0"
    return f"{value:+.3g}" if sign else f"{value:.3g}"


@checked
def bar_chart(
    values: Tensor,
    names: Sequence[str],
    targets: Sequence[str] = (),
    *,
    errors: Tensor | None = None,
    most: int = MOST,
    color: str | None = None,
    label: str = "contribution",
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with a bar for each column, the largest on top; the smallest are one bar together.

    Args:
        values: (M,), or (T, M) for several targets, whose bars stand below each other.
        names: Of the M columns.
        targets: Names of the targets, for the legend.
        errors: Standard errors in the shape of the values, drawn as lines.
        most: Bars; the others are added up in one more.
        color: Of the bars of a single target; by default that of their sign.
        label: What the numbers are.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Another number of names than columns.
        ArgumentError: What is no colour.

    Example:
        >>> axes = bar_chart(torch.tensor([1.0, -3.0]), ["age", "dose"])
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['dose', 'age']
    """
    values = values[None] if values.dim() == 1 else values
    check_counts(1, most=most)
    style.check_colors(color=color)
    if values.dim() != 2 or values.shape[1] != len(names):
        raise ShapeError(f"expected numbers for {counted(len(names), 'column')}, got {tuple(values.shape)}")
    if errors is not None and (errors.numel() != values.numel() or errors.is_complex()):
        raise ShapeError(
            f"expected an error for each number {tuple(values.shape)}, got {tuple(errors.shape)}"
        )
    values = values.detach().double().cpu()
    order = values.abs().sum(0).argsort(descending=True, stable=True)
    shown, others = order[:most], order[most:]
    heights, labels = values[:, shown], [names[index] for index in shown.tolist()]
    if len(others):
        heights = torch.cat([heights, values[:, others].sum(1, keepdim=True)], 1)
        labels = [*labels, _of_others(len(others))]
    count = len(values)
    spread = torch.zeros_like(heights)
    if errors is not None:
        spread[:, : len(shown)] = errors.detach().double().cpu().reshape(values.shape)[:, shown].nan_to_num(0)
    with drawing(ax, 6.4, 0.22 * len(labels) * (1 + 0.4 * (count - 1)) + 1.2) as ax:
        width = 0.8 / count
        for row, lengths in enumerate(heights):
            places = [place + (row - (count - 1) / 2) * width for place in range(len(labels))]
            of_signs = [style.POSITIVE if length >= 0 else style.NEGATIVE for length in lengths]
            colors = color or of_signs if count == 1 else style.palette(count)[row]
            name = targets[row] if count > 1 and targets else None
            ax.barh(places, lengths.tolist(), width, color=colors, label=name)
            if errors is not None:
                lines: dict[str, Any] = {"fmt": "none", "ecolor": "black", "elinewidth": 1}
                ax.errorbar(lengths.tolist(), places, xerr=spread[row].tolist(), **lines)
            if count == 1:
                _write_numbers(ax, lengths, spread[row], places)
        low, high = float((heights - spread).min()), float((heights + spread).max())
        _finish(ax, labels, label, (min(0.0, low), max(0.0, high)))
        if count > 1 and targets:
            ax.legend(title="target")
    return ax


@checked
def waterfall(
    values: Tensor,
    names: Sequence[str],
    start: float,
    end: float,
    *,
    most: int = MOST,
    label: str = "score",
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes on which contributions lead from one score to another, the largest on top.

    Args:
        values: (M,) contributions.
        names: Of the columns.
        start: The score at the baseline, below.
        end: The score at the input, above; what contributions do not explain is a separate bar in gray.
        most: Bars; the others are added up in one more.
        label: What the score is.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Another number of names than columns.

    Example:
        >>> axes = waterfall(torch.tensor([1.0, -3.0]), ["age", "dose"], start=5.0, end=3.0)
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['dose', 'age']
    """
    check_counts(1, most=most)
    if values.dim() != 1 or len(values) != len(names):
        raise ShapeError(
            f"expected a number for each of {counted(len(names), 'column')}, got {tuple(values.shape)}"
        )
    if not (isfinite(start) and isfinite(end)):
        raise NonFiniteError(f"the scores are finite, got {start} and {end}")
    values = values.detach().double().cpu()
    order = values.abs().argsort(descending=True, stable=True).tolist()
    steps = [(names[index], float(values[index])) for index in order[:most]]
    if len(order) > most:
        steps.append((_of_others(len(order) - most), float(values[order[most:]].sum())))
    rest = end - start - float(values.sum())
    gap = abs(rest) > 1e-3 * max(abs(end - start), float(values.abs().max()), 1e-12)
    if gap:
        steps.append(("not explained (gap)", rest))
    largest = max(abs(step) for _, step in steps)
    with drawing(ax, 6.4, 0.3 * len(steps) + 1.4) as ax:
        place, places = start, [start]
        for row, (_, step) in reversed(list(enumerate(steps))):
            text = number_text(step, largest, sign=True)
            _draw_step(ax, row, place, step, text, gray=gap and row == len(steps) - 1)
            place += step
            places.append(place)
            if row:
                ax.plot([place, place], [row - 1.35, row + 0.35], color="gray", linewidth=0.6)
        for score, text in ((start, f"baseline: {start:.3g}"), (end, f"input: {end:.3g}")):
            _draw_score(ax, score, text, below=score == start)
        _finish(ax, [name for name, _ in steps], label, (min(places), max(places)), zero=False)
        ax.xaxis.labelpad = 24  # below the name of the baseline
    return ax


def _draw_step(ax: "Axes", row: int, place: float, step: float, text: str, *, gray: bool) -> None:
    """A bar of a waterfall from a score to the next one, with its length."""
    color = style.GRAY if gray else style.POSITIVE if step >= 0 else style.NEGATIVE
    ax.barh(row, step, 0.7, left=place, color=color)
    ax.annotate(
        text,  # on the colour of the axes, because the line of a score may pass there
        (place + step, row),
        (4 if step >= 0 else -4, 0),
        textcoords="offset points",
        ha="left" if step >= 0 else "right",
        va="center",
        fontsize=style.LABEL,
        color=style.ink(ax),
        bbox={"boxstyle": "square,pad=0", "facecolor": ax.get_facecolor(), "edgecolor": "none"},
    )


def _draw_score(ax: "Axes", score: float, text: str, *, below: bool) -> None:
    """A line at a score with its name below or above the bars."""
    ax.axvline(score, color="gray", linewidth=0.8, linestyle=":")
    ax.annotate(
        text,
        (score, 0 if below else 1),
        (0, -26 if below else 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=style.LABEL,
        color=style.ink(ax),
    )


@checked
def beeswarm(
    values: Tensor,
    names: Sequence[str],
    data: Tensor | None = None,
    *,
    most: int = MOST,
    label: str = "contribution",
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with a point for each row and column, the columns that matter most on top.

    Args:
        values: (N, M) contributions.
        names: Of the columns.
        data: (N, M) values of the columns, which the colours tell from the lowest to the highest.
        most: Columns that are drawn.
        label: What the numbers are.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Another number of names than columns, or data of another shape.

    Example:
        >>> ax = beeswarm(torch.tensor([[1.0, -3.0], [0.5, 2.0]]), ["age", "dose"])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['dose', 'age']
    """
    check_counts(1, most=most)
    if values.dim() != 2 or values.shape[1] != len(names):
        raise ShapeError(f"expected (N, {len(names)}) contributions, got {tuple(values.shape)}")
    if data is not None and data.shape != values.shape:
        raise ShapeError(f"contributions are {tuple(values.shape)}, the data {tuple(data.shape)}")
    values = values.detach().double().cpu()
    order = values.abs().mean(0).argsort(descending=True, stable=True)[:most].tolist()
    span = float(values[:, order].max() - values[:, order].min()) or 1.0
    with drawing(ax, 6.4, 0.42 * len(order) + 1.2) as ax:
        for row, column in enumerate(order):
            offsets = _offsets(values[:, column], span)
            colors = None if data is None else _ranks(data[:, column].double().cpu())
            ax.scatter(
                values[:, column].numpy(),
                row + offsets.numpy(),
                s=9,
                linewidths=0,
                rasterized=True,
                **({"color": style.BLUE} if colors is None else {"c": colors.numpy(), "cmap": _VALUES}),
            )
        drawn = values[:, order]
        _finish(ax, [names[column] for column in order], label, (float(drawn.min()), float(drawn.max())))
        ax.grid(axis="y", color="0.85", linestyle=":")
        ax.set_axisbelow(True)
        if data is not None:
            _value_bar(ax, "value of the feature", ("low", "high"))
    return ax


@checked
def dependence(
    values: Tensor,
    data: Tensor,
    name: str,
    *,
    by: Tensor | None = None,
    by_name: str = "",
    label: str = "contribution",
    ax: "Axes | None" = None,
) -> "Axes":
    """Returns axes with the contribution of one column against its value, a point for each row.

    Args:
        values: (N,) contributions of the column.
        data: (N,) its values.
        name: Of the column.
        by: (N,) values of another column, which the colours tell.
        by_name: Of that column.
        label: What the contributions are.
        ax: Where to draw; a new figure by default.

    Raises:
        ShapeError: Numbers that are not as many.

    Example:
        >>> ax = dependence(torch.tensor([0.1, 0.4]), torch.tensor([20.0, 60.0]), "age")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('age', 'contribution')
    """
    others = [data] if by is None else [data, by]
    if values.dim() != 1 or any(other.shape != values.shape for other in others):
        shapes = [tuple(other.shape) for other in (values, *others)]
        raise ShapeError(f"expected as many contributions as values of the column, got {shapes}")
    with drawing(ax, 5.4, 3.8) as ax:
        colors = (
            {"color": style.BLUE} if by is None else {"c": _ranks(by.double().cpu()).numpy(), "cmap": _VALUES}
        )
        ax.scatter(data.cpu().numpy(), values.detach().cpu().numpy(), s=14, linewidths=0, **colors)
        ax.axhline(0, color="gray", linewidth=0.8)
        ax.set_xlabel(name)
        ax.set_ylabel(label)
        ax.spines[["top", "right"]].set_visible(False)
        if by is not None:
            _value_bar(ax, by_name, (f"{by.min():.3g}", f"{by.max():.3g}"))
    return ax


def _of_others(count: int) -> str:
    return f"sum of {counted(count, 'other')}"


def _write_numbers(ax: "Axes", lengths: Tensor, spread: Tensor, places: Sequence[float]) -> None:
    """Writes the number of each bar beside its end, outside of its error bar."""
    largest = float(lengths.abs().max())
    for length, error, place in zip(lengths.tolist(), spread.tolist(), places, strict=True):
        side = 1 if length >= 0 else -1
        ax.annotate(
            number_text(length, largest),
            (length + side * error, place),
            (4 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=style.LABEL,
            color=style.ink(ax),
        )


def _finish(
    ax: "Axes", labels: Sequence[str], label: str, ends: tuple[float, float], zero: bool = True
) -> None:
    """Names the rows from top to bottom and the axis, and leaves room for numbers."""
    low, high = ends
    room = _ROOM * ((high - low) or 1.0)
    if zero:
        ax.axvline(0, color="gray", linewidth=0.8)
    ax.set_yticks(range(len(labels)), [_short(name) for name in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    both = low == high or not zero  # where no bar begins at 0, a number may stand on either side of it
    ax.set_xlim(low - room * (both or low != 0), high + room * (both or high != 0))
    ax.set_xlabel(label)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params("y", length=0)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."


def _value_bar(ax: "Axes", label: str, ends: tuple[str, str]) -> None:
    """A colour bar of the ranks of values."""
    from matplotlib import colormaps

    bar = color_bar(ax, label, (0.0, 1.0), colormaps[_VALUES])
    bar.set_ticks([0.0, 1.0], labels=list(ends))


def _ranks(values: Tensor) -> Tensor:
    """Values as shares of the way from the lowest to the highest in their order; equal ones are equal."""
    levels, which = values.unique(return_inverse=True)
    shares: Tensor = which.double() / max(len(levels) - 1, 1)
    return shares


def _offsets(values: Tensor, span: float) -> Tensor:
    """How far points stand above and below the middle of their row, so that they do not cover each other."""
    bins = ((values - values.min()) / span * 100).round().long()
    offsets = torch.zeros_like(values)
    densest = max(int(bins.bincount().max()), _POINTS)
    for one in bins.unique():
        members = (bins == one).nonzero()[:, 0]
        places = torch.arange(len(members), dtype=values.dtype)
        # 0, 1, -1, 2, -2, ...
        offsets[members] = (places + 1).div(2, rounding_mode="floor") * (1 - 2 * (places % 2)) / densest
    return offsets * 0.8
