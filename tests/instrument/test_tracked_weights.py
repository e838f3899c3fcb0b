import pytest
import torch
from torch import nn
from tracked import PADDED, graph_of, transformer

from toumei.instrument import instrument
from toumei.instrument.search.attention import find_multi_head_attention


def tracked(model, only, *inputs, **options):
    with torch.no_grad(), instrument(model) as probe, probe.track(only=only) as tracker:
        model(*inputs, **options)
    return tracker.build_map()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral", "bert", "t5", "vit"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_weights_are_tracked_by_their_nodes(kind, attention):
    model, inputs = transformer(kind, attention)
    instances = list(find_multi_head_attention(graph_of(model, **inputs)))
    nodes = [one.softmax_value for one in instances]
    for only in (nodes, [*nodes, "*/add"]):  # names alone, and with a pattern
        kept = tracked(model, only, **inputs)
        for one in instances:
            assert kept[one.softmax_value].shape == one.softmax_value.shape
            assert torch.equal(one.weights(kept), one.weights())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_mask_that_the_first_pass_did_not_have_counts(kind):
    model, inputs = transformer(kind, "sdpa")
    (_, second) = find_multi_head_attention(graph_of(model, **inputs))
    weights = second.weights(tracked(model, [second.softmax_value], **PADDED))
    assert (weights[1, :, :3, 3:] == 0).all()
    eager, _ = transformer(kind, "eager")
    (_, expected) = find_multi_head_attention(graph_of(eager, **PADDED))
    assert (weights[:, :, :3] - expected.weights()[:, :, :3]).abs().max() < 1e-6


def test_lengths_may_differ_from_pass_to_pass():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    (one,) = find_multi_head_attention(graph_of(layer, torch.randn(1, 3, 16)))
    with torch.no_grad(), instrument(layer) as probe:
        with probe.track(only=[one.softmax_value], batched=True) as tracker:
            layer(torch.randn(2, 5, 16))
            layer(torch.randn(1, 4, 16))
    kept = tracker.build_map()
    assert [value.shape for value in kept[one.softmax_value]] == [(2, 4, 5, 5), (1, 4, 4, 4)]
    assert kept.get_cat(one.softmax_value, pad=0).shape == (3, 4, 5, 5)


def test_tracking_leaves_the_output_as_it_is():
    model, inputs = transformer("llama", "sdpa")
    (first, *_) = find_multi_head_attention(graph_of(model, **inputs))
    plain = model(**inputs).logits
    with instrument(model) as probe, probe.track(only=[first.softmax_value]) as tracker:
        output = model(**inputs).logits
    assert torch.equal(output, plain)
    assert not tracker.build_map()[first.softmax_value].requires_grad
    output.sum().backward()
    assert model.model.embed_tokens.weight.grad is not None


@pytest.mark.filterwarnings("ignore:flex_attention called", "ignore:_compile flag")
def test_flex_attention_of_a_model_that_makes_its_mask_with_vmap():
    model, inputs = transformer("llama", "flex_attention")
    eager, _ = transformer("llama", "eager")
    both = [list(find_multi_head_attention(graph_of(one, **inputs))) for one in (model, eager)]
    for one, other in zip(*both, strict=True):
        assert (one.kind, other.kind) == ("flex_attention", "softmax")
        assert (one.weights() - other.weights()).abs().max() < 1e-6
