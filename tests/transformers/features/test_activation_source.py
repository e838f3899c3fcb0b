"""Activations over a corpus against plain passes, and folders of them that are written in parts."""

import json

import pytest
import torch
from architectures import build

from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.transformers import HookedModel
from toumei.transformers.features import ActivationSource, ActivationStore
from toumei.transformers.features.activation_source import TensorActivations, as_activations, one_name
from toumei.transformers.features.shuffling import shuffled_batches

NAME = "blocks.1.hook_resid_post"
TEXTS = [" ".join(f"w{(5 * text + place) % 64}" for place in range(3 + text % 5)) for text in range(30)]


@pytest.fixture
def model(watched, tokenizer):
    return HookedModel(watched(build("gpt2")), tokenizer)


def plain(model, texts, skip=1):
    """The activations of each text from a separate pass, without the first tokens."""
    rows = []
    for text in texts:
        _, cache = model.run_with_cache(text, [NAME])
        rows.append(cache[NAME][0, skip:])
    return torch.cat(rows).detach()


def as_sorted(values):
    return values[values[:, 0].argsort()]


def test_padding_and_first_tokens_are_left_out(model):
    source = ActivationSource(model, TEXTS, NAME, batch_size=4)
    found = torch.cat([block[NAME] for block in source.blocks()])
    torch.testing.assert_close(as_sorted(found), as_sorted(plain(model, TEXTS)))
    with_first = ActivationSource(model, TEXTS, NAME, skip_first=0)
    assert sum(len(block[NAME]) for block in with_first.blocks()) == len(found) + len(TEXTS)


def test_long_texts_are_cut_into_pieces_and_tokens_are_counted(model):
    source = ActivationSource(model, [" ".join(TEXTS)], NAME, length=8, skip_first=0, batch_size=3)
    total = sum(len(text.split()) for text in TEXTS)
    assert sum(len(block[NAME]) for block in source.blocks()) == total
    limited = ActivationSource(model, TEXTS, NAME, max_tokens=17, batch_size=4)
    assert sum(len(block[NAME]) for block in limited.blocks()) == 17


def test_native_names_token_ids_and_heads(model):
    ids = torch.arange(24).view(4, 6)
    names = ["transformer.h.0.mlp", "blocks.1.attn.hook_z"]
    (block,) = ActivationSource(model, ids, names, skip_first=2).blocks()
    _, cache = model.run_with_cache(ids, names)
    for name in names:
        torch.testing.assert_close(block[name], cache[name][:, 2:].reshape(16, -1).detach())


def test_token_ids_come_in_arrays_and_in_lists_of_several_lengths(model):
    ids = torch.arange(24).view(4, 6)
    (block,) = ActivationSource(model, ids, NAME).blocks()
    for given in (ids.numpy(), ids.tolist(), list(ids), tuple(ids.numpy())):
        (found,) = ActivationSource(model, given, NAME).blocks()
        assert torch.equal(found[NAME], block[NAME])
    (short,) = ActivationSource(model, [[5, 6, 7], [8, 9]], NAME).blocks()
    assert len(short[NAME]) == 3
    cut = ActivationSource(model, torch.arange(60).repeat(1, 9), NAME, length=20).blocks()
    assert sum(len(one[NAME]) for one in cut) == 27 * 19


@pytest.mark.parametrize("given", [torch.rand(2, 3), torch.arange(3), [[64]], [[5], [-1]]])
def test_what_are_no_token_ids_is_refused(model, given):
    with pytest.raises(ArgumentError, match="token ids"):
        ActivationSource(model, given, NAME)


def test_an_activation_without_a_vector_for_each_token_is_refused(model):
    with pytest.raises(ShapeError, match="vector for each"):
        next(ActivationSource(model, TEXTS, ("pattern", 0)).blocks())
    with pytest.raises(LayerError):
        ActivationSource(model, TEXTS, ("resid_post", 99))


@pytest.mark.parametrize("corpus", [[], [" "], ["w1"], iter([])])
def test_an_empty_corpus_is_an_error(model, corpus):
    with pytest.raises(ArgumentError, match="empty"):
        list(ActivationSource(model, corpus, NAME).blocks())


def test_an_exhausted_corpus_is_an_error(model):
    source = ActivationSource(model, iter(TEXTS), NAME)
    list(source.blocks())
    with pytest.raises(ArgumentError, match="exhausted"):
        list(source.blocks())
    with pytest.raises(ArgumentError, match="no tokenizer"):
        ActivationSource(HookedModel(model.model), TEXTS, NAME)


def test_a_store_holds_what_the_source_gives_whatever_the_shards(model, tmp_path):
    source = ActivationSource(model, TEXTS, [NAME, "blocks.0.hook_mlp_out"], batch_size=4)
    store = ActivationStore.write(source, tmp_path / "new", shard_tokens=30, verbose=False)
    assert len(store.shards) > 2 and len(store) == len(plain(model, TEXTS))
    found = torch.cat([block[NAME] for block in store.blocks(seed=3)])
    torch.testing.assert_close(as_sorted(found), as_sorted(plain(model, TEXTS)))
    orders = {tuple(len(block[NAME]) for block in store.blocks(seed)) for seed in range(8)}
    assert len(orders) > 1


def test_a_killed_store_goes_on_where_it_was(model, tmp_path, monkeypatch):
    def source():
        return ActivationSource(model, TEXTS, NAME, batch_size=4)

    whole = ActivationStore.write(source(), tmp_path / "whole", shard_tokens=30, verbose=False)
    calls = 0
    activations = HookedModel.activations

    def dying(self, *given):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return activations(self, *given)

    monkeypatch.setattr(HookedModel, "activations", dying)
    with pytest.raises(KeyboardInterrupt):
        ActivationStore.write(source(), tmp_path / "killed", shard_tokens=30, verbose=False)
    begun = len(list((tmp_path / "killed").glob("shard*")))
    assert 0 < begun < len(whole.shards)
    again = ActivationStore.write(source(), tmp_path / "killed", shard_tokens=30, verbose=False)
    for one, other in zip(whole.shards, again.shards, strict=True):
        assert one.read_bytes() == other.read_bytes()
    before = calls
    ActivationStore.write(source(), tmp_path / "killed", shard_tokens=30, verbose=False)
    assert calls == before, "a whole store runs the model again"
    again.shards[1].unlink()
    ActivationStore.write(source(), tmp_path / "killed", shard_tokens=30, verbose=False)
    assert whole.shards[1].read_bytes() == again.shards[1].read_bytes()


def test_a_store_on_a_full_disk_or_one_that_is_only_read_names_the_path(
    model, tmp_path, monkeypatch, small_disk, read_only
):
    def write(folder):
        source = ActivationSource(model, TEXTS, NAME, batch_size=4)
        return ActivationStore.write(source, tmp_path / folder, shard_tokens=30, verbose=False)

    whole, activations, calls = write("whole"), HookedModel.activations, []
    with small_disk(1000), pytest.raises(OSError, match="File too large.*full/shard_00000"):
        write("full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["activations.json"]
    assert [path.read_bytes() for path in write("full").shards] == [
        path.read_bytes() for path in whole.shards
    ]
    monkeypatch.setattr(HookedModel, "activations", lambda *given: calls.append(1) or activations(*given))
    with read_only(tmp_path), pytest.raises(OSError, match=f"Read-only.*{tmp_path}/new"):
        write("new")
    assert not calls and not (tmp_path / "new").exists()


def test_a_folder_of_other_activations_is_refused(model, tmp_path):
    def write(texts=TEXTS, **options):
        source = ActivationSource(model, texts, NAME, **{"batch_size": 4, **options})
        return ActivationStore.write(source, tmp_path, shard_tokens=30, verbose=False)

    write()
    with pytest.raises(ArgumentError, match="length"):
        write(length=5)
    with pytest.raises(ArgumentError, match="other texts"):
        write(TEXTS[::-1])
    ids = torch.arange(30 * 6).view(30, 6) % 64
    ActivationStore.write(
        ActivationSource(model, ids, NAME), tmp_path / "ids", shard_tokens=100, verbose=False
    )
    with pytest.raises(ArgumentError, match="more texts"):
        fewer = ActivationSource(model, ids[:10], NAME)
        ActivationStore.write(fewer, tmp_path / "ids", shard_tokens=100, verbose=False)
    shard = sorted(tmp_path.glob("shard*"))[0]
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(ArgumentError, match="damaged"):
        ActivationStore(tmp_path)
    (tmp_path / "activations.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(ArgumentError, match="damaged"):
        ActivationStore(tmp_path)
    with pytest.raises(ArgumentError, match="no activations"):
        ActivationStore(tmp_path / "nothing")


def test_a_buffer_hands_out_each_row_once_a_pass_and_holds_no_more_than_its_size():
    values = torch.arange(100.0)[:, None]
    source = TensorActivations({"x": values})
    batches = shuffled_batches(source, ("x",), batch_size=5, buffer=20, seed=1)
    seen = torch.cat([next(batches)["x"] for _ in range(36)])[:, 0]
    counts = seen.long().bincount(minlength=100)
    assert counts.max() <= 2 and counts.sum() == 180, "a row came back before the pass was over"
    assert not torch.equal(seen[:20], seen[:20].sort().values)
    again = shuffled_batches(source, ("x",), batch_size=5, buffer=20, seed=1)
    assert torch.equal(seen[:5], next(again)["x"][:, 0])
    # of the first rows that come out, none lies farther in the corpus than the buffer reaches
    assert seen[:5].max() < 20


def test_what_is_no_activation_is_refused():
    for wrong in (
        "text",
        3,
        {"x": torch.rand(3)},
        torch.rand(3),
        {"x": torch.rand(2, 3), "y": torch.rand(3, 3)},
    ):
        with pytest.raises((ArgumentError, ShapeError)):
            as_activations(wrong)
    table = torch.rand(3, 2).double()
    for given in (table.numpy(), table.tolist(), {"activations": table.numpy()}):
        assert torch.allclose(next(as_activations(given).blocks(0))["activations"].double(), table)
    with pytest.raises(ArgumentError, match="name one"):
        one_name(("a", "b"), None, "reads")
    with pytest.raises(ArgumentError, match="none of"):
        one_name(("a", "b"), "c", "reads")
