"""Weight graphs: what is joined to what, and by how much."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from toumei.core.errors import ArgumentError, LayerError, NonFiniteError, ShapeError
from toumei.misc.modularity import Block, WeightGraph, chain
from toumei.misc.modularity.norms import kernel_norms
from toumei.models import SimpleCNN, SimpleMLP


def block(graph, source, target):
    layers = graph.layers
    (found,) = [b for b in graph.blocks if (layers[b.source], layers[b.target]) == (source, target)]
    return found.weight


def between(graph):
    return {(graph.layers[b.source], graph.layers[b.target]) for b in graph.blocks}


def test_a_perceptron_is_its_absolute_weights():
    model = SimpleMLP(4, 5, 3)
    graph = WeightGraph.from_model(model)
    assert graph.layers == ("input", "fc0", "fc1") and graph.sizes == (4, 5, 3)
    assert torch.equal(block(graph, "input", "fc0"), model.fc0.weight.detach().abs())
    assert torch.equal(block(graph, "fc0", "fc1"), model.fc1.weight.detach().abs())


def test_blocks_multiply_as_the_adjacency_matrix_does():
    graph = WeightGraph.from_model(SimpleMLP(4, 5, 3)).to(torch.float64)
    matrix = torch.zeros(12, 12, dtype=torch.float64)
    matrix[4:9, :4], matrix[9:, 4:9] = block(graph, "input", "fc0"), block(graph, "fc0", "fc1")
    matrix = matrix + matrix.T
    assert torch.equal(graph.adjacency(), matrix)
    vectors = torch.randn(12, 3, dtype=torch.float64)
    torch.testing.assert_close(graph @ vectors, matrix @ vectors)
    torch.testing.assert_close(graph.degrees(), matrix.sum(0))


def test_edges_within_a_layer_count_once():
    within = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    graph = WeightGraph(("a",), (2,), (Block(0, 0, within),))
    assert torch.equal(graph.adjacency(), within)


@pytest.mark.parametrize("norm", ["l1", "frobenius", "induced-l1"])
def test_norms_of_kernels_are_those_of_numpy(norm):
    kernels = torch.randn(3, 2, 4, 5)
    order = {"l1": None, "frobenius": "fro", "induced-l1": 1}[norm]
    for i in range(3):
        for j in range(2):
            kernel = kernels[i, j]
            expected = kernel.abs().sum() if order is None else torch.linalg.matrix_norm(kernel, order)
            torch.testing.assert_close(kernel_norms(kernels, norm)[i, j], expected)


def test_groups_join_only_their_own_channels():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2))
    weight = block(WeightGraph.from_model(model), "input", "0")
    expected = torch.zeros(6, 4)
    sizes = model[0].weight.detach().abs().sum((2, 3))
    expected[:3, :2], expected[3:, 2:] = sizes[:3], sizes[3:]
    torch.testing.assert_close(weight, expected)


def test_depthwise_kernels_are_multiplied_into_what_follows():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 2, 1))
    graph = WeightGraph.from_model(model)
    kernels = model[1].weight.detach().abs().sum((1, 2, 3))
    torch.testing.assert_close(block(graph, "0", "2"), model[2].weight.detach().abs()[:, :, 0, 0] * kernels)


def test_batch_normalization_behind_a_layer_scales_its_rows():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    nn.init.normal_(model[1].weight)
    model[1].running_var.uniform_(0.5, 2)
    scale = model[1].weight.detach().abs() / (model[1].running_var + model[1].eps).sqrt()
    graph = WeightGraph.from_model(model)
    rows = model[0].weight.detach().abs()[:, :, 0, 0] * scale[:, None]
    torch.testing.assert_close(block(graph, "input", "0"), rows)
    torch.testing.assert_close(block(graph, "0", "3"), model[3].weight.detach().abs()[:, :, 0, 0])


def test_batch_normalization_before_a_layer_scales_its_columns():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    nn.init.normal_(model[2].weight)
    scale = model[2].weight.detach().abs() / (model[2].running_var + model[2].eps).sqrt()
    columns = model[3].weight.detach().abs()[:, :, 0, 0] * scale
    torch.testing.assert_close(block(WeightGraph.from_model(model), "0", "3"), columns)


def test_a_flattened_map_sums_the_places_of_a_channel():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 3 * 5, 4))
    expected = model[2].weight.detach().abs().reshape(4, 2, 15).sum(2)
    torch.testing.assert_close(block(WeightGraph.from_model(model), "0", "2"), expected)
    frobenius = WeightGraph.from_model(model, norm="frobenius")
    expected = model[2].weight.detach().reshape(4, 2, 15).square().sum(2).sqrt()
    torch.testing.assert_close(block(frobenius, "0", "2"), expected)


class Branches(nn.Module):
    """A residual sum, a concatenation and a head; `shape` decides in Python, so torch.fx cannot trace it."""

    def __init__(self, traceable):
        super().__init__()
        self.traceable = traceable
        self.stem, self.residual = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.side, self.head = nn.Conv2d(4, 2, 1), nn.Linear(6, 5)

    def forward(self, x):
        if not self.traceable and x.mean() > 1e9:
            return x
        stem = F.relu(self.stem(x))
        both = stem + self.residual(stem)
        both = torch.cat([both, self.side(stem)], 1)
        return self.head(both.mean((2, 3)))


@pytest.mark.parametrize("traceable", [True, False])
def test_skips_and_concatenations_are_blocks_of_their_own(traceable, watched):
    model = watched(Branches(traceable))
    graph = WeightGraph.from_model(model, None if traceable else torch.rand(1, 3, 8, 8))
    assert between(graph) == {
        ("input", "stem"),
        ("stem", "residual"),
        ("stem", "side"),
        ("stem", "head"),
        ("residual", "head"),
        ("side", "head"),
    }
    head = model.head.weight.detach().abs()
    assert torch.equal(block(graph, "stem", "head"), head[:, :4])
    assert torch.equal(block(graph, "residual", "head"), head[:, :4])
    assert torch.equal(block(graph, "side", "head"), head[:, 4:])


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_1", "mobilenet_v2", "googlenet", "efficientnet_b0"]
)
def test_tracing_and_recording_agree(name):
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    traced = WeightGraph.from_model(model)
    recorded = WeightGraph.from_model(model, torch.zeros(1, 3, 64, 64))
    assert traced.layers == recorded.layers and traced.sizes == recorded.sizes
    assert len(traced.blocks) == len(recorded.blocks)
    for one, other in zip(traced.blocks, recorded.blocks, strict=True):
        assert (one.source, one.target) == (other.source, other.target)
        torch.testing.assert_close(one.weight, other.weight)


def test_hugging_faces_conv1d_is_a_linear_layer():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(5, 3), nn.GELU(), Conv1D(2, 5))
    graph = WeightGraph.from_model(model)
    assert graph.sizes == (3, 5, 2)
    assert torch.equal(block(graph, "0", "2"), model[2].weight.detach().abs().T)
    recorded = WeightGraph.from_model(model, torch.zeros(1, 3))
    assert torch.equal(block(recorded, "0", "2"), block(graph, "0", "2"))


def test_gradients_reach_the_parameters_when_they_are_kept():
    model = SimpleCNN(1, 3)
    WeightGraph.from_model(model, keep_graph=True).degrees().sum().backward()
    torch.testing.assert_close(model.fc.weight.grad, 2 * model.fc.weight.detach().sign())
    assert not WeightGraph.from_model(model).degrees().requires_grad


def test_layers_can_be_left_out():
    graph = WeightGraph.from_model(SimpleCNN(1, 3)).without("input", "fc")
    assert graph.layers == ("conv0", "conv1", "conv2") and len(graph.blocks) == 2
    with pytest.raises(LayerError, match="no layer 'conv9' in the graph: it has conv0, conv1, conv2"):
        graph.without("conv9")


def test_isolated_units_are_named():
    weight = torch.ones(3, 2)
    weight[1] = 0
    assert chain(["in", "out"], [weight]).isolated() == ["out:1"]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(self.layer(x), torch.ones(2, 4))


class Between(nn.Module):
    """Two linear layers and a function between them."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.function = nn.Linear(4, 3), nn.Linear(3, 2), function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


SPELLINGS = {
    "clamp": (lambda x: x.clamp(min=0), lambda x: x.clip(min=0), lambda x: torch.clip(x, 0)),
    "abs": (torch.abs, torch.absolute, lambda x: x.absolute_(), abs),
    "sigmoid": (torch.sigmoid, torch.special.expit, lambda x: x.sigmoid()),
    "div": (lambda x: x / 2, lambda x: torch.divide(x, 2), lambda x: x.true_divide_(2), lambda x: x.div(2)),
    "mul": (lambda x: x * TENSOR, lambda x: torch.multiply(x, TENSOR), lambda x: TENSOR * x),
    "sub": (lambda x: x - x.tanh(), lambda x: torch.subtract(x, x.tanh())),
    "rsub": (lambda x: 1 - x, lambda x: torch.rsub(x, 1)),
    "of two": (lambda x: x - x.tanh(), lambda x: torch.rsub(x, x.tanh()), lambda x: x.tanh() / x),
    "neg": (lambda x: -x, torch.negative, lambda x: +x),
    "exp2": (torch.exp2, torch.special.exp2),
    "pow": (lambda x: x**2, lambda x: torch.pow(x, 2), lambda x: x.pow_(2)),
    "layout": (lambda x: x, lambda x: x.mT.swapaxes(0, 1), lambda x: x.T.transpose(0, 1), lambda x: x.data),
}
TENSOR = torch.tensor([2.0, -1.0, 0.5])


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_function_has_one_meaning_under_each_of_its_names(name, traced):
    example = None if traced else torch.ones(2, 4)
    expected, *others = (
        WeightGraph.from_model(Between(function).eval(), example) for function in SPELLINGS[name]
    )
    for graph in others:
        assert between(graph) == between(expected)
        for one, other in zip(graph.blocks, expected.blocks, strict=True):
            assert torch.equal(one.weight, other.weight)


class Joined(nn.Module):
    def __init__(self, join):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head, self.join = (
            nn.Linear(4, 3),
            nn.Linear(4, 2),
            nn.Linear(5, 2),
            join,
        )

    def forward(self, x):
        return self.head(self.join([self.first(x), self.second(x)], -1))


@pytest.mark.parametrize("example", [None, torch.ones(2, 4)])
def test_concatenations_have_any_name(example):
    expected = WeightGraph.from_model(Joined(torch.cat), example)
    for join in (torch.concat, torch.concatenate):
        graph = WeightGraph.from_model(Joined(join), example)
        assert (
            between(graph)
            == between(expected)
            == {*(("input", "first"), ("input", "second"), ("first", "head"), ("second", "head"))}
        )
        assert torch.equal(block(graph, "second", "head"), block(expected, "second", "head"))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Square.apply, "no graph of weights for 'Square' .*custom function of autograd.* in Between"),
        (lambda x: torch.cat(x.chunk(3, 1), 1), "no graph of weights for the operation 'chunk' in Between"),
    ],
)
def test_operations_that_are_not_followed_are_named(function, message):
    with pytest.raises(ArgumentError, match=message):
        WeightGraph.from_model(Between(function), torch.ones(2, 4))


def test_a_recorded_network_may_overwrite_its_input():
    model, example = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), -torch.ones(1, 4)
    graph = WeightGraph.from_model(model, example)
    assert torch.equal(block(graph, "input", "1"), model[1].weight.detach().abs())
    assert torch.equal(example, -torch.ones(1, 4))


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (nn.Sequential(nn.ReLU()), None, "Sequential has no weights to make a graph of"),
        (Branching(), None, "torch.fx cannot trace Branching .*: give an example_input"),
        (Twice(), None, "layer 'layer' runs more than once"),
        (Twice(), torch.zeros(1, 4), "layer 'layer' runs more than once"),
        (nn.Sequential(nn.LSTM(4, 4)), None, "'?0'? is a recurrent network"),
        (nn.LSTM(4, 4), torch.zeros(1, 2, 4), "LSTM.? is a recurrent network"),
        (Attention(), None, "the weights of a 'linear' in Attention are no parameter"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(6, 2)),
            None,
            "layer '2' takes 6 inputs and",
        ),
    ],
)
def test_models_without_a_graph_say_why(model, example, message):
    with pytest.raises(ArgumentError, match=message):
        WeightGraph.from_model(model, example)


def test_weights_that_are_no_numbers_are_named():
    model = SimpleMLP(3, 4, 2)
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="from 'fc0' to 'fc1' has weights that are NaN"):
        WeightGraph.from_model(model)


def test_blocks_must_fit():
    with pytest.raises(ShapeError, match=r"from 'a' to 'b' must be \(3, 2\), got \(2, 3\)"):
        WeightGraph(("a", "b"), (2, 3), (Block(0, 1, torch.ones(2, 3)),))
    with pytest.raises(ArgumentError, match="negative weights"):
        WeightGraph(("a", "b"), (2, 3), (Block(0, 1, -torch.ones(3, 2)),))
    with pytest.raises(ArgumentError, match="must be symmetric"):
        WeightGraph(("a",), (2,), (Block(0, 0, torch.tensor([[0.0, 1.0], [2.0, 0.0]])),))
    with pytest.raises(ArgumentError, match="without edges"):
        chain("ab", [torch.zeros(3, 2)])
    with pytest.raises(ArgumentError, match="norm is one of"):
        WeightGraph.from_model(SimpleMLP(2, 2), norm="l3")
