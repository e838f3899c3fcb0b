"""Circuits by feature attribution: planted nodes are found, scores add up, edges are those that are wired."""

from collections import OrderedDict
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from toumei.attribution import AtLayer, ExactShapley, KernelShap, ShapleySampling
from toumei.core.errors import ArgumentError, LayerError, ShapeError, UnitError
from toumei.misc.circuits import CircuitDetector
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel
from toumei.transformers.patching import logit_difference

METHODS = ("gradient", "integrated_gradients", "deep_lift", "shapley", "ablation")
COMPLETE = ("integrated_gradients", "deep_lift", "shapley")
KNOWN = ("relu1:1", "relu1:3", "relu2:2")
CLEAN, CORRUPT = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])


@pytest.fixture(scope="module")
def planted():
    """A network whose output reads channel 2 of relu2, which reads channels 1 and 3 of relu1."""
    torch.manual_seed(0)
    names = ("conv1", "relu1", "conv2", "relu2", "pool", "flatten", "head")
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(OrderedDict(zip(names, (*layers, nn.Flatten(), nn.Linear(3, 1)), strict=True)))
    with torch.no_grad():
        model.conv1.weight.abs_()
        model.conv2.weight[2] = torch.tensor([0.0, 1.0, 0.0, 2.0])[:, None, None]
        model.head.weight.copy_(torch.tensor([[0.0, 0.0, 3.0]]))
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mixed():
    """A network of two layers in which everything matters."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 2)).double()


@pytest.fixture(scope="module")
def induction():
    return HookedModel(InductionTransformer(vocabulary=8, positions=8))


@pytest.mark.parametrize("method", METHODS)
def test_planted_channels_are_the_strongest_and_their_edges_the_only_ones(planted, images, method):
    detector = CircuitDetector(planted, ["relu1", "relu2"], method, edges=7)
    circuit = detector(images, 0.0)
    assert circuit.auroc(KNOWN) == 1
    wired = {("relu1:1", "relu2:2"), ("relu1:3", "relu2:2"), ("relu2:2", "output")}
    assert set(circuit.edges) == wired
    graph = circuit.prune(3).to_networkx()
    assert set(graph) == {*KNOWN, "output"} and graph.number_of_edges() == 3


@pytest.mark.parametrize("method", COMPLETE)
def test_scores_sum_to_the_difference_of_the_scores_where_nodes_cut_the_network(mixed, method):
    inputs, baselines = torch.rand(4, 3).double(), torch.rand(4, 3).double()
    circuit = CircuitDetector(mixed, ["1", "3"], method)(inputs, baselines, 1)
    difference = (mixed(inputs) - mixed(baselines))[:, 1].detach()
    torch.testing.assert_close(circuit.full - circuit.empty, difference, rtol=1e-6, atol=1e-9)
    assert circuit.gap is not None and circuit.gap.abs().max() < 1e-2 * difference.abs().max()


def test_ablation_and_gradient_are_what_their_formulas_say(mixed):
    inputs, baselines = torch.rand(4, 3).double(), torch.rand(4, 3).double()
    hidden, absent = mixed[:2](inputs).detach().requires_grad_(), mixed[:2](baselines).detach()
    scores = mixed[2:](hidden)[:, 0]
    (slope,) = torch.autograd.grad(scores.sum(), hidden)
    gradient = CircuitDetector(mixed, ["1"], "gradient")(inputs, baselines, 0)
    torch.testing.assert_close(gradient.values, (hidden - absent).detach() * slope)
    ablated = hidden.detach().clone()
    ablated[:, 2] = absent[:, 2]
    ablation = CircuitDetector(mixed, ["1"], "ablation")(inputs, baselines, 0)
    torch.testing.assert_close(ablation.values[:, 2], (scores - mixed[2:](ablated)[:, 0]).detach())


def test_shapley_values_are_those_of_all_orders(mixed):
    inputs, absent = torch.rand(1, 3).double(), torch.rand(1, 3).double()
    first, second = mixed[:2], mixed[2:4]

    @torch.no_grad()
    def score(kept):
        keep = torch.tensor([node in kept for node in range(5)])
        hidden = torch.where(keep[:3], first(inputs), first(absent))
        gates = torch.where(keep[3:], second(hidden), second(first(absent)))
        return mixed[4](gates)[0, 0]

    expected, orders = torch.zeros(5).double(), list(permutations(range(5)))
    for order in orders:
        for place, node in enumerate(order):
            expected[node] += (score(order[: place + 1]) - score(order[:place])) / len(orders)
    circuit = CircuitDetector(mixed, ["1", "3"], ExactShapley)(inputs, absent, 0)
    torch.testing.assert_close(circuit.scores, expected)


def test_edges_into_a_node_sum_to_what_it_changes_times_the_gradient_by_it(mixed):
    inputs, absent = torch.rand(3, 3).double(), torch.rand(3, 3).double()
    circuit = CircuitDetector(mixed, ["1", "3"], "deep_lift", edges=5)(inputs, absent, 0)
    hidden = mixed[:4](inputs).detach().requires_grad_()
    (slope,) = torch.autograd.grad(mixed[4](hidden)[:, 0].sum(), hidden)
    change = ((hidden - mixed[:4](absent)) * slope).mean(0).detach()
    weights = circuit.to_networkx().in_degree(weight="weight")
    torch.testing.assert_close(torch.tensor([weights["3:0"], weights["3:1"]]).double(), change)


def test_gradient_edges_out_of_a_node_sum_to_its_score(mixed):
    inputs, absent = torch.rand(3, 3).double(), torch.rand(3, 3).double()
    circuit = CircuitDetector(mixed, ["1", "3"], "gradient", edges=5)(inputs, absent, 0)
    weights = circuit.to_networkx().out_degree(weight="weight")
    found = torch.tensor([weights[node] for node in circuit.nodes]).double()
    torch.testing.assert_close(found, circuit.scores)


def test_what_passes_through_other_nodes_is_no_edge(induction):
    metric = logit_difference(4, 5)
    circuit = CircuitDetector(induction, method="shapley", edges=1)(CLEAN, CORRUPT, metric)
    assert circuit.order[0] == "0.0" and circuit.edges == ()  # head 1.0 reads it, the output does not


def test_nodes_are_put_in_the_order_of_the_pass(planted, images):
    circuit = CircuitDetector(planted, ["relu2", "relu1"], "gradient")(images, 0.0)
    assert list(dict.fromkeys(circuit.sites)) == ["relu1", "relu2"]


def test_both_heads_of_induction_share_the_score_and_the_plain_gradient_misses_one(induction):
    metric = logit_difference(4, 5)
    found = {name: CircuitDetector(induction, method=name)(CLEAN, CORRUPT, metric) for name in METHODS}
    for name, circuit in found.items():
        assert circuit["0.1"] == circuit["1.1"] == 0 and circuit["1.0"] > 1, name
        assert circuit.auroc(("0.0", "1.0")) == 1 or name == "gradient"
    for name in ("deep_lift", "shapley"):
        assert found[name]["0.0"] == pytest.approx(found[name]["1.0"], rel=1e-4)
    assert abs(found["gradient"]["0.0"]) < 1e-3  # attention is saturated


@pytest.mark.parametrize("method", ["integrated_gradients", "deep_lift", "shapley", "ablation"])
def test_edges_of_induction_are_the_wired_ones(induction, method):
    circuit = CircuitDetector(induction, method=method, edges=2)(CLEAN, CORRUPT, logit_difference(4, 5))
    assert circuit.edges == (("0.0", "1.0"), ("1.0", "output"))


def test_embeddings_and_heads_cut_a_transformer(induction):
    metric = logit_difference(4, 5)
    detector = CircuitDetector(induction, ["embed", "pos_embed", "z"], "deep_lift")
    circuit = detector(CLEAN, CORRUPT, metric)
    with torch.no_grad():
        clean, corrupt = (induction(one)[:, -1, 4] - induction(one)[:, -1, 5] for one in (CLEAN, CORRUPT))
    torch.testing.assert_close(circuit.values.sum(1), clean - corrupt)
    assert circuit.sites[:2] == ("embed", "pos_embed")


def test_targets_are_indices_of_the_last_logits_or_functions_or_metrics(induction):
    both, others = CLEAN.repeat(2, 1), CORRUPT.repeat(2, 1)
    detector = CircuitDetector(induction, method="ablation", batch_size=3)
    of_metric = detector(both, others, logit_difference([4, 4], [5, 6])).values
    of_function = detector(both, others, lambda logits: logits[:, -1, 4]).values
    of_index = detector(both, others, torch.tensor([4, 4])).values
    torch.testing.assert_close(of_index, of_function)
    torch.testing.assert_close(of_metric, of_index)


def test_a_circuit_is_faithful_and_random_nodes_are_not(induction):
    metric = logit_difference(4, 5)
    detector = CircuitDetector(induction, method="shapley")
    circuit = detector(CLEAN, CORRUPT, metric)
    curve = detector.faithfulness(circuit, CLEAN, CORRUPT, metric, random=20)
    shares = dict(zip(curve.sizes.tolist(), curve.values.tolist(), strict=True))
    assert shares[0] == pytest.approx(0) and shares[2] == shares[4] == pytest.approx(1)
    assert curve.cpr > curve.random_cpr + 0.1 and curve.random[:, -1].tolist() == pytest.approx([1] * 20)


def test_the_baseline_may_be_given_at_the_nodes(planted, images):
    circuit = CircuitDetector(planted, ["relu2"], "ablation")(images, AtLayer(0.0))
    torch.testing.assert_close(circuit.empty, planted.head.bias.detach().expand(3))


def test_other_methods_with_their_settings(planted, images):
    method = partial(KernelShap, samples=64, verbose=False)
    circuit = CircuitDetector(planted, ["relu1", "relu2"], method)(images, 0.0)
    assert circuit.method == "KernelShap" and circuit.auroc(KNOWN) == 1
    sampled = partial(ShapleySampling, samples=16, tolerance=0.0, verbose=False)
    exact = CircuitDetector(planted, ["relu1", "relu2"], sampled)(images, 0.0)
    assert 6 * 16 <= exact.passes <= 7 * 16 + 12 and exact.backward_passes == 0


def test_arrays_and_a_single_layer_are_taken(planted, images):
    expected = CircuitDetector(planted, ["relu1"], "gradient")(
        images, torch.full((1, 1, 5, 5), 0.5), [0, 0, 0]
    )
    for given in (images.numpy(), images.tolist()):
        found = CircuitDetector(planted, "relu1", "gradient")(given, np.full((1, 1, 5, 5), 0.5), [0, 0, 0])
        assert torch.allclose(found.values, expected.values)


def test_bad_settings(planted):
    with pytest.raises(LayerError, match="relu9"):
        CircuitDetector(planted, ["relu9"])
    with pytest.raises(ArgumentError, match="name the layers of Sequential"):
        CircuitDetector(planted)
    with pytest.raises(ArgumentError, match="different names"):
        CircuitDetector(planted, ["relu1", "relu1"])
    with pytest.raises(ArgumentError, match="deep_lift"):
        CircuitDetector(planted, ["relu1"], "deeplift")
    with pytest.raises(ArgumentError, match="a class of toumei.attribution"):
        CircuitDetector(planted, ["relu1"], nn.ReLU)


def test_bad_data(planted, images, induction):
    with pytest.raises(LayerError, match="no 'blocks.0.hook_mlp_out'"):
        CircuitDetector(induction, ["mlp_out"])(CLEAN, CORRUPT, 4)
    detector = CircuitDetector(planted, ["relu1"], "gradient")
    with pytest.raises(ArgumentError, match="so small a difference mean nothing"):
        detector(images, images)
    with pytest.raises(ShapeError):
        detector(images, torch.zeros(1, 1, 4, 4))
    with pytest.raises(ArgumentError, match="got the unit"):
        detector(images, 0.0, "relu2:1")
    with pytest.raises(UnitError, match="no output 3"):
        detector(images, 0.0, 3)
    with pytest.raises(ArgumentError, match="is for a HookedModel"):
        detector(images, 0.0, logit_difference(0, 1))
    with pytest.raises(ShapeError, match="as many tokens"):
        CircuitDetector(induction)(CLEAN, CORRUPT[:, :4], 4)
    with pytest.raises(ArgumentError, match="same number of tokens"):
        CircuitDetector(induction)([[0, 1, 2], [0, 1]], CORRUPT[:, :3], 4)


def test_a_circuit_of_another_network_is_refused(planted, images, induction):
    circuit = CircuitDetector(planted, ["relu1"], "gradient")(images, 0.0)
    with pytest.raises(ArgumentError, match="not those of this network"):
        CircuitDetector(induction).faithfulness(circuit, CLEAN, CORRUPT, 4)
