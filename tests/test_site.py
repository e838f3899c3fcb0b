"""The pages of the documentation site: their Python blocks run as they stand, their links lead somewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from matplotlib import pyplot

from toumei.cnns import Pipeline

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"experiments.md", "reference", "gallery"}  # by the build
GUIDES = sorted(path for path in (DOCS / "guides").glob("*.md") if path.name not in MADE)
PAGES = [*DOCS.glob("*.md"), *GUIDES, *(DOCS / "about").glob("*.md")]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def few_steps(monkeypatch):
    """Pictures are optimized for three steps."""
    optimize = Pipeline.optimize
    monkeypatch.setattr(
        Pipeline,
        "optimize",
        lambda self, epochs=512, *rest, **more: optimize(self, min(epochs, 3), *rest, **more),
    )


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, few_steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), names)
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


def test_thumbnails_belong_to_experiments():
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert {path.stem for path in (DOCS / "thumbnails").iterdir()} <= scripts


@pytest.mark.skipif(not find_spec("sphinx"), reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "plot_gallery=0"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
