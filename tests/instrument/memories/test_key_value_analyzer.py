"""Batches that the user runs, under fMRAi's names, give the same triggers as a pass over the texts."""

from types import SimpleNamespace

import pytest
import torch
from memory_models import corpus, layers_of, tiny, words
from torch import nn

from toumei.core.errors import (
    ArchitectureError,
    ArgumentError,
    LayerError,
    ShapeError,
    UnitError,
    UnreachedLayerError,
)
from toumei.instrument.memories import coefficient_reader
from toumei.instrument.memories.key_value_analyzer import KeyValueAnalyzer, KeyValueMaxSearchStrategy
from toumei.instrument.memories.key_value_memories import KeyValueMemories

PREFIX, CLS = KeyValueMaxSearchStrategy


def source(model, kind):
    return SimpleNamespace(model=model, down_projections=layers_of(kind))


def tracked(model, kind, texts, strategy=PREFIX, size=7, side="right", **options):
    analyzer = KeyValueAnalyzer(strategy, source=source(model, kind), **options)
    for start in range(0, len(texts), size):
        inputs = words()(texts[start : start + size], padding=True, padding_side=side, return_tensors="pt")
        with analyzer.track_batch(attention_mask=inputs.attention_mask):
            model(inputs.input_ids, attention_mask=inputs.attention_mask)
    return analyzer


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("strategy", [PREFIX, CLS])
def test_records_are_those_of_a_pass_over_the_texts(kind, strategy, watched, monkeypatch):
    monkeypatch.setattr(coefficient_reader, "_PRUNED_FROM", 5)
    model, texts = watched(tiny(kind)), corpus()
    results = tracked(model, kind, texts, strategy, max_entries=4).analyze(tokenizer=words())
    memories = KeyValueMemories(
        model, words(), layers_of(kind), triggers=4, strategy=strategy.value, verbose=False
    )(texts)
    assert results.keys()[-1] == (1, len(memories.layer(1)) - 1)
    for layer, neuron in results.keys()[::7]:
        shown = memories.neuron(layer, neuron)
        every = sorted((*shown.triggers, *shown.lowest), key=lambda trigger: -abs(trigger.value))[:4]
        for record, trigger in zip(results.get(layer, neuron), every, strict=True):
            assert (record.instance_idx, record.prefix_idx) == (trigger.number, trigger.position)
            assert (record.value, record.z) == pytest.approx((trigger.value, trigger.z))
            assert results.tokenization[record.instance_idx] == tuple(texts[trigger.number].split())


def test_padding_on_the_left_is_no_token():
    """A model without attention and positions sees each token alone, wherever it stands."""
    from memory_models import Planted

    model = Planted(torch.tensor([5, 6]), torch.tensor([5, 6]))
    found = []
    for side in ("left", "right"):
        analyzer = KeyValueAnalyzer(PREFIX, source=SimpleNamespace(model=model, down_projections=["down"]))
        inputs = words()(["w1 w5", "w2 w3 w4 w6"], padding=True, padding_side=side, return_tensors="pt")
        with analyzer.track_batch(attention_mask=inputs.attention_mask):
            model(inputs.input_ids)
        results = analyzer.analyze(tokenizer=words())
        found.append(([results.get(0, 0), results.get(0, 1)], results.tokenization))
    assert found[0] == found[1]
    (first, second), tokens = found[0]
    assert first[0][:3] == (0, 1, 1.0) and second[0][:3] == (1, 3, 1.0) and tokens[0] == ("w1", "w5")


def test_a_block_that_fails_or_runs_nothing_adds_nothing():
    model = tiny("gpt2")
    analyzer = tracked(model, "gpt2", corpus(count=7))
    before = analyzer.analyze().get(0, 3)
    with pytest.raises(KeyError), analyzer.track_batch():
        model(torch.ones(1, 3, dtype=torch.long))
        raise KeyError
    with pytest.raises(UnreachedLayerError), analyzer.track_batch():
        pass
    assert analyzer.analyze().get(0, 3) == before and analyzer.analyze().tokenization is None


def test_masks_that_do_not_fit():
    model = tiny("gpt2")
    analyzer = KeyValueAnalyzer(PREFIX, source=source(model, "gpt2"))
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"mask is \(2, 4\), and the tokens \(2, 3\)"):
        with analyzer.track_batch(attention_mask=torch.ones(2, 4)):
            model(ids)
    with pytest.raises(ArgumentError, match="hides all tokens"):
        with analyzer.track_batch(attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]])):
            model(ids)
    with pytest.raises(ArgumentError, match="no batch was tracked"):
        analyzer.analyze()


def test_what_is_not_there():
    model = tiny("gpt2")
    results = tracked(model, "gpt2", corpus(count=3)).analyze()
    with pytest.raises(LayerError, match="layers 0 to 1"):
        results.get(2, 0)
    with pytest.raises(UnitError, match="neurons 0 to 63"):
        results.get(0, 64)
    with pytest.raises(ArgumentError, match="max_entries"):
        KeyValueAnalyzer(PREFIX, max_entries=0, source=source(model, "gpt2"))
    plain = SimpleNamespace(model=nn.Sequential(nn.Linear(2, 2)), down_projections=["0"])
    with pytest.raises(ArchitectureError, match="no input embedding"):
        KeyValueAnalyzer(PREFIX, source=plain)
    assert len(repr(results)) < 200
