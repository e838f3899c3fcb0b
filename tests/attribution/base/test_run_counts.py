"""Layers that run several times in a pass: the last run is the one that counts."""

import pytest
import torch
from torch import nn

from toumei.attribution import InputXGradient, IntegratedGradients, Saliency
from toumei.core.errors import ArgumentError, ShapeError, UnreachedLayerError


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


class Repeating(nn.Module):
    """A linear map from 3 to 4 numbers, a ReLU, then a map from 4 to 4 and the ReLU again and again."""

    def __init__(self, times=2):
        super().__init__()
        self.first, self.next, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.relu, self.times, self.ended = nn.ReLU(), times, 0

    def forward(self, x):
        hidden = self.relu(self.first(x))
        for _ in range(self.times if isinstance(self.times, int) else self.times(x)):
            hidden = self.relu(self.next(hidden))
        self.ended += 1
        return self.last(hidden)


def test_units_of_a_layer_that_runs_again_and_again_are_those_of_its_last_run(x):
    torch.manual_seed(0)
    model = Repeating()
    leaf = x.clone().requires_grad_()
    hidden = model.relu(model.first(leaf))
    for _ in range(2):
        hidden = model.relu(model.next(hidden))
    (gradient,) = torch.autograd.grad(hidden[:, 1].sum(), leaf)
    alone = Saliency(model, absolute=False)(x, "relu:1")
    assert model.ended == 1  # while runs were counted, not behind the last of them
    beside = Saliency(model, absolute=False)(x, ["relu:1", 0])[0]
    for result in (alone, beside):
        assert torch.allclose(result.output, hidden[:, 1].detach(), atol=1e-6)
        assert torch.allclose(result.values, gradient, atol=1e-6)


def test_a_network_may_fail_behind_units():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 2))
    images = torch.rand(1, 1, 9, 9)  # the head is for 5 x 5
    values = Saliency(model, absolute=False)(images, "0:1:2:3").values
    assert torch.equal(values[0, 0, 2:5, 3:6], model[0].weight[1, 0].detach())
    for target in ("2:0", 0, ["0:1:2:3", 0]):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            Saliency(model)(images, target)


def test_runs_of_other_shapes_are_left_as_they_are(x):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), relu := nn.ReLU(), nn.Linear(6, 4), relu, nn.Linear(4, 2))
    result = InputXGradient(model, layer="1")(x, target=1)
    assert torch.allclose(result.values, (model[:4](x) * model[4].weight[1]).detach(), atol=1e-6)


@pytest.mark.parametrize("target", ["relu:1", 0])
def test_a_number_of_runs_that_depends_on_the_inputs_is_an_error(x, target):
    model = Repeating(lambda x: int(x.abs().max() > 0.1))
    with pytest.raises(ArgumentError, match="'relu' ran 2 times in the first pass and 1 time in another"):
        IntegratedGradients(model, layer=None if target else "relu")(x, target)


def test_layers_that_do_not_run_or_mix_the_inputs_are_told(x):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.never, self.mean = nn.Linear(3, 3), nn.Identity()

        def forward(self, x):
            return x * self.mean(x.mean(0, keepdim=True))

    with pytest.raises(UnreachedLayerError, match="never"):
        Saliency(Lazy(), layer="never")(x, target=0)
    with pytest.raises(UnreachedLayerError, match="never"):
        Saliency(Lazy())(x, target="never:0")
    with pytest.raises(ShapeError, match=r"'mean' is \(1, 3\), expected a row for each of the 5 inputs"):
        Saliency(Lazy(), layer="mean")(x, target=0)
