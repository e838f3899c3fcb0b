"""Writes the notebooks of this folder with their outputs: the tour, and the examples of the gallery.

    python docs/notebooks/make.py
    python docs/notebooks/make.py tour vision

The text and the code are those of the page or the script, so that each is written in one place. It needs
``pip install toumei[docs]``; `tests/test_site.py` compares and runs them.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
SOURCES = {
    "tour": HERE.parent / "guides" / "tour.md",
    "vision": HERE.parent / "examples" / "vision.py",
    "attribution": HERE.parent / "examples" / "attribution.py",
    "editing": HERE.parent / "examples" / "editing.py",
    "workbench": HERE.parent / "examples" / "transformer.py",
    "operations": HERE.parent / "examples" / "operations.py",
    "modularity": HERE.parent / "examples" / "modularity.py",
    "bench": HERE.parent / "examples" / "bench.py",
}
SITE = "https://github.com/toumei/toumei/blob/main/docs/guides/"


def cells(source: Path) -> Iterator[tuple[str, str]]:
    """The kind, ``"markdown"`` or ``"code"``, and the text of each cell of a page or a script."""
    text = source.read_text()
    if source.suffix == ".md":
        for number, part in enumerate(re.split(r"```python\n(.*?)```", text, flags=re.DOTALL)):
            part = part.strip() if number % 2 else re.sub(r"\]\((?!http)", f"]({SITE}", part.strip())
            if part:
                yield ("code" if number % 2 else "markdown"), part
        return
    title, rest = re.fullmatch(r'"""\n(.*?)"""\n(.*)', text, re.DOTALL).groups()
    first, _, described = title.split("\n", 2)
    yield "markdown", f"# {first}\n\n{described.strip()}"
    for number, part in enumerate(re.split(r"^# %%\n", rest, flags=re.MULTILINE)):
        comment, code = (
            re.fullmatch(r"((?:#[^\n]*\n)*)(.*)", part, re.DOTALL).groups() if number else ("", part)
        )
        if comment:
            yield "markdown", re.sub("^# ?", "", comment, flags=re.MULTILINE).strip().replace("``", "`")
        yield "code", code.strip()


def shows_something(output: Any) -> bool:
    """Whether an output is neither a progress bar nor the axes or the legend that a plot returns."""
    if output["output_type"] == "stream":
        return output["name"] == "stdout"
    return not output["data"].get("text/plain", "").startswith(("<Axes", "<matplotlib"))


def make(name: str) -> None:
    """Runs one notebook and writes it with what it shows."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    make_cell = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    notebook.cells = [
        make_cell[kind](text, id=f"{name}-{number}")
        for number, (kind, text) in enumerate(cells(SOURCES[name]))
    ]
    with TemporaryDirectory() as folder:  # for the files that cells write
        where = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", record_timing=False, resources=where
        )
        client.execute()
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if shows_something(output)]
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(notebook, HERE / f"{name}.ipynb")


if __name__ == "__main__":
    os.environ.pop("MPLBACKEND", None)  # figures are shown in the cells
    for chosen in sys.argv[1:] or SOURCES:
        make(chosen)
