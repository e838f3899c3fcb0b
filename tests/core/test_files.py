"""Files are written whole or not at all, with the permissions of the umask, and errors name the path."""

import ast
import errno
import os
import re
import signal
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fresh_interpreters import run_fresh

from toumei.bench import Bench
from toumei.core.errors import ArgumentError, FolderError
from toumei.core.files import atomic_write, check_regular
from toumei.core.parallel import sweep
from toumei.instrument.tensors import TensorFiles

PACKAGE = Path(__file__).parents[2] / "toumei"


def write(path, text="new"):
    with atomic_write(path) as partial:
        partial.write_text(text)


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# ---------------------------------------------------------------- whole or not at all


def test_the_file_is_there_when_the_block_ends_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "deep" / "x.txt"
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert not path.exists() and partial.read_text() == "new"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_all_as_it_was(tmp_path, error):
    (tmp_path / "x.txt").write_text("old")
    for path in (tmp_path / "x.txt", tmp_path / "new" / "deep" / "y.txt"):
        with pytest.raises(error), atomic_write(path) as partial:
            partial.write_text("half")
            raise error
    assert list(tmp_path.iterdir()) == [tmp_path / "x.txt"] and (tmp_path / "x.txt").read_text() == "old"


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    (tmp_path / "x.txt").write_text("old")
    script = """
import os, signal, sys
from toumei.core.files import atomic_write
with atomic_write(sys.argv[1]) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_fresh(script, str(tmp_path / "x.txt")).returncode == -signal.SIGKILL
    assert (tmp_path / "x.txt").read_text() == "old"
    assert sys.platform != "linux" or list(tmp_path.iterdir()) == [tmp_path / "x.txt"]


def test_the_items_of_a_sweep_are_written_whole(tmp_path, small_disk):
    assert sweep(abs, [-1], folder=tmp_path, verbose=False) == [1]
    (kept,) = tmp_path.iterdir()
    with pytest.raises(ArgumentError, match="the result for 0 cannot be kept on disk"):
        sweep(lambda _: object(), [0], folder=tmp_path, verbose=False)
    with (
        small_disk(100),
        pytest.warns(UserWarning, match=f"from item 0 on .*not all.*{tmp_path}.*result") as told,
    ):
        assert [len(one) for one in sweep(torch.zeros, [5, 6], folder=tmp_path, verbose=False)] == [5, 6]
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == [kept]
    whole = kept.read_bytes()
    changed = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for content in (b"", b"text", whole[:100], whole[:-30], changed):
        kept.write_bytes(content)
        assert sweep(abs, [-1], folder=tmp_path, verbose=False) == [1]
        assert kept.read_bytes() == whole


# ---------------------------------------------------------------- permissions and paths


def test_a_sweep_in_a_folder_that_is_only_read_fails_before_the_first_item(tmp_path, read_only):
    calls = []
    assert sweep(abs, [-1], folder=tmp_path, verbose=False) == [1]
    with read_only(tmp_path):
        assert sweep(abs, [-1], folder=tmp_path, verbose=False) == [1]
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(OSError, match=rf"Read-only.*{folder}"):
                sweep(calls.append, [1], folder=folder, verbose=False)
    assert not calls and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path, mask, monkeypatch):
    with umask(mask):
        write(tmp_path / "x.txt")
        (tmp_path / "plain").write_text("")
        with monkeypatch.context() as patched:
            patched.delattr(os, "O_TMPFILE")
            with atomic_write(tmp_path / "replaced.txt") as partial:  # as some libraries do
                partial.unlink()
                os.close(os.open(partial, os.O_CREAT, 0o600))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(Path("real", "x.txt"))
    (tmp_path / "broken.txt").symlink_to(Path("later", "y.txt"))
    write(tmp_path / "link.txt")
    write(tmp_path / "broken.txt", "first")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "broken.txt").is_symlink()
    assert (tmp_path / "real" / "x.txt").read_text() == "new"
    assert (tmp_path / "later" / "y.txt").read_text() == "first"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "broken.txt", "later", "link.txt", "real", "x.txt", "y.txt",
    ]  # fmt: skip


def test_links_in_a_circle_are_an_error_that_names_the_path(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=rf"{tmp_path}/a") as raised:
        write(tmp_path / "a")
    assert raised.value.errno == errno.ELOOP


def test_a_folder_and_a_device_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=rf"{tmp_path} cannot be written: it is a folder"):
        write(tmp_path)
    with pytest.raises(ArgumentError, match="/dev/null cannot be written: it is a device or a pipe"):
        write("/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_file_in_the_place_of_the_folder_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    says = rf"{tmp_path}/file/new/x.txt cannot be written: {tmp_path}/file is a file"
    with pytest.raises(NotADirectoryError, match=says) as raised:
        write(tmp_path / "file" / "new" / "x.txt")
    assert isinstance(raised.value, ArgumentError)
    with pytest.raises(ArgumentError, match="cannot be read: .*file is a file"):
        check_regular(tmp_path / "file" / "x.txt", "read")
    calls = (lambda folder: sweep(abs, [1], folder=folder, verbose=False), Bench, TensorFiles)
    for folder in (tmp_path / "file", tmp_path / "file" / "new"):
        for call in calls:
            with pytest.raises(FolderError, match=rf"{folder} cannot be a folder: {tmp_path}/file is a file"):
                call(folder)


def test_an_os_error_keeps_its_number_and_names_the_path(tmp_path):
    with pytest.raises(PermissionError, match=rf"{tmp_path}/x.txt"), atomic_write(tmp_path / "x.txt"):
        raise OSError(errno.EACCES, "Permission denied")
    with pytest.raises(OSError, match=rf"cannot write {tmp_path}/x.txt: encoder"):
        with atomic_write(tmp_path / "x.txt"):
            raise OSError("encoder error")
    assert list(tmp_path.iterdir()) == []


def test_long_names_can_be_written(tmp_path):
    path = tmp_path / ("x" * 240 + ".txt")
    write(path)
    assert path.read_text() == "new"


# ---------------------------------------------------------------- nothing else writes

WRITERS = {"write_text", "write_bytes", "savefig", "save_file", "touch", "mkstemp", "NamedTemporaryFile"}


def writing_calls(tree):
    """The lines of calls that write a file and are not inside a block of `atomic_write` or `atomic_pair`."""

    def visit(node, inside):
        if isinstance(node, (ast.With, ast.AsyncWith)):
            names = [ast.unparse(item.context_expr).split("(")[0] for item in node.items]
            inside = inside or not {"atomic_write", "atomic_pair"}.isdisjoint(names)
        if isinstance(node, ast.Call) and not inside and writes(node):
            yield node.lineno
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return list(visit(tree, False))


def writes(call):
    name = ast.unparse(call.func)
    last = name.split(".")[-1]
    if last in ("open", "fdopen"):
        given = [*call.args, *(word.value for word in call.keywords)]
        modes = [item.value for item in given if isinstance(item, ast.Constant) and item.value]
        return any(isinstance(mode, str) and re.fullmatch("[rbt]*[wax+][bt+]*", mode) for mode in modes)
    if last == "save" and name.split(".")[0] in ("torch", "np", "numpy", "image", "picture", "first"):
        return True
    return last in WRITERS


def test_the_check_sees_what_writes():
    for line in (
        "open(path, 'w')", "path.open(mode='ab')", "path.write_text('')", "figure.savefig(path)",
        "torch.save(x, p)", "save_file(tensors, path)",
    ):  # fmt: skip
        assert writing_calls(ast.parse(line)) == [1]
        assert writing_calls(ast.parse(f"with atomic_write(p) as partial:\n    {line}")) == []
    for line in ("open(path)", "open(path, 'rb')", "result.save(path)", "text.replace('w', 'a')"):
        assert writing_calls(ast.parse(line)) == []


def test_only_files_are_written_that_way():
    # the second draws in memory, SQLite writes the index; the others write what the first has given them
    allowed = {
        "bench/index.py",
        "core/files.py",
        "core/notebooks.py",
        "core/serialization.py",
        "models/download.py",
    }
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if lines := writing_calls(ast.parse(path.read_text(encoding="utf-8"))):
            found[str(path.relative_to(PACKAGE))] = lines
    assert set(found) <= allowed, found
