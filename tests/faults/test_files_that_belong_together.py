"""Folders of several files are whole or refused, temporary files go with their process, damage is named."""

import json
import os
import signal
import tempfile
import warnings

import pytest
import torch
from joblib._parallel_backends import LokyBackend
from test_whole_files import in_child, memories

from toumei.bench import Bench
from toumei.core import files
from toumei.core.errors import ArgumentError
from toumei.core.json_files import from_json
from toumei.core.sent_functions import sent
from toumei.instrument.memories import tables
from toumei.models import facts_gpt
from toumei.transformers import (
    ActivationSource,
    ActivationStore,
    DictionarySettings,
    HookedModel,
    load_saelens,
    save_saelens,
    train_dictionary,
)
from toumei.transformers.features import SparseAutoencoder

needs_linux = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without names")


def dictionary(size):
    return SparseAutoencoder.of_directions(torch.eye(size))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------- written


def test_a_full_disk_leaves_both_files_of_a_dictionary_and_the_error_names_the_one_that_did_not_fit(
    tmp_path, small_disk
):
    save_saelens(dictionary(4), tmp_path)
    before = content(tmp_path)
    with small_disk(3000), pytest.raises(OSError, match=r"sae_weights\.safetensors"):
        save_saelens(dictionary(80), tmp_path)
    assert content(tmp_path) == before


def test_a_dictionary_that_is_killed_between_its_files_is_refused_not_mixed(tmp_path, monkeypatch):
    save_saelens(dictionary(4), tmp_path)
    replace = os.replace

    def dying(source, target):
        replace(source, target)
        die()

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", dying)
        assert in_child(lambda: save_saelens(dictionary(6), tmp_path)) == -signal.SIGKILL
    with pytest.raises(ArgumentError, match=r"cfg\.json"):
        load_saelens(tmp_path)
    save_saelens(dictionary(6), tmp_path)
    assert load_saelens(tmp_path).features == 6


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@needs_linux
def test_a_database_that_is_killed_while_it_is_filled_leaves_nothing(tmp_path, temporary, monkeypatch):
    found = memories(1)
    before = list(temporary.iterdir())  # what torch has there
    monkeypatch.setattr(tables, "_promoted", die)
    assert in_child(lambda: found.save_sqlite(tmp_path / "memories.db")) == -signal.SIGKILL
    assert list(temporary.iterdir()) == before and list(tmp_path.iterdir()) == [temporary]


@needs_linux
def test_a_function_that_was_sent_to_processes_goes_with_the_process_that_sent_it(temporary):
    def send():
        with sent(len, LokyBackend()) as there:
            if there("four") == 4:
                die()

    assert in_child(send) == -signal.SIGKILL
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("nameless", [True, False])
def test_functions_that_are_sent_one_after_another_are_told_apart(nameless, monkeypatch, temporary):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    for function in (len, str.upper, len):
        with sent(function, LokyBackend()) as there:
            assert there("four") == function("four")
    assert not list(temporary.iterdir())


def test_the_files_of_a_bench_have_the_permissions_that_the_umask_leaves(tmp_path):
    def half(number):
        return {"half": torch.tensor(number / 2)}

    old = os.umask(0o002)
    try:
        bench = Bench(tmp_path / "bench")
        bench.log_experiment(half)(1)
        assert len(bench.runs("half")) == 1
    finally:
        os.umask(old)
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in tmp_path.joinpath("bench").rglob("*")}
    assert modes == {(True, 0o775), (False, 0o664)}


# ---------------------------------------------------------------- read


def test_json_is_read_or_refused_by_one_error():
    for text in ("{", "[" * 100_000, b"\xff", ""):
        with pytest.raises(ValueError):
            from_json(text)


WRONG = (None, 3, [], [1], {"a": 1}, "x")


def changed_parts(record):
    """Records with a part less, or with one of another kind."""
    for name in record:
        yield {key: value for key, value in record.items() if key != name}
        for wrong in WRONG:
            yield {**record, name: wrong}


def test_a_run_with_a_part_of_another_kind_is_damaged_or_readable(tmp_path):
    def half(number, values):
        return {"half": number / 2, "values": values}

    bench = Bench(tmp_path)
    for number in (1, 2):
        bench.log_experiment(half)(number, torch.ones(2))
    first, second = bench.list_versions("half")
    path = bench.runs("half")[0].folder / "run.json"
    record = json.loads(path.read_text())
    refused = 0
    for damaged in [*map(json.dumps, changed_parts(record)), "[" * 100_000, "3"]:
        path.write_text(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the run is left out of the list
                for run in bench.runs("half"):
                    assert str(run) and repr(run) and run.source
                    run.arguments(), run.result(), run.figures
                bench.diff(first, second), bench.get_version("half", first)
        except ArgumentError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("damaged", ["{", "[]", "[" * 100_000])
def test_a_row_of_the_index_that_is_damaged_is_read_anew(tmp_path, damaged):
    def half(number):
        return number / 2

    bench = Bench(tmp_path)
    bench.log_experiment(half)(1)
    before = str(bench.table("half"))
    with bench._archive._index._open(bench._archive._index.path) as database, database:
        database.execute("UPDATE runs SET summary = ?", [damaged])
    assert str(bench.table("half")) == before


@pytest.fixture(scope="module")
def source():
    model, tokenizer, world = facts_gpt()
    return ActivationSource(
        HookedModel(model, tokenizer),
        [fact.text for fact in world.facts[:16]],
        ("resid_post", 1),
        batch_size=2,
    )


def test_a_store_that_lacks_shards_is_refused_or_says_so(tmp_path, source):
    def write():
        return ActivationStore.write(source, tmp_path, shard_tokens=30, verbose=False)

    store = write()
    assert len(store.shards) > 2
    store.shards[-1].unlink()
    with pytest.warns(UserWarning, match="not written to its end"):
        assert ActivationStore(tmp_path).tokens < store.tokens
    assert write().tokens == store.tokens == ActivationStore(tmp_path).tokens
    store.shards[1].unlink()
    with pytest.raises(ArgumentError, match="lacks the shard before shard_00002"):
        ActivationStore(tmp_path)


def test_a_checkpoint_with_damaged_notes_is_refused(tmp_path, source):
    settings = DictionarySettings(features=8, k=2, tokens=32, batch_size=16, buffer=32)
    path = tmp_path / "training.safetensors"

    def train():
        return train_dictionary(source, settings, checkpoint=path, verbose=False)

    train()
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    key, text = next(iter(header["__metadata__"].items()))
    notes = json.loads(text)
    less = [{name: value for name, value in notes.items() if name != left} for left in notes]
    for damaged in [*map(json.dumps, [*WRONG, *less]), "[" * 100_000]:
        written = json.dumps({**header, "__metadata__": {**header["__metadata__"], key: damaged}}).encode()
        path.write_bytes(len(written).to_bytes(8, "little") + written + data[8 + size :])
        with pytest.raises(ArgumentError, match=r"training\.safetensors"):
            train()
