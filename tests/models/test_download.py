"""Downloads, against a server on this machine: only the right file ever stays in the cache."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from toumei.core.errors import DownloadError
from toumei.models import Inception5h, inception5h
from toumei.models.download import fetch, git_blob_id

GOOD = bytes(range(256)) * 1000
GOOD_ID = hashlib.sha1(b"blob 256000\0" + GOOD).hexdigest()


class Server(HTTPServer):
    """Serves what is in `files`: the path, the length it claims, the bytes it sends. Counts requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/good": (len(GOOD), GOOD), "/cut": (len(GOOD), GOOD[:70_000]), "/wrong": (5, b"wrong")}
        self.requests = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        length, body = self.server.files.get(self.path, (0, b""))
        self.send_response(200 if length else 404)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path / "checkpoints"


def gone() -> str:
    """The address of a server that is no longer there."""
    with Server() as server:
        return server.url("good")


def test_a_good_file_is_fetched_once(server: Server, cache: Path) -> None:
    path = fetch(server.url("good"), GOOD_ID, "net.pth", progress=False)
    assert path == cache / "net.pth"
    assert path.read_bytes() == GOOD
    assert fetch(server.url("good"), GOOD_ID, "net.pth", progress=False) == path
    assert server.requests == 1
    assert list(cache.iterdir()) == [path]


def test_the_name_comes_from_the_url(server: Server, cache: Path) -> None:
    server.files["/good?raw=true"] = server.files["/good"]
    assert fetch(server.url("good?raw=true"), GOOD_ID, progress=False) == cache / "good"


@pytest.mark.parametrize("name", ["cut", "wrong", "missing"])
@pytest.mark.parametrize("cached", [False, True])
def test_no_bad_file_stays_in_the_cache(server: Server, cache: Path, name: str, cached: bool) -> None:
    if cached:
        cache.mkdir()
        (cache / "net.pth").write_bytes(b"old")
    with pytest.raises(DownloadError) as caught:
        fetch(server.url(name), GOOD_ID, "net.pth", progress=False)
    assert {"cut": "70000 bytes", "wrong": "5 bytes", "missing": "404"}[name] in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_server_that_is_gone_is_named_with_the_ways_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = gone()
    with pytest.raises(DownloadError) as caught:
        fetch(url, GOOD_ID, "net.pth", progress=False)
    for part in (url, str(cache / "net.pth"), "weights=PATH"):
        assert part in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_good_cached_file_needs_no_server(cache: Path) -> None:
    cache.mkdir()
    (cache / "net.pth").write_bytes(GOOD)
    assert fetch(gone(), GOOD_ID, "net.pth", progress=False) == cache / "net.pth"


def test_a_wrong_cached_file_is_replaced(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "net.pth").write_bytes(GOOD[:-1])
    assert fetch(server.url("good"), GOOD_ID, "net.pth", progress=False).read_bytes() == GOOD
    assert server.requests == 1


def test_an_interrupt_leaves_nothing_behind(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(bar: object, count: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.hub.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("good"), GOOD_ID, "net.pth", progress=False)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(server: Server, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="checkpoints"):
        fetch(server.url("good"), GOOD_ID, "net.pth", progress=False)


def test_progress_is_shown_on_request(
    server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(server.url("good"), GOOD_ID, "silent.pth", progress=False)
    assert capsys.readouterr().err == ""
    fetch(server.url("good"), GOOD_ID, "shown.pth")
    assert "100%" in capsys.readouterr().err


def test_the_id_is_gits(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert git_blob_id(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    (tmp_path / "file").write_bytes(GOOD)
    assert git_blob_id(tmp_path / "file") == GOOD_ID


def test_pretrained_inception_is_fetched_verified_and_loaded(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Inception5h().state_dict()
    torch.save(weights, tmp_path / "file")
    body = (tmp_path / "file").read_bytes()
    server.files["/inception5h.pth"] = (len(body), body)
    monkeypatch.setattr(inception5h, "URL", server.url("inception5h.pth"))
    monkeypatch.setattr(inception5h, "BLOB_ID", git_blob_id(tmp_path / "file"))
    for _ in range(2):
        loaded = Inception5h(pretrained=True, progress=False).state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    assert server.requests == 1


def test_pretrained_inception_offline_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = gone()
    monkeypatch.setattr(inception5h, "URL", url)
    with pytest.raises(DownloadError) as caught:
        Inception5h(pretrained=True, progress=False)
    for part in (url, str(cache / inception5h.FILENAME), "weights=PATH"):
        assert part in str(caught.value)
