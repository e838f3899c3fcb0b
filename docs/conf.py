"""The settings of the documentation site: ``make docs`` writes it to docs/_build/html."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_extensions")]
os.environ.setdefault("MPLBACKEND", "Agg")

from toumei import __version__  # noqa: E402

project = "toumei"
author = "The toumei developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "experiments_page",
    "repository_links",
    "reference_pages",
]
exclude_patterns = ["_build", "_extensions", "examples", "notebooks", "**/*.ipynb"]
nitpicky = True
# What signatures name of other packages, and types of toumei that are not public, are no links.
nitpick_ignore_regex = [("py:.*", r"(?!toumei\.).*"), ("py:(class|obj)", r"toumei\..*")]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\w+\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 0,
    "image_scrapers": ("matplotlib",),
    "capture_repr": ("_repr_html_",),
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"toumei {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/toumei/toumei/",
    "source_branch": "main",
    "source_directory": "docs/",
}
