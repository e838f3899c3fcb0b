"""Axes of a plot that a notebook shows by their figure alone."""

from matplotlib.axes import Axes


class QuietAxes(Axes):
    """Axes as matplotlib's, below whose figure a notebook writes no ``<Axes: ...>``.

    A cell shows what its last line returns, and every figure that is new. For the axes that a plot returns
    the figure is enough.

    Example:
        >>> from toumei.plots.style import drawing
        >>> with drawing(None) as ax:
        ...     type(ax).__name__
        'QuietAxes'
    """

    def _ipython_display_(self) -> None:
        """Shows nothing more than the figure."""
