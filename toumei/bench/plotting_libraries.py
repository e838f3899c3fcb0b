"""The libraries that draw panels: matplotlib, and plotly where it is installed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..core.optional import require
from ..plots.statistics import color_limits, heat_map
from ..plots.style import GRAY, LABEL, POSITIVE, look, palette
from .plot_specs import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_MOST_LABELS = 24


DRAWN_HERE: WeakSet[Any] = WeakSet()  # figures that a run closes once they are kept


class PlottingLibrary(Protocol):
    """What draws panels."""

    def draw(self, panels: Sequence[Panel], title: str) -> Any:
        """Returns a figure."""


class MatplotlibWrapper:
    """Draws panels with matplotlib, in the look of the package.

    Example:
        >>> import torch
        >>> panel = Panel("lines", torch.rand(1, 4), ("norm",), title="stream", axes=("layer", "norm"))
        >>> MatplotlibWrapper().draw([panel], "A model").axes[0].get_title()
        'stream'
    """

    def draw(self, panels: Sequence[Panel], title: str) -> "Figure":
        """Returns a figure."""
        from matplotlib import pyplot

        from ..plots.shown_once import ShownOnce

        columns = min(_COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        with look():
            width, height = (4.2, 3.6) if panels[0].kind == "heat" else (6.0, 4.0)
            size = width * columns, height * rows + 0.4
            figure = pyplot.figure(figsize=size, layout="constrained", FigureClass=ShownOnce)
            places = figure.subplots(rows, columns, squeeze=False).flat
            for panel, ax in zip(panels, places, strict=False):
                _DRAW[panel.kind](panel, ax)
                ax.set_title(panel.title)
                ax.set(xlabel=panel.axes[0], ylabel=panel.axes[1])
            for ax in list(places)[len(panels) :]:
                ax.set_axis_off()
            figure.suptitle(title)
        DRAWN_HERE.add(figure)
        return figure


class PlotlyWrapper:
    """Draws panels with plotly, an extra: ``pip install toumei[plotly]``.

    Example:
        >>> library = PlotlyWrapper()  # of bench.set_plotting_library("plotly")
        >>> library.draw.__doc__.split(".")[0]
        'Returns a figure'
    """

    def draw(self, panels: Sequence[Panel], title: str) -> Any:
        """Returns a figure.

        Raises:
            MissingDependencyError: plotly is not installed.
        """
        subplots = require("plotly.subplots", "drawing with plotly", "plotly")
        objects = require("plotly.graph_objects", "drawing with plotly", "plotly")
        columns = min(_COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        figure = subplots.make_subplots(rows, columns, subplot_titles=[panel.title for panel in panels])
        for index, panel in enumerate(panels):
            place = {"row": index // columns + 1, "col": index % columns + 1}
            for trace in _traces(objects, panel):
                figure.add_trace(trace, **place)
            figure.update_xaxes(title_text=panel.axes[0], type="category", **place)
            figure.update_yaxes(title_text=panel.axes[1], **place)
            if panel.kind == "heat":
                figure.update_yaxes(type="category", autorange="reversed", **place)
        figure.update_layout(title=title, height=360 * rows + 60, width=380 * columns + 120)
        return figure


LIBRARIES: dict[str, type] = {"matplotlib": MatplotlibWrapper, "plotly": PlotlyWrapper}


def plotting_library(given: Any) -> PlottingLibrary:
    """Returns the library that a name, a class or an object means.

    Raises:
        ArgumentError: It is none.
    """
    kind = LIBRARIES.get(given, given) if isinstance(given, str) else given
    made: Any = kind() if isinstance(kind, type) else kind
    if not callable(getattr(made, "draw", None)):
        known = " or ".join(map(repr, LIBRARIES))
        raise ArgumentError(
            f"a plotting library is {known}, or something with draw(panels, title), got {shown(given)}"
        )
    library: PlottingLibrary = made
    return library


def _heat(panel: Panel, ax: "Axes") -> None:
    heat_map(panel.values, panel.rows, ax, label=panel.label, color=POSITIVE, limits=panel.limits)
    count = len(panel.columns)
    if 0 < count <= _MOST_LABELS:
        ax.set_xticks([place + 0.5 for place in range(count)], panel.columns, fontsize=LABEL)
        ax.tick_params("x", rotation=90 if max(map(len, panel.columns)) > 2 else 0)
    if len(panel.rows) > _MOST_LABELS:
        ax.set_yticks([])


def _lines(panel: Panel, ax: "Axes") -> None:
    colors = palette(len(panel.rows))
    for line, name, color in zip(panel.values, panel.rows, colors, strict=True):
        ax.plot(line.tolist(), "o-", markersize=3, label=name, color=color)
    if 0 < len(panel.columns) <= _MOST_LABELS:
        long = max(map(len, panel.columns)) > 2
        ax.set_xticks(range(len(panel.columns)), panel.columns, rotation=90 if long else 0)
    ax.legend()


def _spread(panel: Panel, ax: "Axes") -> None:
    for place, group in enumerate(panel.values):
        ax.scatter([place] * len(group), group.tolist(), s=14, color=POSITIVE, alpha=0.6, linewidths=0)
        ax.hlines(float(group.nanmedian()), place - 0.3, place + 0.3, color="black")
    ax.set_xticks(range(len(panel.rows)), panel.rows)


_DRAW = {"heat": _heat, "lines": _lines, "spread": _spread}


def _places(names: Sequence[str]) -> list[str]:
    """Names of different places, as plotly needs them: tokens that come several times get their number."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{number} {name}" for number, name in enumerate(names)]


def _traces(objects: Any, panel: Panel) -> list[Any]:
    if panel.kind == "heat":
        low, high = panel.limits or color_limits(panel.values)
        heat = objects.Heatmap(
            z=panel.values.tolist(),
            x=_places(panel.columns),
            y=_places(panel.rows),
            zmin=low,
            zmax=high,
            colorscale=[[0, GRAY if low < 0 else "white"], [-low / (high - low), "white"], [1, POSITIVE]],
            showscale=False,
        )
        return [heat]
    if panel.kind == "lines":
        return [
            objects.Scatter(x=_places(panel.columns), y=line.tolist(), name=name)
            for line, name in zip(panel.values, panel.rows, strict=True)
        ]
    return [
        objects.Box(y=group.tolist(), name=name, boxpoints="all")
        for group, name in zip(panel.values, panel.rows, strict=True)
    ]
