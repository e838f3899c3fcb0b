"""Pages and pieces of HTML that need no other file, and that can be read on white and on dark."""

import base64
import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.checks import check_no_nan, checked
from ..core.errors import ArgumentError, ShapeError
from ..core.files import atomic_write
from ..core.kinds import shown
from ..core.notebooks import TURNS, escaped
from ..core.summaries import counted
from .frames import OUTLINE, pale
from .pixels import GAP, columns_of, in_range, montage, to_pil
from .tokens import shade

_ESCAPED_TURN = re.compile(rf"(?<!\\)((?:\\\\)*)\\u({'|'.join(f'{code:04x}' for code in TURNS)})")

_LEAST_HEIGHT = 128  # pixels of a small picture on a page

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --line: #ccc;
  --chip: #eee; --chip-active: #ccc; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191c; --ink: #e4e4e4; --line: #555;
    --chip: #333; --chip-active: #555; }
}
body { margin: 24px; font: 15px/1.5 system-ui, sans-serif; background: var(--paper); color: var(--ink); }
h1 { font-size: 20px; margin: 0; }
h2 { font-size: 17px; }
h3 { font-size: 15px; }
"""


@checked
def page(
    title: str, body: str, *, summary: str = "", style: str = "", script: str = "", data: Any = None
) -> str:
    """Returns a page of HTML that needs no other file.

    The colours ``--paper``, ``--ink``, ``--line``, ``--chip`` and ``--chip-active`` are
    there for the style; they follow the reader's choice of a light or a dark page.

    Args:
        title: The title of the page, also its heading.
        body: HTML. ``<!--heading-->`` in it is where the heading goes; by default it comes first.
        summary: A line of text below the heading.
        style: CSS.
        script: JavaScript, which finds the data as ``data``.
        data: What JSON can hold.

    Raises:
        ArgumentError: JSON cannot hold the data.

    Example:
        >>> text = page("A <page>", "<p>Text</p>", data=["</script>"], script="console.log(data[0]);")
        >>> "<title>A &lt;page&gt;</title>" in text, text.count("</script>")
        (True, 1)
    """
    heading = f"<h1>{escaped(title)}</h1>" + (f"\n<div>{escaped(summary)}</div>" if summary else "")
    body = body if "<!--heading-->" in body else f"<!--heading-->\n{body}"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escaped(title)}</title>",
        f"<style>{_STYLE}{style}</style>",
        "</head>",
        "<body>",
        body.replace("<!--heading-->", heading),
    ]
    if script:
        lines.append(f"<script>\nconst data = {script_data(data)};\n{script}\n</script>")
    return "\n".join([*lines, "</body>", "</html>", ""])


@checked
def save_page(text: str, path: str | Path) -> None:
    """Writes a page, and its folder if need be. The file is written whole or not at all.

    Args:
        text: The page.
        path: The file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_page("<p>Hello</p>", f"{folder}/page.html")
        ...     (Path(folder) / "page.html").read_text()
        '<p>Hello</p>'
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


@checked
def framed(text: str, height: int = 620) -> str:
    """Returns a page in a frame that can stand in a notebook; pages in frames do not disturb each other.

    Args:
        text: The page.
        height: Height of the frame in pixels.

    Example:
        >>> framed("<p>Text</p>")[:45]
        '<iframe srcdoc="&lt;p&gt;Text&lt;/p&gt;" styl'
    """
    return (
        f'<iframe srcdoc="{escape(text)}" style="width:100%;height:{height}px;border:1px solid #888;'
        f'border-radius:6px" sandbox="allow-scripts"></iframe>'
    )


@checked
def script_data(data: Any) -> str:
    r"""Returns data as JSON that can stand in a script: no text in it can end the script or turn the page.

    Raises:
        ArgumentError: JSON cannot hold it, such as a tensor.

    Example:
        >>> script_data(["</script>", 0.5])
        '["\\u003c/script>", 0.5]'
    """
    try:
        text = json.dumps(data).replace("<", "\\u003c")
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            f"the data of a page are what JSON can hold, got {shown(data)}: {error}"
        ) from error
    return _ESCAPED_TURN.sub(r"\1\\ufffd", text)


@checked
def data_uri(image: Tensor) -> str:
    """Returns a picture (3 or 4, H, W) in [0, 1] as the address of a PNG that is in the address itself.

    Example:
        >>> import torch
        >>> data_uri(torch.zeros(3, 2, 2))[:30]
        'data:image/png;base64,iVBORw0K'
    """
    buffer = io.BytesIO()
    to_pil(in_range(image)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@checked
def picture(image: Tensor, style: str = "") -> str:
    """Returns an ``<img>`` of a picture (3 or 4, H, W) in [0, 1].

    A picture whose edge is near white has a thin grey frame.

    Args:
        image: The picture.
        style: CSS of the picture.

    Example:
        >>> import torch
        >>> picture(torch.rand(3, 4, 4))[:31]
        '<img src="data:image/png;base64'
    """
    if "border" not in style and pale(image[None])[0]:
        style = f"{style};{OUTLINE}" if style else OUTLINE
    return _img(image, style)


def _img(image: Tensor, style: str) -> str:
    given = f' style="{escape(style)}"' if style else ""
    return f'<img src="{data_uri(image)}"{given}>'


@checked
def figure(images: Tensor, caption: str) -> str:
    """Returns a ``<figure>`` of a batch of pictures (N, C, H, W) in [0, 1] with a caption.

    Small pictures are shown larger, so that each is at least 128 pixels high. Those whose edge is near white
    have a thin grey frame.

    Args:
        images: The pictures.
        caption: What stands below.

    Example:
        >>> import torch
        >>> "width:256px" in figure(torch.zeros(1, 1, 8, 16), "one")
        True
    """
    grid = montage(images)
    width = grid.shape[-1] * max(1, _LEAST_HEIGHT // images.shape[-2])
    look = f"width:{width}px;max-width:100%"
    frames = "".join(_frame(images, index, *grid.shape[-2:]) for index in _pale_ones(images))
    if frames:
        shown = _img(grid, "display:block;width:100%;image-rendering:pixelated")
        shown = f'<div style="position:relative;{look}">{shown}{frames}</div>'
    else:
        shown = _img(grid, f"{look};image-rendering:pixelated")
    return f"<figure>{shown}<figcaption>{escaped(caption)}</figcaption></figure>"


def _pale_ones(images: Tensor) -> list[int]:
    return [index for index, framed in enumerate(pale(images)) if framed]


def _frame(images: Tensor, index: int, tall: int, wide: int) -> str:
    """A frame over the place of a picture in a montage (tall, wide), in percent of it."""
    height, width = images.shape[-2:]
    row, column = divmod(index, columns_of(images))
    left, top = column * (width + GAP) / wide, row * (height + GAP) / tall
    place = {"left": left, "top": top, "width": width / wide, "height": height / tall}
    where = "".join(f"{name}:{100 * share:.6g}%;" for name, share in place.items())
    return f'<span style="position:absolute;{where}{OUTLINE}"></span>'


@checked
def token_spans(tokens: Sequence[str], values: Tensor, largest: float | None = None) -> str:
    """Returns tokens in the colours of their contributions; the strongest has the full colour.

    The number of a token is shown while the pointer is on it.

    Args:
        tokens: The tokens.
        values: Their contributions (M,).
        largest: The magnitude with the full colour, to compare several texts; by default the largest here.

    Example:
        >>> import torch
        >>> token_spans(["<s>"], torch.tensor([0.25]))[:40]
        '<span title="0.25" style="background:rgb'
    """
    if values.dim() != 1 or len(values) != len(tokens) or not tokens:
        raise ShapeError(
            f"expected a number for each of {counted(len(tokens), 'token')}, got {tuple(values.shape)}"
        )
    check_no_nan("values", values)
    largest = largest or float(values.abs().max()) or 1.0
    spans = []
    for token, value in zip(tokens, values.tolist(), strict=True):
        color = ",".join(map(str, shade(value / largest)))
        style = f"background:rgb({color});color:black;padding:3px 2px;margin:0 1px"
        spans.append(f'<span title="{value:.4g}" style="{style}">{escaped(token)}</span>')
    return "".join(spans)
