"""Layer conductance against integrated gradients and captum, and where a layer carries only a part."""

import captum.attr
import pytest
import torch
from torch import nn

from toumei.attribution import IntegratedGradients, LayerConductance
from toumei.core.errors import ArgumentError


class Branch(nn.Module):
    """A residual sum, which counts what passes."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
        self.passed = []

    def forward(self, x):
        self.passed.append(len(x))
        return self.last(x + self.act(self.first(x)))


@pytest.fixture
def smooth(watched):
    torch.manual_seed(0)
    return watched(nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)))


@pytest.fixture
def inputs():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_conductance_of_the_layer_after_a_linear_map_is_its_integral(smooth, inputs):
    # a linear map goes straight where the inputs do, so both paths are one
    values = LayerConductance(smooth, "0", steps=512)(inputs, 1).values
    assert torch.allclose(values, IntegratedGradients(smooth, "0")(inputs, 1).values, atol=1e-5)


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4"])
def test_conductances_of_every_layer_add_up(smooth, inputs, layer):
    result = LayerConductance(smooth, layer, tolerance=1e-3, batch_size=7)(inputs, [0, 2], torch.randn(6))
    assert (result.gap.abs() <= 1.1e-3 * (result.output - result.baseline_output).abs().clamp(min=1e-3)).all()
    alone = LayerConductance(smooth, layer, steps=16)(inputs[1:2], 2).values
    together = LayerConductance(smooth, layer, steps=16, batch_size=1)(inputs, 2).values
    assert torch.allclose(alone[0], together[1], atol=1e-6)


def test_conductance_converges_to_captums(smooth, inputs):
    values = LayerConductance(smooth, "3", steps=64)(inputs, 1).values
    theirs = captum.attr.LayerConductance(smooth, smooth[3]).attribute(
        inputs, torch.zeros(1, 6), target=1, n_steps=300
    )
    assert torch.allclose(values, theirs.float(), atol=3e-3)


def test_conductance_of_a_branch_stops_where_its_sum_stays(watched, inputs):
    torch.manual_seed(0)
    model = watched(Branch())
    with pytest.warns(UserWarning, match="layer 'act' carries only a part .* of . of 5 inputs") as told:
        result = LayerConductance(model, "act")(inputs, target=1)
    assert len(told) == 1 and sum(model.passed) < 100 * len(inputs)
    # what it carries is the rest of what goes straight through the sum
    straight = model.last(inputs)[:, 1] - model.last(torch.zeros(1, 6))[:, 1]
    assert torch.allclose(-result.gap.float(), straight.detach(), atol=1e-2)


def test_a_sum_that_comes_near_slowly_is_not_taken_for_that_of_a_branch():
    for seed in range(10):
        torch.manual_seed(seed)
        layers = nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        result = LayerConductance(nn.Sequential(*layers), "1", max_steps=4096)(torch.randn(8, 10), 0)
        wanted = (result.output - result.baseline_output).abs().clamp(min=1e-3)
        assert (result.gap.abs() <= 1.01e-2 * wanted).all()


def test_all_of_conductance_passes_in_batches(watched, inputs):
    model = watched(Branch())
    result = LayerConductance(model, "first", steps=1, batch_size=2)(inputs, torch.tensor([0, 1, 2, 0, 1]))
    assert max(model.passed) <= 4  # both ends of the steps that two nodes lie in
    scores = model(inputs)[torch.arange(5), torch.tensor([0, 1, 2, 0, 1])]
    assert torch.allclose(result.output, scores.detach(), atol=1e-6)


def test_whole_numbers_have_no_gradient():
    with pytest.raises(ArgumentError, match="have no gradient, .*IntegratedGradients"):
        LayerConductance(nn.Sequential(nn.Embedding(3, 2), nn.Flatten()), "0")(torch.ones(1, 1).long(), 0)
