"""Terms that make modules: their values against definitions, and that training with them works."""

import pytest
import torch
from torch import nn

from toumei.core.errors import ArgumentError
from toumei.misc.modularity import LocalityCost, WeightGraph, clusterability_loss, ncut, spectral_partition
from toumei.models import SimpleMLP


def test_clusterability_is_the_sum_of_eigenvalues():
    model = SimpleMLP(5, 6, 4).double()
    matrix = WeightGraph.from_model(model).adjacency()
    root = matrix.sum(0).rsqrt()
    values = torch.linalg.eigvalsh(torch.eye(15) - root[:, None] * matrix * root)
    assert clusterability_loss(model, 3).item() == pytest.approx(values[1:4].sum().item(), abs=1e-10)


def test_clusterability_is_zero_for_modules_and_ignores_isolated_units():
    model = SimpleMLP(6, 6, 6)
    with torch.no_grad():
        for layer in (model.fc0, model.fc1):
            layer.weight.copy_(torch.block_diag(*[torch.rand(3, 3) + 0.1] * 2))
        assert clusterability_loss(model, 1).item() == pytest.approx(0, abs=1e-5)
        model.fc0.weight[0] = 0
        model.fc1.weight[:, 0] = 0
    assert clusterability_loss(model, 1).item() == pytest.approx(0, abs=1e-5)


def test_its_gradient_is_that_of_finite_differences():
    model = SimpleMLP(3, 4, 2).double()
    clusterability_loss(model, 2).backward()
    weight, step = model.fc0.weight, 1e-6
    for index in [(0, 0), (2, 1), (3, 2)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[index] += sign * step
                values.append(clusterability_loss(model, 2).item())
                weight[index] -= sign * step
        assert weight.grad[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_training_with_it_makes_a_network_easier_to_cut():
    torch.manual_seed(0)
    model = SimpleMLP(8, 12, 8)
    before = WeightGraph.from_model(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        clusterability_loss(model, 2).backward()
        optimizer.step()
    after = WeightGraph.from_model(model)
    cuts = [ncut(graph, spectral_partition(graph, 3).labels) for graph in (before, after)]
    assert cuts[1] < 0.5 * cuts[0]


def restated(model):
    """The cost of Liu et al. (2023) connection by connection."""
    cost = 0.0
    for layer in (model.fc0, model.fc1):
        out, into = layer.weight.shape
        for i in range(out):
            for j in range(into):
                distance = abs((i + 0.5) / out - (j + 0.5) / into)
                cost += abs(layer.weight[i, j].item()) * (2 * distance + 0.5) / (out * into)
        cost += 0.5 * layer.bias.abs().mean().item()
    return cost


def test_the_locality_cost_is_the_length_of_connections():
    model = SimpleMLP(4, 6, 3)
    assert LocalityCost(model)().item() == pytest.approx(restated(model), rel=1e-5)


def test_swaps_shorten_connections_and_change_nothing_else():
    torch.manual_seed(1)
    model = SimpleMLP(5, 9, 7, 3)
    inputs = torch.randn(10, 5)
    outputs, cost = model(inputs), LocalityCost(model)
    before = cost().item()
    assert cost.swap() > 0
    assert cost().item() < before
    torch.testing.assert_close(model(inputs), outputs)
    while cost.swap():
        pass
    assert cost.swap() == 0


def test_a_swap_gains_what_it_promises():
    """A crossed pair of strong connections is uncrossed."""
    model = SimpleMLP(4, 4, 4)
    with torch.no_grad():
        model.fc0.weight.copy_(torch.eye(4)[[3, 1, 2, 0]])
        model.fc1.weight.copy_(torch.eye(4)[:, [3, 1, 2, 0]])
    assert LocalityCost(model).swap() == 1
    assert torch.equal(model.fc0.weight, torch.eye(4)) and torch.equal(model.fc1.weight, torch.eye(4))


def test_bad_arguments_say_what_is_wrong():
    with pytest.raises(ArgumentError, match="12 eigenvalues after the first, of 12 units"):
        clusterability_loss(SimpleMLP(4, 4, 4), 12)
    with pytest.raises(ArgumentError, match="at least two linear layers, Linear has 2 to 2"):
        LocalityCost(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="has 2 to 3, 4 to 2"):
        LocalityCost(nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)))
