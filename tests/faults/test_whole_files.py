"""Files are written whole or not at all, a killed process leaves nothing, and damage is one kind of error."""

import json
import os
import signal
import stat
import struct
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from toumei import plots
from toumei.attribution import Attribution, Saliency
from toumei.bench import Bench
from toumei.cnns.visualization import Visualization
from toumei.core import serialization
from toumei.core.checksums import CHECKSUMS
from toumei.core.errors import ArgumentError
from toumei.core.files import atomic_write
from toumei.core.serialization import write_safetensors
from toumei.instrument import KeyValueMemories, TensorMap, instrument
from toumei.models import facts_gpt
from toumei.transformers.model.activation_cache import ActivationCache
from toumei.transformers.rome.editing.lora import export_lora

NETWORK = nn.Linear(3, 2)


def pictures(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))


WRITERS = {
    "x.png": lambda path, size: plots.save_pixels(pictures(size)[0], path),
    "x.jpg": lambda path, size: plots.save_pixels(pictures(size)[0], path),
    "x.gif": lambda path, size: plots.save_animation([pictures(size), pictures(size).flip(0)], path),
    "grid.png": lambda path, size: plots.save_grid(pictures(size), path, ["a", "b"]),
    "grid.pdf": lambda path, size: plots.save_grid(pictures(size), path, ["a", "b"]),
    "grid.svg": lambda path, size: plots.save_grid(pictures(size), path, ["a", "b"]),
    "x.html": lambda path, size: plots.save_page(plots.page("x", plots.picture(pictures(size)[0])), path),
    "x.safetensors": lambda path, size: Attribution(torch.ones(1, 3 * size**2), torch.zeros(1)).save(path),
    "graph.html": lambda path, size: graph(size).save_html(path),
    "graph.dot": lambda path, size: graph(size).save_dot(path),
    "memories.html": lambda path, size: memories(size).save_html(path),
    "memories.db": lambda path, size: memories(size).save_sqlite(path),
    "memories.safetensors": lambda path, size: memories(size).save(path),
    "shown.png": lambda path, size: shown(size).save(path),
    "shown.safetensors": lambda path, size: shown(size).save(path),
}


def graph(size):
    """The graph of a pass through so many layers."""
    network = nn.Sequential(*[nn.ReLU() for _ in range(size)])
    with instrument(network) as probe, probe.track() as tracker:
        network(torch.ones(1, 3))
    return tracker.build_graph()


@cache
def all_memories():
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:2]]
    layers = ["transformer.h.2.mlp.c_proj"]
    return KeyValueMemories(model, tokenizer, layers, triggers=2, promoted=0, verbose=False)(texts)


def memories(size):
    """The memories of a layer, larger ones with a longer text."""
    found = all_memories()
    texts = (found.corpus.texts[0] + "." * 99 * size, *found.corpus.texts[1:])
    return replace(found, corpus=replace(found.corpus, texts=texts))


def shown(size):
    return Visualization(images=pictures(size), losses=torch.zeros(0, 2), titles=("a", "b"))


def in_child(call):
    """Runs a call in a process of its own, which ends with it; returns the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            call()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_while_writing(monkeypatch):
    """Makes a process that writes a file die once some of it is on the disk."""

    @contextmanager
    def dying(path):
        with atomic_write(path) as file:
            yield file
            file.write_bytes(file.read_bytes()[:10])
            assert file.stat().st_size == 10
            os.kill(os.getpid(), signal.SIGKILL)

    for module in list(sys.modules.values()):
        if getattr(module, "atomic_write", None) is atomic_write and module.__name__.startswith("toumei."):
            monkeypatch.setattr(module, "atomic_write", dying)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without names")
@pytest.mark.parametrize("name", WRITERS)
def test_a_killed_process_leaves_the_old_file_and_nothing_beside_it(tmp_path, name, monkeypatch):
    path = tmp_path / name
    WRITERS[name](path, 8)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        dying_while_writing(patched)
        assert in_child(lambda: WRITERS[name](path, 20)) == -signal.SIGKILL
        assert in_child(lambda: WRITERS[name](tmp_path / f"new-{name}", 20)) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before
    WRITERS[name](path, 20)
    assert path.read_bytes() != before


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_path(tmp_path, name, nameless, monkeypatch, small_disk):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / name
    WRITERS[name](path, 8)
    before = path.read_bytes()
    with small_disk(len(before) + 500), pytest.raises(OSError, match=name):
        WRITERS[name](path, 120)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with small_disk(100), pytest.raises(OSError, match=name):
        WRITERS[name](tmp_path / "new" / "folder" / name, 100)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, mask, nameless, monkeypatch):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    old = os.umask(mask)
    try:
        for name, write in WRITERS.items():
            write(tmp_path / name, 8)
            write(tmp_path / name, 8)
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~mask}
    assert len(list(tmp_path.iterdir())) == len(WRITERS)


@pytest.mark.parametrize("name", ["x.xyz", "x", ".png", "x.png.exe"])
def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path, name):
    for write in (WRITERS["x.png"], WRITERS["grid.png"]):
        with pytest.raises(ArgumentError, match="ending should be one of"):
            write(tmp_path / name, 8)
    assert not list(tmp_path.iterdir())


def test_endings_may_be_in_capitals(tmp_path):
    for name in ("x.PNG", "x.JPEG"):
        plots.save_pixels(pictures(8)[0], tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.size == (8, 8)


def test_an_adapter_is_written_whole(tmp_path, small_disk):
    parts = SimpleNamespace(
        keys_first=lambda layer: True,
        down=lambda layer: f"h.{layer}",
        model=SimpleNamespace(config=SimpleNamespace()),
    )
    change = SimpleNamespace(left=torch.ones(3, 1), right=torch.ones(1, 4))
    edit = SimpleNamespace(parts=parts, layers=(1, 2), changes={1: change, 2: change})
    export_lora.__wrapped__(edit, tmp_path)
    names = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    json.loads((tmp_path / "adapter_config.json").read_text())
    with small_disk(200), pytest.raises(OSError, match=r"new/adapter"):
        export_lora.__wrapped__(edit, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_tensors_of_every_type_are_written_as_the_format_has_them(tmp_path):
    whole = {str(dtype): torch.tensor([1, 0, 1]).to(dtype) for dtype in serialization._TYPES}
    shapes = {"none": torch.zeros(0, 3), "number": torch.tensor(2.5), "matrix": torch.rand(3, 2, 2)}
    with atomic_write(tmp_path / "x.safetensors") as file:
        write_safetensors({**whole, **shapes}, file, {"a": "ü"})
    read = load_file(tmp_path / "x.safetensors")
    for name, tensor in {**whole, **shapes}.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_a_folder_of_tensors_has_whole_passes_only(tmp_path, monkeypatch, small_disk):
    kept = TensorMap([{"a": torch.rand(size)} for size in (10, 20, 9999)], batched=True)
    with small_disk(2000), pytest.raises(OSError, match="pass_000002"):
        kept.save(tmp_path / "full")
    with monkeypatch.context() as patched:
        dying_while_writing(patched)
        assert in_child(lambda: kept.save(tmp_path / "killed")) == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("*"))
    assert [len(one) for one in TensorMap.load(tmp_path / "full")["a"]] == [10, 20]


# ---------------------------------------------------------------- reading


def saved(folder):
    path = folder / "x.safetensors"
    Saliency(NETWORK)(torch.ones(1, 3), 1).save(path)
    return path


def with_header(path, change):
    """Rewrites the JSON beside the tensors."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = {"toumei": change(json.loads(header["__metadata__"]["toumei"]))}
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + data[8 + size :])


CHANGES = {
    "no JSON": lambda header: "{",
    "a list": lambda header: "[]",
    "a number": lambda header: "3",
    "no fields": lambda header: json.dumps({"what": header["what"]}),
    "fields that are none": lambda header: json.dumps({**header, "header": None}),
    "a field more": lambda header: json.dumps({**header, "header": {**header["header"], "added": 1}}),
    "a field less": lambda header: json.dumps({**header, "header": dict(list(header["header"].items())[1:])}),
    "another class": lambda header: json.dumps({**header, "what": "Visualization"}),
    "a later version": lambda header: json.dumps({**header, "version": 99}),
    "a version in words": lambda header: json.dumps({**header, "version": "one"}),
    "deep": lambda header: "[" * 100_000,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_damaged_header_is_an_error_that_names_the_file(tmp_path, name):
    path = saved(tmp_path)
    with_header(path, CHANGES[name])
    with pytest.raises(ArgumentError, match=r"x\.safetensors"):
        Attribution.load(path)


def test_a_field_of_a_wrong_type_is_refused(tmp_path):
    names = json.loads(header_of(saved(tmp_path))["toumei"])["header"]
    for name in names:
        for wrong in ({"a": 1}, [[]], 10**400, -1.5):
            path = saved(tmp_path)
            with_header(path, partial(with_field, name, wrong))
            with pytest.raises(ArgumentError, match=r"x\.safetensors"):
                Attribution.load(path)


def with_field(name, value, header):
    return json.dumps({**header, "header": {**header["header"], name: value}})


def header_of(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]


def test_every_file_that_is_cut_or_changed_is_one_kind_of_error(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    cut = [whole[:count] for count in range(0, len(whole), 37)]
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, 8 + size, 23)]
    for content in [*cut, *flipped, whole + b"more", b"\0" * 64, whole[::-1]]:
        path.write_bytes(content)
        try:
            Attribution.load(path)
        except ArgumentError as error:
            assert "x.safetensors" in str(error)
        else:
            assert content not in cut


def flipped(path, tensor):
    """Flips a bit in the numbers of a tensor in a file; returns what was there."""
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    begin, end = json.loads(whole[8 : 8 + size])[tensor]["data_offsets"]
    at = 8 + size + (begin + end) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
    return whole


def test_every_flipped_bit_of_the_numbers_is_noticed(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    for at in range(8 + size, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(ArgumentError, match=r"x\.safetensors .*the numbers of .* are not those"):
            Attribution.load(path)


@pytest.mark.parametrize("change", [lambda sums: "{", lambda sums: "[]", lambda sums: "{}"])
def test_damaged_checksums_are_refused_and_missing_ones_are_not(tmp_path, change):
    path = saved(tmp_path)
    tensors, known, want = load_file(path), header_of(path), Attribution.load(path)
    save_file(tensors, path, {**known, CHECKSUMS: change(known.pop(CHECKSUMS))})
    with pytest.raises(ArgumentError, match=r"x\.safetensors .*checksums are damaged"):
        Attribution.load(path)
    save_file(tensors, path, known)  # as files of toumei 0.2.0 are
    assert torch.equal(Attribution.load(path).values, want.values)


def cache_of(folder):
    ActivationCache({"blocks.0.hook_mlp_out": torch.rand(2, 3)}, None).save(folder / "x.safetensors")
    return lambda: ActivationCache.load(folder / "x.safetensors")


def tensors_of_a_pass(folder):
    TensorMap([{"fc#0": torch.rand(2, 3)}]).save(folder)
    return lambda: TensorMap.load(folder)["fc"]


def run_of_a_bench(folder):
    bench = Bench(folder)
    bench.log_experiment(a_tensor)()
    return bench.runs("a_tensor")[0].result


def a_tensor():
    return torch.rand(3)


HOLDERS = {
    "a cache": (cache_of, "blocks.0.hook_mlp_out"),
    "tensors of a pass": (tensors_of_a_pass, "fc#0"),
    "a run": (run_of_a_bench, "result"),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_all_that_reads_tensors_notices_flipped_bits(tmp_path, name):
    write, tensor = HOLDERS[name]
    read = write(tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    whole = flipped(path, tensor)
    with pytest.raises(ArgumentError, match=rf"{path.name}.* the numbers of {tensor} are not those"):
        read()
    path.write_bytes(whole)
    read()


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/proc", "a\0b"])
def test_what_is_no_file_is_refused(path):
    with pytest.raises(ArgumentError):
        Attribution.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.safetensors"):
        Attribution.load(tmp_path / "no.safetensors")
