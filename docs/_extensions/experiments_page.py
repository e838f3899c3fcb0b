"""Writes the page of all experiments: a picture, the command, minutes, and what one should see."""

import ast
import re
from pathlib import Path

from sphinx.application import Sphinx

ROW = re.compile(r"^\| `(python experiments/(\w+)\.py[^`]*)` \| ([^|]+) \| (.+) \|$", re.MULTILINE)
HEAD = """# Experiments

Each script runs offline as it stands, from the root of the project, and says with `--help` what can be
changed, such as the network, the texts or the photographs.

"""


def title(path: Path) -> str:
    """The first line of a script's docstring, without its full stop."""
    return ast.get_docstring(ast.parse(path.read_text())).split("\n")[0].rstrip(".")


def entry(docs: Path, command: str, name: str, minutes: str, seen: str) -> str:
    """The section of an experiment."""
    seen = seen.replace("](../docs/", "](../")
    thumbnail = docs / "thumbnails" / f"{name}.jpg"
    picture = (
        f"```{{image}} ../thumbnails/{name}.jpg\n:alt: {name}\n:class: thumbnail\n```\n\n"
        if thumbnail.exists()
        else ""
    )
    source = f"[`experiments/{name}.py`](../../experiments/{name}.py)"
    unit = "minute" if minutes.strip() == "1" else "minutes"
    script = f"```bash\n{command}\n```\n\n{seen}\n\n{source}, {minutes.strip()} {unit} on 2 cores.\n"
    return f"## {title(docs.parent / 'experiments' / f'{name}.py')}\n\n{picture}{script}\n"


def write_page(app: Sphinx) -> None:
    """Writes guides/experiments.md from the table in experiments/README.md, if it changed."""
    docs = Path(app.srcdir)
    table = (docs.parent / "experiments" / "README.md").read_text()
    text = HEAD + "\n".join(entry(docs, *row) for row in ROW.findall(table))
    page = docs / "guides" / "experiments.md"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the step above to the build."""
    app.connect("builder-inited", write_page, priority=100)
    return {"parallel_read_safe": True}
