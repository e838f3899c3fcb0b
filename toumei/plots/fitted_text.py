"""Headings that stay inside of their column, however narrow the axes become."""

import re
from math import inf
from typing import Any

from matplotlib.text import Text

_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[ _,:/.-])(?=\S)")  # within names in CamelCase, after marks
_WRAPPED = 0.8  # of its size, below which a heading is broken into two lines before it becomes smaller
# Letters have whole numbers of pixels, nearly, so that smaller ones do not shrink as they should.
_SPARE, _TRIES = 0.96, 5
_LEAST = 1.0  # points, because matplotlib draws no letters of none


class FittedText(Text):
    """A text that takes no more room than it is given: in smaller letters, and in two lines where it may.

    How much room there is, is known when a figure is drawn: layouts move axes, colour bars take from them.

    Args:
        x: Where it stands, in the data of the axes.
        y: The same.
        text: What is written.
        wide: How wide it may be, in the data of the axes.
        tall: How tall it may be; by default as tall as it is.
        lines: In how many lines at most, 1 or 2.
        look: What `matplotlib.text.Text` takes.

    Example:
        >>> from matplotlib import pyplot
        >>> figure, ax = pyplot.subplots(figsize=(1, 1))
        >>> name = ax.add_artist(FittedText(0.5, 1, "IntegratedGradients", 0.5, lines=2))
        >>> figure.draw_without_rendering()
        >>> name.get_text().split(), name.get_fontsize() < 10
        (['Integrated', 'Gradients'], True)
    """

    def __init__(
        self,
        x: float,
        y: float,
        text: str,
        wide: float = inf,
        tall: float = inf,
        lines: int = 1,
        **look: Any,
    ) -> None:
        super().__init__(x, y, text, clip_on=False, **look)
        self._size = float(self.get_fontsize())
        self._room, self._lines = (wide, tall), lines

    def set_text(self, s: Any) -> None:
        """Writes another text, which is fitted as well."""
        super().set_text(s)
        self._given = self.get_text()

    def set_fontsize(self, fontsize: Any) -> None:
        """Gives the letters another size, in which the text is written where there is room."""
        super().set_fontsize(fontsize)
        self._size = float(self.get_fontsize())

    def get_window_extent(self, renderer: Any = None, dpi: float | None = None) -> Any:
        """Returns where it is drawn, in pixels."""
        self._fit(renderer)
        return super().get_window_extent(renderer, dpi)

    def draw(self, renderer: Any) -> None:
        """Draws it."""
        self._fit(renderer)
        given = self._given
        super().draw(renderer)
        self._given = given  # matplotlib 3.10 sets the text while it draws it

    def _fit(self, renderer: Any) -> None:
        """Chooses lines and size of the letters for the room that there is now."""
        if self.axes is None or not self._given:
            return
        size, text = self._fitting(self._given, renderer), self._given
        if size < _WRAPPED * self._size and self._lines > 1 and (broken := _in_two(text)) != text:
            size, text = self._fitting(broken, renderer), broken
        self._show(text, max(size, _LEAST))

    def _fitting(self, text: str, renderer: Any) -> float:
        """The size of letters with which a text has room."""
        assert self.axes is not None
        (x0, y0), (x1, y1) = self.axes.transData.transform([(0, 0), (1, 1)])
        room = self._room[0] * abs(x1 - x0), self._room[1] * abs(y1 - y0)
        size = self._size
        for _ in range(_TRIES):
            self._show(text, size)
            box = super().get_window_extent(renderer)
            share = min(room[0] / max(box.width, 1.0), room[1] / max(box.height, 1.0))
            if share >= 1 or size <= _LEAST:
                break
            size *= _SPARE * float(share)
        return size

    def _show(self, text: str, size: float) -> None:
        if text != self.get_text():
            super().set_text(text)
        if size != self.get_fontsize():
            super().set_fontsize(size)


def _in_two(text: str) -> str:
    """A text in two lines of about the same length, if it has a place to break."""
    places = [found.start() for found in _BREAK.finditer(text)]
    if not places:
        return text
    middle = min(places, key=lambda place: max(len(text[:place].rstrip()), len(text) - place))
    return f"{text[:middle].rstrip()}\n{text[middle:]}"
