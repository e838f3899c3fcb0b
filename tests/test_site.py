"""The pages of the documentation site: their Python blocks run as they stand, their links lead somewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from toumei.cnns import Pipeline

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TAUGHT = [DOCS / "index.md", DOCS / "tour.md", DOCS / "names.md", *sorted((DOCS / "guides").glob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    from matplotlib import pyplot

    optimize = Pipeline.optimize
    monkeypatch.setattr(
        Pipeline,
        "optimize",
        lambda self, epochs=512, *rest, **more: optimize(self, min(epochs, 3), *rest, **more),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = {"__name__": page.stem}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), names)
    pyplot.close("all")


def test_files_that_the_pages_link_to_exist():
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
    made = {"experiments.md", "reference", "gallery"}  # by the build
    for page in [*DOCS.glob("*.md"), *(DOCS / "guides").glob("*.md")]:
        for target in link.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
            if not re.match(r"https?:|mailto:", target) and not made & set(Path(target).parts):
                assert (page.parent / target).exists(), (page.name, target)


def test_every_page_has_its_place_in_the_contents():
    contents = (DOCS / "index.md").read_text()
    named = set(re.findall(r"^([\w/]+)$", contents, re.MULTILINE))
    for page in [*DOCS.glob("*.md"), *(DOCS / "guides").glob("*.md")]:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name in named | {"index", "experiments"} or "/" not in name, name


def test_thumbnails_belong_to_experiments():
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert {path.stem for path in (DOCS / "thumbnails").iterdir()} <= scripts


@pytest.mark.skipif(not find_spec("sphinx"), reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "plot_gallery=0", "-D"]
    done = subprocess.run(
        [*command, "viewcode_enable_epub=0", str(DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
