"""Corpora of any kind become the same chunks of tokens, in an order that a seed decides."""

import pytest

from toumei.core.errors import ArgumentError
from toumei.models import facts_gpt
from toumei.transformers.model.corpus import TokenChunks, shuffled, texts_in, token_rows


def test_chunks_are_the_texts_one_after_the_other_with_end_tokens():
    tokenizer, world = facts_gpt()[1:]
    texts = [fact.text for fact in world.facts[:20]]
    chunks = TokenChunks(texts, tokenizer, 7)
    end = tokenizer.eos_token_id
    whole = [token for text in texts for token in [*tokenizer(text).input_ids, end]]
    found = list(chunks)
    assert found == [whole[start : start + 7] for start in range(0, len(whole) - 6, 7)]
    assert chunks.tokens == len(whole) and chunks.bytes == sum(len(text.encode()) for text in texts)
    assert chunks.can_repeat and list(chunks) == found
    assert not TokenChunks(iter(texts), tokenizer, 7).can_repeat


def test_files_rows_and_lists_are_the_same_texts(tmp_path):
    texts = ["one", "two words", "über"]
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8")
    assert list(texts_in(path)) == list(texts_in(str(path))) == list(texts_in(texts)) == texts
    assert list(texts_in({"text": text} for text in texts)) == texts
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ArgumentError, match="no text in UTF-8"):
        list(texts_in(path))


def test_tables_of_pandas_are_read_by_their_text():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"label": [1, 2], "text": ["one", "two"]})
    assert list(texts_in(table)) == list(texts_in(table["text"])) == ["one", "two"]
    with pytest.raises(ArgumentError, match="label"):
        list(texts_in(table[["label"]]))


def test_a_text_is_no_path():
    with pytest.raises(FileNotFoundError, match="a list of texts or the path"):
        list(texts_in("one text"))


@pytest.mark.parametrize("given", [None, 3, {"text": ["one"]}, [1, 2], [b"one"]])
def test_what_is_no_corpus_is_refused(given):
    with pytest.raises(ArgumentError, match="expected texts"):
        list(texts_in(given))


def test_long_texts_are_cut_off(tokenizer):
    assert [len(row) for row in token_rows(["w1 w2 w3", "w4"], tokenizer, 2)] == [2, 1]
    assert [len(row) for row in token_rows(["w1 w2 w3", "w4"], tokenizer)] == [3, 1]


@pytest.mark.parametrize("room", [1, 5, 100])
def test_a_seed_decides_the_order(room):
    chunks = [[number] for number in range(50)]
    first, again, other = (list(shuffled(iter(chunks), seed, room)) for seed in (1, 1, 2))
    assert first == again and sorted(first) == sorted(other) == chunks
    assert (first != other) == (first != chunks) == (room > 1)
