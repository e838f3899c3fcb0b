"""The page and the store hold what the memories hold, and are written whole or not at all."""

import base64
import json
import re
import sqlite3

import numpy as np
import pytest
import torch
from memory_models import WORDS, corpus, layers_of, tiny, words

from toumei.core.errors import ArgumentError, LayerError, UnitError
from toumei.instrument.memories import tables as memory_tables
from toumei.instrument.memories.key_value_memories import KeyValueMemories
from toumei.instrument.memories.store import MemoryStore


def memories_of(kind, texts=None, **options):
    texts = corpus() if texts is None else texts
    return KeyValueMemories(tiny(kind), words(), layers_of(kind), triggers=4, verbose=False, **options)(texts)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def memories(request):
    return memories_of(request.param)


@pytest.fixture
def store(memories, tmp_path):
    memories.save_sqlite(tmp_path / "memories.db")
    return MemoryStore(tmp_path / "memories.db")


# ---------------------------------------------------------------- the store


def test_a_store_gives_the_triggers_back_in_the_order_of_their_z(memories, store):
    for neuron in (0, 3, 19):
        shown = memories.neuron(1, neuron)
        every = sorted((*shown.triggers, *shown.lowest), key=lambda trigger: -abs(trigger.z))
        assert store.key_sentences(1, neuron) == tuple(every)
        assert store.key_sentences(memories.layers[1].name, neuron, limit=2) == tuple(every[:2])


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0, 1e9])
def test_a_heat_map_counts_the_triggers_above_sigma(memories, store, sigma):
    layer = memories.layer(0)
    every = torch.cat([layer.z(triggers.values) for _, triggers, _ in layer.tails()], 1)
    assert torch.equal(store.key_heatmap(0, sigma=sigma), (every.abs() > sigma).sum(1))
    assert torch.equal(store.key_heatmap(layer.name), (every.abs() > 3).sum(1))


def test_stats_count_what_there_is(memories, store):
    stats = store.stats()
    assert stats.layers == {layer.name: len(layer) for layer in memories.layers}
    assert (stats.read, stats.prefixes, stats.cut, stats.strategy) == (30, memories.prefixes, 0, "prefix")
    assert stats.texts == len(memories.corpus) <= 30
    assert stats.triggers == sum(4 * len(one) * len(one.tails()) for one in memories.layers)
    assert len(repr(store)) < 200


def test_the_tables_can_be_queried_by_anything_else(memories, store):
    layer = memories.layer(0)
    query = "SELECT neuron FROM promoted JOIN vocabulary USING (token) WHERE layer = 0 AND tail = 'highest' "
    query += "AND rank = 0 AND content = 'w7' ORDER BY neuron"
    connection = sqlite3.connect(store.path)
    found = [neuron for (neuron,) in connection.execute(query)]
    connection.close()
    assert found == (layer.promoted.tokens[:, 0] == 7).nonzero()[:, 0].tolist()


def test_layers_and_neurons_that_are_not_there(memories, store):
    with pytest.raises(LayerError, match="numbers from 0 to 1"):
        store.key_sentences(2, 0)
    with pytest.raises(LayerError, match="no layer 'nothing'"):
        store.key_heatmap("nothing")
    with pytest.raises(UnitError, match="has neurons 0 to"):
        store.key_sentences(0, 10**6)
    with pytest.raises(ArgumentError, match="limit"):
        store.key_sentences(0, 0, limit=0)


def test_files_that_are_no_store(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        MemoryStore(tmp_path / "none.db")
    with pytest.raises(ArgumentError, match="it is a folder"):
        MemoryStore(tmp_path)
    (tmp_path / "text.db").write_text("no database at all, but long enough to look like one" * 20)
    with pytest.raises(ArgumentError, match="no store of memories"):
        MemoryStore(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE layers (layer)")
    other.close()
    with pytest.raises(ArgumentError, match="no store of memories"):
        MemoryStore(tmp_path / "other.db")
    (tmp_path / "cut.db").write_bytes(store.path.read_bytes()[:9000])
    with pytest.raises(ArgumentError, match="no store of memories"):
        MemoryStore(tmp_path / "cut.db").stats()


def test_a_store_is_written_whole_or_not_at_all(memories, tmp_path, monkeypatch):
    path = tmp_path / "new" / "memories.db"
    memories.save_sqlite(path)
    before = path.read_bytes()

    def fails(*_):
        yield 0, 0, 0.0, 0.0
        raise KeyboardInterrupt

    monkeypatch.setattr(memory_tables, "_neurons", fails)
    with pytest.raises(KeyboardInterrupt):
        memories.save_sqlite(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_store_without_promoted_tokens_and_with_few_texts(tmp_path):
    memories = memories_of("gpt2", ["w1 w2"], promoted=0)
    memories.save_sqlite(tmp_path / "memories.db")
    store = MemoryStore(tmp_path / "memories.db")
    (trigger,) = store.key_sentences(0, 0)
    assert trigger == memories.neuron(0, 0).triggers[0]


# ---------------------------------------------------------------- the page


def data_of(page):
    (line,) = [line for line in page.splitlines() if line.startswith("const data = ")]
    return json.loads(line.removeprefix("const data = ").removesuffix(";"))


def array(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def test_a_page_has_the_triggers_and_the_promoted_tokens(memories, tmp_path):
    memories.save_html(tmp_path / "page.html", triggers=3)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|src=", page)
    data = data_of(page)
    assert len(data["vocabulary"]) == WORDS and len(data["layers"]) == 2
    for place, shown in enumerate(data["layers"]):
        layer = memories.layer(place)
        assert (shown["name"], shown["neurons"], len(shown["tails"])) == (
            layer.name,
            len(layer),
            len(layer.tails()),
        )
        for tail, (name, _, values) in zip(shown["tails"], layer.tails(), strict=True):
            assert (tail["name"], tail["count"]) == (name, 3)
            columns = {
                key: array(tail[key], "<i4") for key in ("texts", "starts", "ends", "tokens", "following")
            }
            numbers = {key: array(tail[key], "<f4") for key in ("values", "z")}
            for neuron in (0, len(layer) - 1):
                expected = memories.neuron(place, neuron)
                for rank, one in enumerate((expected.triggers if name == "highest" else expected.lowest)[:3]):
                    at = 3 * neuron + rank
                    text = data["texts"][columns["texts"][at]]
                    assert text == one.text and data["numbers"][columns["texts"][at]] == one.number
                    assert text[: columns["ends"][at]] == one.prefix
                    assert text[columns["starts"][at] : columns["ends"][at]] == one.token
                    assert data["vocabulary"][columns["tokens"][at]] == one.token.strip()
                    assert numbers["z"][at] == pytest.approx(one.z, rel=1e-6)
                    assert numbers["values"][at] == pytest.approx(one.value, rel=1e-6)
            assert array(tail["promoted"]["tokens"], "<i4").tolist() == values.tokens.flatten().tolist()


def test_no_text_changes_the_page(tmp_path):
    texts = ["w1 </script><b>", "w2 \u202e <!--heading--> &"]
    memories_of("gpt2", texts).save_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1 and "\u202e" not in page and "<b>" not in page
    assert set(data_of(page)["texts"]) == {text.replace("\u202e", "\ufffd") for text in texts}


def test_a_page_of_triggers_alone_and_of_few_texts(tmp_path):
    memories_of("gpt2", ["w1 w2"], promoted=0).save_html(tmp_path / "page.html")
    data = data_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    tail = data["layers"][0]["tails"][0]
    assert tail["promoted"] is None and array(tail["texts"], "<i4")[:4].tolist() == [0, -1, -1, -1]
