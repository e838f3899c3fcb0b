"""Second moments of keys: against plain forward passes, killed and resumed, merged, saved and refused."""

import pytest
import torch

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.transformers.rome.statistics import KeyStatistics, collect_statistics
from toumei.transformers.rome.statistics import collect as collecting


def texts(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (count,), generator=draw).tolist()
    return [" ".join(f"w{i}" for i in torch.randint(1, 64, (n,), generator=draw).tolist()) for n in lengths]


def plain(model, tokenizer, corpus, name):
    """The keys of every token of every text, text by text, without anything of the engine."""
    keys = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda module, args, output: keys.append(args[0].reshape(-1, args[0].shape[-1]))
    )
    with torch.no_grad():
        for text in corpus:
            model(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    return torch.cat(keys).double()


def collect(model, tokenizer, corpus, layers=(0, 2), **options):
    return collect_statistics(model, tokenizer, corpus, layers, verbose=False, batch_size=4, **options)


@pytest.mark.parametrize(
    ("kind", "down"),
    [
        ("gpt2", "transformer.h.{}.mlp.c_proj"),
        ("llama", "model.layers.{}.mlp.down_proj"),
        ("opt", "model.decoder.layers.{}.fc2"),
    ],
)
def test_moments_are_those_of_all_tokens(kind, down, language_model, tokenizer):
    model, corpus = language_model(kind), texts(70)
    statistics = collect(model, tokenizer, corpus)
    for layer in (0, 2):
        keys = plain(model, tokenizer, corpus, down.format(layer))
        assert statistics[layer].count == len(keys) and statistics.texts == 70
        assert torch.allclose(statistics[layer].matrix, keys.T @ keys / len(keys), rtol=1e-4, atol=1e-5)


def test_the_pass_ends_behind_the_deepest_layer(language_model, tokenizer, monkeypatch):
    model = language_model("gpt2")
    reached = []
    for number, block in enumerate(model.transformer.h):
        monkeypatch.setattr(block, "forward", counting(block.forward, number, reached))
    collect(model, tokenizer, texts(4), [0])
    checked = reached.count(2)  # by the check of the architecture, which runs all of a model
    collect(model, tokenizer, texts(12), [0])
    assert reached.count(2) == 2 * checked and reached.count(0) > 2 * checked


def counting(forward, number, reached):
    def counted(*args, **kwargs):
        reached.append(number)
        return forward(*args, **kwargs)

    return counted


def goes_on(model, tokenizer, path):
    """Goes on from a file, and checks that the result is that of a pass which was never broken."""
    begun, corpus = KeyStatistics.load(path), texts(150)
    assert 0 < begun.texts < 100
    resumed, whole = collect(model, tokenizer, corpus, checkpoint=path), collect(model, tokenizer, corpus)
    assert resumed.corpus == whole.corpus and resumed.texts == 150 and resumed[2].count == whole[2].count
    assert torch.equal(resumed[2].total, whole[2].total)


def test_a_pass_that_is_broken_off_while_reading_goes_on_where_it_was(language_model, tokenizer, tmp_path):
    model, path = language_model("gpt2"), tmp_path / "partial.safetensors"

    def broken():
        yield from texts(150)[:100]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, tokenizer, broken(), checkpoint=path)
    goes_on(model, tokenizer, path)


def test_a_pass_that_is_broken_off_while_adding_goes_on_from_the_last_file(
    language_model, tokenizer, tmp_path, monkeypatch
):
    model, path, compute = language_model("gpt2"), tmp_path / "partial.safetensors", collecting._PartTask._add

    def failing(self, rows, totals, counts):
        compute(self, rows, totals, counts)
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(collecting, "_SECONDS", 0)
        patched.setattr(collecting._PartTask, "_add", failing)
        collect(model, tokenizer, texts(150), checkpoint=path)
    goes_on(model, tokenizer, path)


def test_a_pass_that_is_broken_off_without_a_file_keeps_the_parts_that_are_done(
    language_model, tokenizer, tmp_path, monkeypatch
):
    model, path, calls = language_model("gpt2"), tmp_path / "partial.safetensors", []
    compute = collecting._PartTask.__call__

    def failing(self, read):
        calls.append(read)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(self, read)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(collecting._PartTask, "__call__", failing)
        collect(model, tokenizer, texts(150), checkpoint=path)
    goes_on(model, tokenizer, path)


def test_a_killed_pass_goes_on_from_the_last_file(language_model, tokenizer, tmp_path, monkeypatch):
    model, path = language_model("gpt2"), tmp_path / "partial.safetensors"

    def killed():
        yield from texts(150)[:100]
        path.rename(tmp_path / "left.safetensors")  # nothing that runs later can change this one
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(collecting, "_SECONDS", 0)
        collect(model, tokenizer, killed(), checkpoint=path)
    goes_on(model, tokenizer, tmp_path / "left.safetensors")


def test_a_checkpoint_of_something_else_is_refused(language_model, tokenizer, tmp_path):
    model, path = language_model("gpt2"), tmp_path / "partial.safetensors"
    collect(model, tokenizer, texts(10), checkpoint=path)
    with pytest.raises(ArgumentError, match="other texts or other tokens"):
        collect(model, tokenizer, texts(10, seed=1), checkpoint=path)
    with pytest.raises(ArgumentError, match="wanted are layers 1"):
        collect(model, tokenizer, texts(10), [1], checkpoint=path)
    with pytest.raises(ArgumentError, match="another model"):
        collect(language_model("llama"), tokenizer, texts(10), checkpoint=path)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (None, "got NoneType"),
        (3, "got int"),
        ({"train": ["w1"], "test": ["w2"]}, "with train, test: give one of them"),
        ([{"words": "w1"}], "rows with a 'text', got {'words': 'w1'}"),
    ],
)
def test_what_is_no_corpus_says_what_was_given(corpus, message, language_model, tokenizer):
    with pytest.raises(ArgumentError, match=message):
        collect(language_model("gpt2"), tokenizer, corpus)


def test_a_checkpoint_of_other_tokens_of_the_same_texts_is_refused(language_model, tokenizer, tmp_path):
    model, path = language_model("gpt2"), tmp_path / "partial.safetensors"
    collect(model, tokenizer, texts(10), checkpoint=path, max_length=5)
    with pytest.raises(ArgumentError, match="other tokens"):
        collect(model, tokenizer, texts(10), checkpoint=path)


def test_merged_parts_are_the_whole(language_model, tokenizer):
    model, corpus = language_model("gpt2"), texts(40)
    parts = [collect(model, tokenizer, some) for some in (corpus[:15], corpus[15:])]
    merged, whole = parts[0].merge(parts[1]), collect(model, tokenizer, corpus)
    assert merged[0].count == whole[0].count and merged.texts == 40
    assert torch.allclose(merged[0].matrix, whole[0].matrix, rtol=1e-5)
    with pytest.raises(ArgumentError, match="cannot merge"):
        parts[0].merge(collect(model, tokenizer, corpus, [1]))
    with pytest.raises(ArgumentError, match="of the same texts"):
        parts[0].merge(parts[0])


def test_saved_and_read_back(language_model, tokenizer, tmp_path):
    model, path = language_model("gpt2"), tmp_path / "folder" / "statistics.safetensors"
    statistics = collect(model, tokenizer, texts(10))
    statistics.save(path)
    again = KeyStatistics.load(path, model)
    assert repr(again) == repr(statistics) and torch.equal(again[2].total, statistics[2].total)
    assert again.corpus == statistics.corpus
    with pytest.raises(ArgumentError, match="other weights"):
        KeyStatistics.load(path, language_model("llama"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArgumentError, match="cannot be read"):
        KeyStatistics.load(path)


def test_statistics_are_stale_after_any_change_of_the_weights(language_model, tokenizer):
    model = language_model("gpt2")
    statistics = collect(model, tokenizer, texts(5))
    weight = model.transformer.h[1].attn.c_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[3, 4] += 1e-3
    with pytest.raises(ArgumentError, match="collect them again"):
        statistics.check(model)
    with torch.no_grad():
        weight.copy_(before)
    statistics.check(model, [2])
    with pytest.raises(ArgumentError, match="no statistics of layer 1"):
        statistics.check(model, [1])


def test_enough_keys_end_an_endless_corpus(language_model, tokenizer):
    def endless():
        while True:
            yield from texts(20)

    statistics = collect(language_model("gpt2"), tokenizer, endless(), enough=3)
    assert 3 * 128 <= statistics[0].count < 3 * 128 + 16 * 4 * 30


def test_corpora_of_every_kind_give_the_same(language_model, tokenizer, tmp_path):
    model, corpus = language_model("gpt2"), texts(12)
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(corpus), encoding="utf-8")
    wanted = collect(model, tokenizer, corpus)
    for given in (iter(corpus), [{"text": text} for text in corpus], path, str(path), ["  ", *corpus]):
        assert collect(model, tokenizer, given).corpus == wanted.corpus


def test_long_texts_are_cut_off(language_model, tokenizer):
    assert collect(language_model("gpt2"), tokenizer, ["w1 " * 500]).moments[0].count == 64
    assert collect(language_model("gpt2"), tokenizer, ["w1 " * 500], max_length=10).moments[0].count == 10


def test_float32_sums_are_close_to_float64_ones(language_model, tokenizer):
    model, corpus = language_model("gpt2"), texts(40)
    single, double = (
        collect(model, tokenizer, corpus, dtype=dtype)[0] for dtype in (torch.float32, torch.float64)
    )
    assert single.total.dtype == torch.float32 and torch.allclose(
        single.matrix, double.matrix, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, language_model, tokenizer):
    import copy

    model, corpus = language_model("llama"), texts(20)
    half = collect(copy.deepcopy(model).to(dtype), tokenizer, corpus)[0].matrix
    full = collect(model, tokenizer, corpus)[0].matrix
    assert float((half - full).norm() / full.norm()) < 0.05


@pytest.mark.parametrize("corpus", [[], [""], iter(())])
def test_an_empty_corpus_says_so(corpus, language_model, tokenizer):
    with pytest.raises(ArgumentError, match="empty corpus"):
        collect(language_model("gpt2"), tokenizer, corpus)


@pytest.mark.parametrize(
    ("layers", "message"), [([], "a list of layers"), ([3], "no layer 3"), ([-1], "no layer -1")]
)
def test_layers_that_do_not_exist(layers, message, language_model, tokenizer):
    with pytest.raises(ArgumentError, match=message):
        collect(language_model("gpt2"), tokenizer, texts(2), layers)


def test_what_is_no_text_and_what_has_no_down_projection(language_model, tokenizer):
    with pytest.raises(ArgumentError, match="rows with a 'text'"):
        collect(language_model("gpt2"), tokenizer, [1])
    with pytest.raises(ArchitectureError, match="mixture of experts"):
        collect(language_model("mixtral"), tokenizer, texts(2))
