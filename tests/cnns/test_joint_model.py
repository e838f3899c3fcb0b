"""One picture for several networks: their scores, gradients and layers are those of each alone."""

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import JointModel
from toumei.core.errors import ArgumentError, LayerError, UnreachedLayerError
from toumei.core.hooks import run


def network(seed, width=4):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, width, 3), nn.ReLU(inplace=True), nn.Conv2d(width, 5, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def darker(pictures):
    return pictures - 0.5


@pytest.fixture
def two(watched):
    return watched(network(0)), watched(network(1, width=6))


def start(objective, model):
    return obj.Pipeline(param.PixelImage(2, 3, 12, 10, sd=0.2, seed=1), objective).attach(model)


def test_the_score_is_the_sum_of_those_of_each_network_alone(two):
    both = JointModel({"a": two[0], "b": two[1]}, {"b": darker})
    fv = start(obj.Channel("a.2:1") + 2 * obj.Neuron("b.0:5"), both)
    with torch.no_grad():
        first = two[0][:3](fv.image)[:, 1].mean((1, 2))
        second = two[1][0](darker(fv.image))[:, 5, 5, 4]
    torch.testing.assert_close(-fv.optimize(1, verbose=False).losses[0], first + 2 * second)


def test_the_picture_gets_the_gradients_of_both(two):
    both = JointModel({"a": two[0], "b": two[1]}, {"b": darker})
    picture = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = run(both, picture, record=["a.2", "b.2"])
    whole = torch.autograd.grad(found["a.2"].sum() + found["b.2"].sum(), picture)[0]
    alone = [two[0][:3](picture).sum(), two[1][:3](darker(picture)).sum()]
    torch.testing.assert_close(whole, sum(torch.autograd.grad(score, picture)[0] for score in alone))


def test_optimizing_raises_the_units_of_all_and_leaves_the_networks(two):
    both = JointModel({"a": two[0], "b": two[1]})
    losses = (
        start(obj.Channel("a.2:1") + obj.ClassLogit(2, layer="b"), both).optimize(5, verbose=False).losses
    )
    assert (losses[-1] < losses[0]).all()
    assert both.a is two[0] and both.b is two[1]


def test_each_network_gets_its_own_precision(two):
    both = JointModel({"a": two[0], "b": two[1].double()})
    outputs = both(torch.rand(1, 3, 9, 9))
    assert (outputs["a"].dtype, outputs["b"].dtype) == (torch.float32, torch.float64)
    two[1].float()


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64])
def test_each_network_sees_what_it_sees_alone(watched, other):
    networks = {"a": watched(network(0).to(other)), "b": watched(network(1))}
    both = JointModel(networks)
    for name, alone in networks.items():
        losses = [
            start(unit, model).optimize(2, verbose=False).losses
            for unit, model in ((f"{name}.2:1", both), ("2:1", alone))
        ]
        torch.testing.assert_close(*losses, rtol=0, atol=0)


def test_a_network_ends_at_the_last_layer_that_is_needed(two):
    one_size = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))  # takes pictures of 3x3 only
    objective = obj.Channel("a.0:1") + obj.Channel("b.2:1")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        start(objective, JointModel({"a": one_size, "b": two[1]}))
    both = JointModel({"a": one_size, "b": two[1]}, until={"a": "0"})
    losses = start(objective, both).optimize(5, verbose=False).losses
    assert (losses[-1] < losses[0]).all()
    with pytest.raises(UnreachedLayerError, match="a.2"):
        start("a.2:0", both)


def test_several_layers_of_one_network_and_each_picture_for_its_own_network(two):
    both = JointModel({"a": two[0], "b": two[1]})
    fv = start(["a.0:1", obj.Channel("b.2:1") + "b.0:2"], both)
    single = start(["2:1", obj.Channel("2:1") + "0:2"], two[1]).optimize(1, verbose=False).losses[0, 1]
    torch.testing.assert_close(fv.optimize(1, verbose=False).losses[0, 1], single)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (({},), ArgumentError, "at least one network"),
        (({"a.b": nn.ReLU()},), ArgumentError, "cannot be named 'a.b'"),
        (({"": nn.ReLU()},), ArgumentError, "cannot be named ''"),
        (({"forward": nn.ReLU()},), ArgumentError, "cannot be named 'forward'"),
        (({"a": nn.ReLU()}, {"b": torch.neg}), ArgumentError, "no network 'b': there are a"),
        (({"a": nn.ReLU()}, None, {"b": "0"}), ArgumentError, "no network 'b': there are a"),
        (({"a": nn.Sequential(nn.ReLU())}, None, {"a": "1"}), LayerError, "no layer '1' in Sequential"),
    ],
)
def test_networks_and_names_that_do_not_go_together_are_errors_at_once(arguments, error, match):
    with pytest.raises(error, match=match):
        JointModel(*arguments)


def test_a_layer_without_the_name_of_its_network_is_not_found(two):
    with pytest.raises(LayerError, match="no layer '2' in JointModel"):
        start("2:1", JointModel({"a": two[0]}))
