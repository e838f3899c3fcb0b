"""Every Python block of the README runs, with the download replaced by a server on this machine."""

import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from toumei.cnns import Pipeline
from toumei.models import Inception5h, inception5h
from toumei.models.download import git_blob_id

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Serves weights for Inception5h, with its URL and id, and an empty cache to download into."""
    served = tmp_path / "served"
    served.mkdir()
    torch.save(Inception5h().state_dict(), served / "inception5h.pth")
    monkeypatch.setattr(inception5h, "BLOB_ID", git_blob_id(served / "inception5h.pth"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served)) as server:
        monkeypatch.setattr(inception5h, "URL", f"http://127.0.0.1:{server.server_port}/inception5h.pth")
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield
        server.shutdown()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n\n")[0][-40:])
def test_a_block_runs_as_it_stands(block, offline, tmp_path, monkeypatch):
    from matplotlib import pyplot

    optimize = Pipeline.optimize
    monkeypatch.setattr(
        Pipeline,
        "optimize",
        lambda self, epochs=512, *rest, **more: optimize(self, min(epochs, 3), *rest, **more),
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    pyplot.close("all")


def test_the_commands_and_files_of_the_readme_exist():
    root = Path(__file__).parents[1]
    assert len(BLOCKS) >= 4
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (root / link).exists(), link
    assert "make test" in (root / ".ci" / "run").read_text()


def test_the_experiments_are_described():
    folder = Path(__file__).parents[1] / "experiments"
    described = (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("*.py") if path.name not in described] == []
