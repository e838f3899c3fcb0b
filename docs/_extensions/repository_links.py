"""Leads links out of docs/ to the repository on the web, and refuses those to files that do not exist."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

LINK = re.compile(r"(?<!!)(\[[^\[\]]*\])\((\.\./[^)#\s]*)(#[^)\s]*)?\)")


def rewrite(app: Sphinx, name: str, source: list[str]) -> None:
    """Replaces ``](../FILE)`` by the address of that file on the main branch."""
    page = Path(app.env.doc2path(name))

    def replaced(match: re.Match[str]) -> str:
        target = (page.parent / match[2]).resolve()
        root = Path(app.srcdir).parent.resolve()
        if target.is_relative_to(app.srcdir):
            return match[0]
        if not target.exists():
            raise ExtensionError(f"{page} links to {match[2]}, which does not exist")
        kind = "tree" if target.is_dir() else "blob"
        address = app.config.html_theme_options["source_repository"]
        return f"{match[1]}({address}{kind}/main/{target.relative_to(root)}{match[3] or ''})"

    source[0] = LINK.sub(replaced, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the step above to the build."""
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True}
