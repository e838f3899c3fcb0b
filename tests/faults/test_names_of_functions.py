"""A function has the same meaning under each of its names, in every part of the library."""

import pytest
import torch
from torch import nn

from toumei.attribution import DeepLift
from toumei.core import run
from toumei.misc.modularity import WeightGraph

NAMES = {
    "clamp": [lambda x: x.clamp(min=0), lambda x: x.clip(min=0), lambda x: torch.clip(x, 0)],
    "abs": [torch.abs, torch.absolute, lambda x: x.absolute(), abs],
    "sigmoid": [torch.sigmoid, torch.special.expit, nn.Sigmoid(), nn.functional.sigmoid],
    "divide": [lambda x: x / 2, lambda x: torch.divide(x, 2), lambda x: x.true_divide(2), lambda x: x.div(2)],
    "multiply": [lambda x: x * 3, lambda x: torch.multiply(x, 3), lambda x: x.mul(3)],
    "subtract": [lambda x: x - 1, lambda x: torch.subtract(x, 1), lambda x: x.sub(1)],
    "negative": [lambda x: -x, torch.negative, lambda x: x.neg()],
}


class Net(nn.Module):
    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.between = nn.Linear(4, 3), nn.Linear(3, 2), between

    def forward(self, x):
        return self.last(self.between(self.first(x)))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_function_are_one_function(name):
    x = torch.randn(3, 4)
    plain, *others = (Net(between).eval() for between in NAMES[name])
    graph = WeightGraph.from_model(plain, x)
    values = DeepLift(plain)(x, 1).values
    for net in others:
        found = WeightGraph.from_model(net, x)
        assert len(found.blocks) == len(graph.blocks) == 2
        for one, other in zip(found.blocks, graph.blocks, strict=True):
            torch.testing.assert_close(one.weight, other.weight)
        torch.testing.assert_close(DeepLift(net)(x, 1).values, values)


@pytest.mark.parametrize("between", [torch.clip, torch.clamp])
def test_operations_are_recorded_under_one_name(between):
    net = Net(lambda x: between(x, 0)).eval()
    x = torch.randn(3, 4)
    torch.testing.assert_close(run(net, x, record=["/clamp"])["/clamp"], net.first(x).clamp(min=0))
