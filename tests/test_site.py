"""The pages of the documentation site: their Python blocks run as they stand, their links lead somewhere."""

import importlib
import inspect
import json
import math
import pkgutil
import re
import runpy
import subprocess
import sys
from enum import Enum
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from matplotlib import pyplot

import toumei
from toumei.cnns import Pipeline

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"experiments.md", "reference", "gallery"}  # by the build
GUIDES = sorted(path for path in (DOCS / "guides").glob("*.md") if path.name not in MADE)
PAGES = [*DOCS.glob("*.md"), *GUIDES, *(DOCS / "about").glob("*.md")]
NOTEBOOKS = SimpleNamespace(**runpy.run_path(str(DOCS / "notebooks" / "make.py")))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
MADE_BY_THE_LIBRARY = ("Tracker", "KVResults")
SMALLER = {
    ":224, 120:344": ":48, 120:168",
    "max_iter=30": "max_iter=5",
    "max_iter=20": "max_iter=5",
    "rows[:30]": "rows[:8]",
    "samples=100)(inputs[:30]": "samples=20)(inputs[:30]",
    "images[:3], class_names": "images[:1], class_names",
    "samples=20)": "samples=4)",
    "range(start, start + 32)": "range(start, start + 4)",
    "range(32))[0]": "range(12))[0]",
    'layout="pca", steps=32': 'layout="pca", steps=4',
}
"""What pages run on is made smaller in the tests."""


class SitePage(HTMLParser):
    """What a page of the site links to, and the places in it."""

    def __init__(self, text):
        super().__init__()
        self.places, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places.add(found.get("id"))
        self.links += [found[name] for name in ("href", "src") if found.get(name) and tag != "use"]


@pytest.fixture
def few_steps(monkeypatch):
    """Pictures are optimized for three steps."""
    optimize = Pipeline.optimize
    monkeypatch.setattr(
        Pipeline,
        "optimize",
        lambda self, epochs=512, *rest, **more: optimize(self, min(epochs, 3), *rest, **more),
    )


@pytest.mark.parametrize("page", [page for page in GUIDES if page.stem != "tour"], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, few_steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        above = "\n" * text.count("\n", 0, block.start(1))  # so that functions find their source
        code = re.sub("|".join(map(re.escape, SMALLER)), lambda found: SMALLER[found[0]], block[1])
        exec(compile(above + code, str(page), "exec"), names)
    pyplot.close("all")


def test_each_of_seven_questions_has_an_answer_of_at_most_ten_lines():
    page = (DOCS / "guides" / "ten_lines.md").read_text()
    lines = [len([line for line in block.splitlines() if line]) for block in BLOCK.findall(page)]
    assert page.count("\n## ") == 7 and max(lines) <= 10, lines


@pytest.mark.parametrize("name", NOTEBOOKS.SOURCES)
def test_a_notebook_has_the_cells_of_its_source_and_what_they_show(name):
    notebook = json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text())
    written = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert written == list(NOTEBOOKS.cells(NOTEBOOKS.SOURCES[name]))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert {"display_data", "stream", "execute_result"} >= {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", ()) for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)


def assert_same_words_and_numbers(printed, shown):
    """Numbers may differ by rounding, and names of runs and hashes of code are of their day."""
    printed, shown = (re.sub(r"\b[0-9a-f-]{12,}", "@", text) for text in (printed, shown))
    number = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
    assert number.sub("#", printed) == number.sub("#", shown)
    pairs = zip(number.findall(printed), number.findall(shown), strict=True)
    assert all(math.isclose(float(one), float(other), rel_tol=0.02, abs_tol=1e-4) for one, other in pairs), (
        printed,
        shown,
    )


@pytest.mark.parametrize("name", NOTEBOOKS.SOURCES)
def test_the_cells_of_a_notebook_run_and_print_what_it_shows(name, few_steps, tmp_path, monkeypatch, capsys):
    shown = json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    monkeypatch.chdir(tmp_path)
    names = {"__name__": name}
    for number, (kind, text) in enumerate(NOTEBOOKS.cells(NOTEBOOKS.SOURCES[name])):
        if kind == "code":
            cell = tmp_path / f"cell_{number}.py"  # where functions find their source
            cell.write_text(text)
            capsys.readouterr()
            exec(compile(text, str(cell), "exec"), names)
            streams = [output["text"] for output in shown[number]["outputs"] if "text" in output]
            assert_same_words_and_numbers(capsys.readouterr().out, "".join(map("".join, streams)))
    assert pyplot.get_fignums()
    pyplot.close("all")


def test_files_that_the_pages_link_to_exist():
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
    for page in PAGES:
        for target in link.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
            if not target.startswith(("https:", "http:")) and not MADE & set(Path(target).parts):
                assert (page.parent / target).exists(), (page.name, target)


def test_every_guide_has_its_place_in_the_contents():
    contents = (DOCS / "index.md").read_text()
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert "/" not in name or f"\n{name}\n" in contents, name


def public_entries():
    """From the name to each public class and function of toumei."""
    packages = (one.name for one in pkgutil.walk_packages(toumei.__path__, "toumei.") if one.ispkg)
    for package in map(importlib.import_module, packages):
        for name in getattr(package, "__all__", ()):
            entry = getattr(package, name)
            if inspect.isclass(entry) or inspect.isroutine(entry):
                yield f"{package.__name__}.{name}", entry


def text_of(entry):
    """The docstring of an entry, with those of its base classes and of what has the same arguments."""
    kinds = entry.__mro__ if inspect.isclass(entry) else (entry,)
    texts = [one.__doc__ or "" for one in kinds if one.__module__.startswith("toumei.")]
    for name in re.findall(r"rguments(?: and errors)? are those of `(\w+)`", texts[0]):
        texts.append(getattr(sys.modules[entry.__module__], name).__doc__)
    return "\n".join(texts)


def test_every_public_name_has_an_example_and_says_what_its_arguments_are():
    missing = []
    for name, entry in public_entries():
        if ">>>" not in (entry.__doc__ or ""):
            missing.append(f"{name} has no example")
        named = inspect.isclass(entry) and issubclass(entry, Enum | str)
        if entry.__name__ in MADE_BY_THE_LIBRARY or named:
            continue
        text, kinds = text_of(entry), (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        for parameter in inspect.signature(entry).parameters.values():
            public = parameter.kind not in kinds and not parameter.name.startswith("_")
            if public and not re.search(rf"\b{parameter.name}\b", text):
                missing.append(f"{name} does not mention {parameter.name}")
    assert not missing, "\n".join(missing)


def test_thumbnails_belong_to_experiments():
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert {path.stem for path in (DOCS / "thumbnails").iterdir()} <= scripts


@pytest.mark.skipif(not find_spec("sphinx"), reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "plot_gallery=0"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    site = (tmp_path / "html").resolve()
    pages = {path: SitePage(path.read_text("utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = (
                target not in pages or not parts.fragment or unquote(parts.fragment) in pages[target].places
            )
            assert target.exists() and there, (str(path.relative_to(site)), link)
