"""Figures that a notebook shows once, also where the last line of a cell returns them."""

import sys
from typing import Any

from matplotlib.figure import Figure


class ShownOnce(Figure):
    """A figure as matplotlib's, which is closed for pyplot as soon as a notebook has shown its picture.

    A cell shows what its last line returns, and after that every figure that pyplot holds. So a figure that
    a method returns would be shown twice. A backend without pictures, such as widgets, keeps its figures.

    Example:
        >>> from toumei.plots.style import drawing
        >>> with drawing(None) as ax:
        ...     type(ax.figure).__name__
        'ShownOnce'
    """

    def _ipython_display_(self) -> None:
        """Shows what a figure of matplotlib shows, once."""
        from matplotlib import pyplot

        ipython = sys.modules["IPython"]  # which calls this
        formatters = ipython.get_ipython().display_formatter.formatters
        shown: dict[str, Any] = {kind: made(self) for kind, made in formatters.items()}
        pictures = {kind: picture for kind, picture in shown.items() if picture is not None}
        metadata = {}
        for kind, picture in pictures.items():  # a picture may come with its size
            if isinstance(picture, tuple):
                pictures[kind], metadata[kind] = picture
        ipython.display.publish_display_data(pictures, metadata)
        if any(kind.startswith("image/") for kind in pictures):
            pyplot.close(self)
