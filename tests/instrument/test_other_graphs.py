"""The graph of a pass against those of torch.fx and torch.export."""

import pytest
import torch
from models_to_trace import TOKENS, network
from torch import nn

from toumei.core.errors import ArchitectureError
from toumei.instrument import compare_with_export, compare_with_fx, instrument


def graph_of(model, *args, **kwargs):
    with instrument(model) as probe, probe.track([]) as tracker:
        model(*args, **kwargs)
    return tracker.build_graph()


class Blocks(nn.Module):
    """The same steps in every graph, and one more where a flag says so."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.more = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.GELU()), False

    def forward(self, x):
        y = torch.relu(self.first(x)) + x
        y = self.second(y).view(2, 2, 2).softmax(-1) * 2
        return y.tanh() if self.more else y


@pytest.mark.parametrize("compare", [compare_with_fx, compare_with_export])
def test_the_same_operations_in_the_same_modules(compare):
    model = Blocks()
    graph = graph_of(model, torch.ones(2, 4))
    found = compare(graph)
    assert not found and found.both == 7
    model.more = True  # the model goes on in another way than in the pass
    found = compare(graph)
    assert found and found.only_there == {"/tanh": 1} and found.only_here == {}
    assert "/tanh x 1" in str(found) and len(repr(found)) < 200


def test_resnets_are_exported_alike(watched):
    model, inputs = network("resnet18")
    watched(model)
    assert not compare_with_export(graph_of(model, *inputs()[0]))


def test_a_fused_operation_is_one_here_and_several_there():
    model, inputs = network("vit")
    found = compare_with_export(graph_of(model, *inputs()[0]))
    assert all(name.endswith("multi_head_attention_forward") for name in found.only_here)
    assert any("scaled_dot_product_attention" in name for name in found.only_there)


def test_models_that_cannot_be_traced():
    model, inputs = network("llama")
    graph = graph_of(model, *inputs()[0])
    with pytest.raises(ArchitectureError, match=r"torch\.fx cannot trace the LlamaForCausalLM"):
        compare_with_fx(graph)
    with pytest.raises(ArchitectureError, match=r"torch\.export cannot export"):
        compare_with_export(graph)
    found = compare_with_export(graph, kwargs={"input_ids": TOKENS, "use_cache": False})
    assert found.both > 50
