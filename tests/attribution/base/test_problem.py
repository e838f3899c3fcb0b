"""Inputs, targets and layers in every form, and what is wrong about some."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from toumei.attribution import InputXGradient, IntegratedGradients, Occlusion, Saliency
from toumei.attribution.base.problem_arguments import make_problem
from toumei.core.errors import ArgumentError, LayerError, OutputError, ShapeError, UnitError


class Two(nn.Module):
    """Two inputs; one goes in by a keyword."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, scale):
        return self.second(torch.tanh(self.first(x)) * scale)


@pytest.fixture
def two(watched):
    torch.manual_seed(0)
    return watched(Two())


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scale():
    return torch.rand(5, 4, generator=torch.Generator().manual_seed(2))


def test_a_tuple_and_a_dictionary_are_the_same(two, x, scale):
    as_tuple = Saliency(two)((x, scale), target=1)
    as_dict = Saliency(two)({"scale": scale, "x": x}, target=1)
    assert isinstance(as_tuple.values, tuple)
    assert torch.equal(as_tuple.values[0], as_dict.values["x"])
    assert torch.equal(as_tuple.values[1], as_dict.values["scale"])


def test_the_gradient_by_definition_whatever_the_target(two, x, scale):
    problem = make_problem(
        two,
        (x, scale),
        [1, torch.tensor([0, 1, 1, 0, 0]), lambda out: out[:, 0] ** 2],
    )
    scores, gradients = problem.gradients(problem.tensors)
    leaf = x.clone().requires_grad_()
    out = two(leaf, scale)
    expected = [out[:, 1], out[torch.arange(5), torch.tensor([0, 1, 1, 0, 0])], out[:, 0] ** 2]
    for index, column in enumerate(expected):
        assert torch.allclose(scores[:, index], column.detach(), atol=1e-6)
        (gradient,) = torch.autograd.grad(column.sum(), leaf, retain_graph=True)
        assert torch.allclose(gradients[0][index], gradient, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 40])
def test_any_number_of_targets(x, count):
    torch.manual_seed(0)
    linear = nn.Linear(3, 40)
    result = Saliency(linear, absolute=False)(x, target=list(range(count)))
    expected = linear.weight[:count, None].detach().expand(count, 5, 3)
    assert torch.allclose(result.values, expected)


def test_an_operation_without_a_batched_backward_pass(x):
    class Unbatched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2 if gradient.max().item() > 0 else gradient

    class Model(nn.Module):
        def forward(self, x):
            return Unbatched.apply(x)

    result = Saliency(Model())(x, target=[0, 2])
    assert torch.equal(result.values[1], torch.tensor([0.0, 0.0, 2.0]).expand(5, 3))


def test_one_forward_pass_for_several_targets(two, x, scale):
    passes = []

    class Counting(nn.Module):
        def forward(self, *inputs):
            passes.append(len(inputs[0]))
            return two(*inputs)

    Saliency(Counting())((x, scale), target=[0, 1, lambda out: out.sum(1)])
    assert passes == [5, 1]  # the first row again tells whether scores can be repeated


def test_units_within(small_cnn):
    images = torch.rand(2, 3, 9, 7)
    values = Saliency(small_cnn, absolute=False)(images, target="conv1:4:3:2").values
    # the unit sees the 3 x 3 patch about its place, through its kernel
    expected = torch.zeros(2, 3, 9, 7)
    expected[:, :, 2:5, 1:4] = small_cnn.conv1.weight[4].detach()
    assert torch.allclose(values, expected)
    mean = Saliency(small_cnn, absolute=False)(images, target="conv1:4")
    activation = small_cnn.conv1(images)[:, 4].detach()
    assert torch.allclose(mean.output, activation.mean((1, 2)), atol=1e-6)
    at_layer = Saliency(small_cnn, layer="conv1", absolute=False)(
        images, target=["relu2:1:2:3", "conv1:4:3:2"]
    )
    assert at_layer.values.shape == (2, 2, 6, 9, 7)
    unit = torch.zeros(6, 9, 7)
    unit[4, 3, 2] = 1
    assert torch.equal(at_layer[1].values, unit.expand(2, 6, 9, 7))


def test_units_stop_the_pass_behind_them(small_cnn):
    ran = []

    class Rest(nn.Module):
        def forward(self, x):
            ran.append(len(x))
            return x

    model = nn.Sequential(small_cnn.conv1, Rest())
    Saliency(model)(torch.rand(1, 3, 9, 7), target="0:4:3:2")
    assert ran == [1]  # in the pass in which runs of the layer are counted
    both = Saliency(model)(torch.rand(1, 3, 9, 7), target=["0:4:3:2", lambda out: out.mean((1, 2, 3))])
    assert ran == 4 * [1] and both.values.shape == (2, 1, 3, 9, 7)


def test_contributions_to_a_unit_add_up(small_cnn):
    images = torch.rand(2, 3, 9, 7)
    result = IntegratedGradients(small_cnn, tolerance=0.05)(images, "conv2:3:1:1", torch.ones(3, 9, 7))
    assert (result.gap.abs() <= 0.051 * (result.output - result.baseline_output).abs()).all()


def test_a_layer_is_attributed_to_where_the_rest_of_the_input_matters(two, x, scale):
    values = InputXGradient(two, layer="first")((x, scale), target=torch.tensor([0, 1, 0, 1, 0])).values
    activation = two.first(x).detach().requires_grad_()
    out = two.second(torch.tanh(activation) * scale)[torch.arange(5), torch.tensor([0, 1, 0, 1, 0])]
    (gradient,) = torch.autograd.grad(out.sum(), activation)
    assert torch.allclose(values, (gradient * activation).detach(), atol=1e-6)


def test_preprocessing_belongs_to_the_network(x):
    torch.manual_seed(0)
    linear = nn.Linear(3, 2)
    values = Saliency(linear, preprocess=lambda x: (x - 1) / 2, absolute=False)(x, target=0).values
    assert torch.allclose(values, linear.weight[0].detach().expand(5, 3) / 2)


def test_the_inputs_are_left_alone(x):
    class InPlace(nn.Module):
        def forward(self, x):
            return x.relu_().sum(1)

    given = x.clone()
    assert torch.equal(Saliency(InPlace())(given).values, (x > 0).float())
    needs = x.clone().requires_grad_()
    assert not Saliency(nn.Linear(3, 1))(needs).values.requires_grad
    assert needs.grad is None and needs.requires_grad


def test_an_input_that_the_score_does_not_depend_on(x, scale):
    class Ignoring(nn.Module):
        def forward(self, x, scale):
            return x.sum(1)

    first, second = Saliency(Ignoring())((x, scale)).values
    assert first.eq(1).all() and second.eq(0).all()


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (2, UnitError, "no output 2: the network has 2, 0 to 1"),
        (-3, UnitError, "no output -3"),
        (torch.tensor([0, 1, 0, 1, 5]), UnitError, "no output 5"),
        (None, UnitError, "has 2 outputs: give a target from 0 to 1"),
        (torch.tensor([0, 1]), ShapeError, "2 targets for 5 inputs"),
        (torch.zeros(7).long(), ShapeError, "7 targets for 5 inputs"),
        (torch.zeros(5, 1).long(), UnitError, "one index an input (5,), got (5, 1) of torch.int64"),
        (torch.zeros(5).bool(), UnitError, "one index an input (5,), got (5,) of torch.bool"),
        (torch.zeros(5), UnitError, "one index an input (5,), got (5,) of torch.float32"),
        (0.5, UnitError, "index of an output"),
        (object(), UnitError, "index of an output"),
        ([], ArgumentError, "must not be empty"),
        (lambda out: out.sum(), OutputError, "one score a row"),
        (lambda out: 3, OutputError, "one score a row"),
        ("second", UnitError, "one unit, such as 'second:0'"),
        ("third:0", LayerError, "no layer 'third'"),
        ("second:2", UnitError, "no channel 2 in layer 'second'"),
        ("second:1:4:4", UnitError, "no position 4:4"),
    ],
)
def test_targets_that_are_not_there(two, x, scale, target, error, message):
    for method in (Saliency, Occlusion):  # one indexes all rows at once, the other those of a batch
        with pytest.raises(error, match=re.escape(message)):
            method(two)((x, scale), target=target)


def test_targets_count_from_the_end_and_may_be_arrays(two, x, scale):
    expected = Saliency(two)((x, scale), torch.tensor([1, 0, 1, 1, 0])).output
    for target in (
        torch.tensor([-1, -2, 1, -1, 0]),
        np.array([1, 0, 1, 1, 0]),
        torch.tensor([1, 0, 1, 1, 0]).byte(),
    ):
        assert torch.equal(Saliency(two)((x, scale), target).output, expected)
    assert torch.equal(Saliency(two)((x, scale), np.int64(1)).output, Saliency(two)((x, scale), -1).output)


def test_inputs_that_are_no_batches(two, x):
    with pytest.raises(ShapeError, match="batches of the same, positive length"):
        Saliency(two)((x, torch.ones(4, 4)), target=0)
    with pytest.raises(ShapeError, match="batches of the same, positive length"):
        Saliency(nn.Linear(3, 1))(torch.zeros(0, 3))
    with pytest.raises(ArgumentError, match="inputs is a tensor, .*, got \\['a', 'b'\\]"):
        Saliency(nn.Linear(3, 1))(["a", "b"])
    with pytest.raises(LayerError, match="no layer 'third'"):
        Saliency(two, layer="third")


def test_outputs_with_more_axes_need_a_function():
    model = nn.Conv2d(1, 2, 1)
    images = torch.rand(2, 1, 3, 3)
    with pytest.raises(UnitError, match="give a function of it as target"):
        Saliency(model)(images, target=1)
    values = Saliency(model, absolute=False)(images, target=lambda out: out[:, 1, 0, 2]).values
    assert values[0].count_nonzero() == 1 and torch.allclose(
        values[:, 0, 0, 2], model.weight[1, 0, 0, 0].detach()
    )
