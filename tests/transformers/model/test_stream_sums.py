"""The residual stream of a written network is found part by part, whatever the order of its sums."""

import pytest
import torch
from architectures import build
from encoders import build_encoder, inputs_of
from torch import nn

from toumei.core.errors import ArchitectureError
from toumei.instrument import find_feed_forward, find_multi_head_attention, instrument
from toumei.transformers.model.stream_sums import find_stream_sums


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (one.unflatten(-1, (2, 4)).transpose(1, 2) for one in self.inner(x).chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) * 0.5).softmax(-1)
        return self.outer((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.norm, self.attn, self.order = nn.LayerNorm(8), Attention(), order
        self.mlp, self.other = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)), nn.Linear(8, 8)

    def forward(self, x):
        if self.order == "parallel":
            return x + self.attn(self.norm(x)) + self.mlp(self.norm(x))
        if self.order == "post":
            x = self.norm(x + self.attn(x))
            return x + self.mlp(x)
        if self.order == "scaled":
            x = x + 0.3 * self.attn(self.norm(x))
            return x + self.norm(self.mlp(self.norm(x)))
        if self.order == "other":
            x = x + self.attn(self.norm(x))
            x = x + torch.tanh(self.other(x))
            return x + self.mlp(self.norm(x))
        if self.order == "split":  # two tensors of one part, added one after the other
            x = x + self.attn(self.norm(x))
            hidden = self.mlp(self.norm(x))
            return x + hidden * 3 + hidden * 2
        x = self.attn(self.norm(x)) + x
        return self.mlp(self.norm(x)) + x


class Network(nn.Module):
    def __init__(self, order, blocks=2):
        super().__init__()
        self.embed, self.position = nn.Embedding(11, 8), nn.Embedding(11, 8)
        self.blocks = nn.Sequential(*(Block(order) for _ in range(blocks)))

    def forward(self, ids):
        return self.blocks(self.embed(ids) + self.position(ids * 0 + torch.arange(ids.shape[1])))


def stream_of(model, *inputs, **named):
    with torch.no_grad(), instrument(model.eval()) as probe, probe.track() as tracker:
        model(*inputs, **named)
    graph = tracker.build_graph()
    attentions, networks = list(find_multi_head_attention(graph)), list(find_feed_forward(graph))
    return graph, find_stream_sums(graph, attentions, networks)


IDS = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))
PARTS = [("attn", 0), ("mlp", 0), ("attn", 1), ("mlp", 1)]


@pytest.mark.parametrize("order", ["sequential", "parallel", "scaled"])
def test_one_sum_has_all_parts_and_every_partial_sum_is_that_of_its_parts(order):
    graph, (segment,) = stream_of(Network(order), IDS)
    assert list(segment.parts) == PARTS
    assert len(segment.start) == 2
    assert not segment.others
    nodes = {node.name: node for node in [*segment.start, *segment.parts.values(), *segment.sums.values()]}
    values = graph.replay(record=list(nodes.values()))
    start = sum(values[node.name] for node in segment.start)
    assert len(segment.sums) == 5
    for components, node in segment.sums.items():
        total = start + sum(values[segment.parts[one].name] for one in components)
        torch.testing.assert_close(values[node.name], total)


def test_norms_in_the_stream_divide_it():
    _, segments = stream_of(Network("post"), IDS)
    parts = [list(segment.parts) for segment in segments]
    assert parts == [[("attn", 0)], [("mlp", 0), ("attn", 1)], [("mlp", 1)]]


def test_what_is_neither_attention_nor_network_has_the_name_of_its_module():
    graph, (segment,) = stream_of(Network("other"), IDS)
    parts = [("attn", 0), ("other", 0), ("mlp", 0), ("attn", 1), ("other", 1), ("mlp", 1)]
    assert list(segment.parts) == parts
    assert not segment.others
    assert set(segment.sums) == {frozenset(parts[:count]) for count in range(7)}
    values = graph.replay(record=[segment.parts["other", 1], segment.sums[frozenset(parts[:4])]])
    read = values[segment.sums[frozenset(parts[:4])].name]
    other = torch.tanh(graph.memory.model.blocks[1].other(read))
    torch.testing.assert_close(values[segment.parts["other", 1].name], other)


def test_what_is_in_no_block_is_kept_apart():
    class Tail(Network):
        def __init__(self):
            super().__init__("sequential")
            self.tail = nn.Linear(8, 8)

        def forward(self, ids):
            x = super().forward(ids)
            return x + self.tail(x)

    _, (segment,) = stream_of(Tail(), IDS)
    assert list(segment.parts) == PARTS
    assert len(segment.others) == 1
    assert set(segment.sums) == {frozenset(PARTS[:count]) for count in range(5)}


def test_a_part_that_is_added_in_two_steps_is_refused():
    with pytest.raises(ArchitectureError, match="not all that comes from one part"):
        stream_of(Network("split"), IDS)


def test_without_sums_there_is_no_stream():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = Attention()

        def forward(self, x):
            return self.attn(x)

    with pytest.raises(ArchitectureError, match="no residual stream"):
        stream_of(Chain(), torch.ones(2, 5, 8))


def test_experts_and_a_shared_one_are_one_part():
    _, (segment,) = stream_of(build("qwen2_moe"), **inputs_of(build("qwen2_moe")))
    assert [kind for kind, _ in segment.parts] == ["attn", "mlp"] * 3


def test_bert_has_a_sum_between_two_norms():
    model = build_encoder("bert")
    _, segments = stream_of(model, **inputs_of(model))
    assert [list(one.parts) for one in segments] == [
        [(kind, layer)] for layer in range(3) for kind in ("attn", "mlp")
    ]
