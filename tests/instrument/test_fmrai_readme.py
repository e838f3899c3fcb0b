"""The code of fMRAi's README with another import path, on models for which fMRAi itself fails."""

import copy

import matplotlib.pyplot as plt
import pytest
import torch
import transformers
from models_to_trace import network

from toumei.core.errors import TrackingError


class Words:
    """A tokenizer as the README calls one."""

    def __call__(self, text, return_tensors):
        ids = [3 + len(word) for word in text.split()]
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}


def attentions(model, inputs):
    """The weights that the model itself returns; transformers leaves its hooks on the copy."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    found = model(**inputs, output_attentions=True).attentions
    for module in model.modules():
        module._forward_hooks.clear()
    return found


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_instrumentation_and_attention(name, implementation, tmp_path, watched):
    from toumei.instrument import find_multi_head_attention, fmrai, instrument_model

    model, tokenizer = watched(network(name)[0]), Words()
    model.set_attn_implementation(implementation)
    with fmrai() as fmr:
        m = instrument_model(model)

        with fmr.track() as tracker:
            with torch.no_grad():
                m(**tokenizer("Hello World", return_tensors="pt"))
                g = tracker.build_graph()

        g.save_dot(tmp_path / "graph.dot")
        attention = list(find_multi_head_attention(g))

        with fmr.track() as tracker:
            with torch.no_grad():
                m(**tokenizer("another longer sentence", return_tensors="pt"))
                computation = tracker.build_map()

        if implementation == "eager":
            found = computation.get(attention[0].softmax_value.tensor_id)
        with fmr.track(track_tensors=[attention[0].softmax_value]) as tracker, torch.no_grad():
            m(**tokenizer("another longer sentence", return_tensors="pt"))
        tracked = tracker.build_map()[attention[0].softmax_value]
    wanted = attentions(model, tokenizer("another longer sentence", return_tensors="pt"))
    assert torch.allclose(tracked, wanted[0], atol=1e-6)
    if implementation == "eager":
        assert torch.equal(found, wanted[0])
    assert len(attention) == len(wanted) and attention[0].num_heads == 4
    assert "digraph" in (tmp_path / "graph.dot").read_text()


def test_attention_head_clustering():
    from toumei import instrument as fmrai
    from toumei.instrument import AttentionHeadClusterAnalyzer, instrument_model

    model, _ = network("bert")
    generator = torch.Generator().manual_seed(0)
    lengths = [(3, 7), (2, 5)]
    loader = [
        transformers.BatchEncoding({"input_ids": torch.randint(3, 90, size, generator=generator)})
        for size in lengths
    ]
    with fmrai.fmrai():
        with torch.no_grad():
            m = instrument_model(model)

            # process first batch since atm the first time a computation
            # graph is created it includes model parameters while subsequent
            # times don't (need to fix this)
            first_batch = next(iter(loader))
            m(**first_batch.to(model.device))

            analyzer = AttentionHeadClusterAnalyzer()
            for batch in loader:
                with analyzer.track_batch():
                    m(**batch)

            # analyze and plot attention heads!
            analyzer.analyze().plot(figsize=(16, 16))
    plt.close("all")
    direct = AttentionHeadClusterAnalyzer()
    for batch in loader:
        direct.add(attentions(model, batch))
    found = analyzer.analyze()
    assert found.texts == 5
    assert torch.allclose(found.divergences, direct.analyze().divergences, atol=1e-7)
    with pytest.raises(TrackingError, match="fmrai"):
        with AttentionHeadClusterAnalyzer().track_batch():
            pass


def test_key_value_memories():
    from toumei.instrument import KeyValueAnalyzer, KeyValueMaxSearchStrategy, fmrai, instrument_model

    model, _ = network("llama")
    ids = torch.randint(3, 90, (4, 6), generator=torch.Generator().manual_seed(0))
    with fmrai(), torch.no_grad():
        m = instrument_model(model)
        analyzer = KeyValueAnalyzer(KeyValueMaxSearchStrategy.PREFIX, max_entries=2)
        with analyzer.track_batch():
            m(ids)
    (first, second) = analyzer.analyze().get(1, 5)
    assert abs(first.value) >= abs(second.value)
    assert {first.instance_idx, second.instance_idx} <= set(range(4))


def test_feed_forward_networks():
    from toumei.instrument import FindTransformerFFN, instrument

    model, inputs = network("llama")
    with instrument(model) as probe, probe.track([]) as tracker:
        model(*inputs()[0])
    found = list(FindTransformerFFN(tracker.build_graph()).search())
    assert [one.linear_bottom.module for one in found] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert {one.act.function for one in found} == {"silu"} and len({one.linear_top for one in found}) == 2
