"""How objects are shown in notebooks: their text, and the picture of their `plot`."""

import base64
import io
import warnings
from html import escape
from typing import Any

from .optional import require

_MOST_TEXT = 20_000  # characters
_MOST_PICTURE = 1_000_000  # bytes of a PNG
_MOST_INCHES = 40  # of the longer side of a figure
_MOST_ARTISTS = 2500  # letters, lines and marks of a figure: about two seconds of drawing
_DPI = 90

# characters that turn the direction of the text after them
TURNS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))


def escaped(text: str) -> str:
    r"""Returns text as HTML; characters that turn the direction of the text after them become U+FFFD.

    Example:
        >>> escaped("<b> & c\u202ed")
        '&lt;b&gt; &amp; c�d'
    """
    return escape(text.translate(dict.fromkeys(TURNS, "\ufffd")))


class Displayed:
    """An object that a notebook shows as its text, below it the figure of its `plot` if it has one.

    The figure is a PNG in the page itself. A picture that cannot be drawn or is very large is left out. A
    subclass whose `plot` needs arguments defines `_drawn`.

    Example:
        >>> class Text(Displayed):
        ...     def __repr__(self):
        ...         return "a < b"
        >>> Text()._repr_html_()
        '<div><pre style="white-space:pre-wrap">a &lt; b</pre></div>'
    """

    def _repr_html_(self) -> str:
        text = str(self)
        if len(text) > _MOST_TEXT:
            text = f"{text[:_MOST_TEXT]} ..."
        address = _png_of(self)
        picture = (
            f'<img src="{address}" style="max-width:100%" alt="{type(self).__name__}">' if address else ""
        )
        return f'<div><pre style="white-space:pre-wrap">{escaped(text)}</pre>{picture}</div>'

    def _drawn(self) -> Any:
        """Returns the axes or the figure to show, None without a picture."""
        plot = getattr(self, "plot", None)
        return None if plot is None else plot()


def _png_of(shown: Displayed) -> str | None:
    """The picture of an object as the address of a PNG; None where there is none.

    A notebook shows an object after the user's code has ended, so an error here would only hide its text.
    """
    try:
        pyplot = require("matplotlib.pyplot", "a picture in a notebook")
    except ImportError:
        return None
    before = set(pyplot.get_fignums())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = shown._drawn()
            return None if drawn is None else _address(drawn.figure)
    except Exception:
        return None
    finally:
        # an open figure would be shown a second time, below the cell
        for number in set(pyplot.get_fignums()) - before:
            pyplot.close(number)


def _address(figure: Any) -> str | None:
    """A figure as the address of a PNG, None if it takes long to draw or is very large."""
    if max(figure.get_size_inches()) > _MOST_INCHES or len(figure.findobj()) > _MOST_ARTISTS:
        return None
    data = png(figure, _DPI)
    return None if len(data) > _MOST_PICTURE else f"data:image/png;base64,{base64.b64encode(data).decode()}"


def png(figure: Any, dpi: float, tight: bool = False) -> bytes:
    """Returns a figure as the content of a PNG file, `tight` without the empty margin around it."""
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=dpi, bbox_inches="tight" if tight else None)
        return stream.getvalue()
