"""A download ends, stays in its folder, and leaves the right file or none."""

import hashlib
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_whole_files import in_child

from toumei.cnns.parameterization.magnitude import load_magnitude
from toumei.core.errors import ArgumentError, DownloadError, ToumeiError
from toumei.models import download, facts_gpt
from toumei.models.download import fetch, load_state_dict

DATA = bytes(range(256)) * 40
ID = hashlib.sha1(b"blob 10240\0" + DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the data: at once, with a stop in the middle, in drops, without a length, or from elsewhere."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if "moved" in self.path:
            self.send_response(302)
            self.send_header(
                "Location",
                "file:///etc/passwd"
                if "away" in self.path
                else "/net.pth"
                if "around" not in self.path
                else self.path,
            )
            self.end_headers()
            return
        self.send_response(200)
        if "unknown" not in self.path and "endless" not in self.path:
            self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        try:
            if "stalled" in self.path:
                self.wfile.write(DATA[:5000])
                self.wfile.flush()
                time.sleep(1.5)
            elif "drops" in self.path:
                for byte in DATA:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)
            elif "endless" in self.path:
                while True:
                    self.wfile.write(DATA)
            else:
                self.wfile.write(DATA[:1000] if "short" in self.path else DATA)
        except OSError:
            pass


@pytest.fixture(scope="module")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache so deep that no name gets out of the outer folder, and little patience."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "a" / "b" / "c"))
    monkeypatch.setattr(download, "_SILENCE", 0.4)
    return tmp_path / "a" / "b" / "c" / "checkpoints"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["stalled.pth", "drops.pth"])
def test_a_server_that_stops_sending_ends_in_an_error(address, cache, name):
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="weights=PATH"):
        fetch(f"{address}/{name}", ID, progress=False)
    assert time.monotonic() - begun < 10 and files(cache) == []


@pytest.mark.parametrize("name", ["endless.pth", "short.pth", "moved-around.pth"])
def test_a_server_that_never_ends_or_sends_half_or_leads_in_a_circle_is_an_error(
    address, cache, name, monkeypatch
):
    monkeypatch.setattr(download, "_LARGEST", 10**6)
    with pytest.raises(DownloadError, match="weights=PATH"):
        fetch(f"{address}/{name}", ID, progress=False)
    assert files(cache) == []


def test_a_full_disk_and_a_kill_in_the_middle_leave_no_file(address, cache, small_disk, monkeypatch):
    with small_disk(2000), pytest.raises(DownloadError, match=r"net\.pth"):
        fetch(f"{address}/net.pth", ID, progress=False)
    monkeypatch.setattr(download, "_verify", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
    assert in_child(lambda: fetch(f"{address}/net.pth", ID, progress=False)) == -signal.SIGKILL
    assert files(cache) == []


def test_a_server_that_accepts_and_is_silent_ends_in_an_error(cache):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DownloadError, match="timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth", ID, progress=False)
    assert files(cache) == []


def test_patience_is_in_seconds():
    source = Path(download.__file__).read_text()
    assert "_SILENCE = 20.0" in source


@pytest.mark.parametrize(
    "url", ["", "not an address", "net.pth", "ftp://127.0.0.1/x", "http:///x", "http://[/x", None]
)
def test_what_is_no_address_is_refused(url, tmp_path):
    with pytest.raises(ToumeiError):
        fetch(url, ID, progress=False)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../x", "../../x", "a/../../x", "..", "", ".", "/absolute", "..\\x", "C:\\x", "a\0b"]
)
def test_a_name_that_leads_out_of_the_cache_is_refused(address, tmp_path, name):
    with pytest.raises(ToumeiError):
        fetch(f"{address}/net.pth", ID, name.replace("/absolute", f"{tmp_path}/absolute"), progress=False)
    assert files(tmp_path) == []


@pytest.mark.parametrize("url", ["/..", "/a/..", "/%2e%2e", "/a%2f..%2f..%2fx/..", "/"])
def test_an_address_whose_name_leads_out_of_the_cache_is_refused(address, tmp_path, url):
    with pytest.raises(ToumeiError):
        fetch(f"{address}{url}", ID, progress=False)
    assert files(tmp_path) == []


def test_an_ordinary_download_without_a_length_and_one_that_moved(address, cache):
    assert fetch(f"{address}/unknown.pth", ID, progress=False).read_bytes() == DATA
    assert fetch(f"{address}/moved.pth", ID, progress=False).read_bytes() == DATA
    with pytest.raises(DownloadError):
        fetch(f"{address}/moved-away.pth", ID, progress=False)
    assert fetch(f"{address}/net.pth", ID, "inside/net.pth", progress=False) == cache / "inside" / "net.pth"
    assert files(cache) == ["inside/net.pth", "moved.pth", "unknown.pth"]


def test_two_threads_that_fetch_one_file_both_get_it(address, cache):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(f"{address}/net.pth", ID, progress=False)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "net.pth"] * 4 and files(cache) == ["net.pth"] and found[0].read_bytes() == DATA


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_each_damaged_file_of_weights_is_one_kind_of_error(tmp_path, name):
    path, weights = tmp_path / name, {"a": torch.arange(50.0), "b": torch.ones(3)}
    torch.save(weights, path) if path.suffix == ".pth" else save_file(weights, path)
    whole = path.read_bytes()
    assert load_state_dict(path)["a"][-1] == 49
    contents = [b"", b"text", whole[:10], whole[: len(whole) // 2], whole[:-1], b"\0" * 100, whole[::-1]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ArgumentError, match=name):
            load_state_dict(path)
    torch.save([1, 2], tmp_path / "list.pth")
    for wrong in (tmp_path / "list.pth", tmp_path, "/dev/null"):
        with pytest.raises(ArgumentError):
            load_state_dict(wrong)
    with pytest.raises(FileNotFoundError):
        load_state_dict(tmp_path / "missing.pth")


def test_weights_of_another_network_and_damaged_magnitudes_are_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ArgumentError, match="another network"):
        facts_gpt(tmp_path / "other.safetensors")
    np.save(tmp_path / "x.npy", np.ones((3, 4, 3)))
    whole = (tmp_path / "x.npy").read_bytes()
    for content in (b"", whole[:20], whole[:-1], b"text"):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(ArgumentError, match=r"x\.npy"):
            load_magnitude(tmp_path / "x.npy")
