"""Integrated and expected gradients against closed forms."""

import math

import captum.attr
import pytest
import torch
from torch import nn

from toumei.attribution import (
    AtLayer,
    Constant,
    DeepLift,
    ExpectedGradients,
    FromData,
    Gaussian,
    IntegratedGradients,
)
from toumei.attribution.gradient.path import nodes
from toumei.core.errors import ArgumentError, ShapeError


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


@pytest.fixture
def smooth(watched):
    torch.manual_seed(0)
    return watched(nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)))


@pytest.fixture
def inputs():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("steps", [1, 2, 5, None])
def test_a_linear_map_gives_weights_times_differences(inputs, steps):
    linear = nn.Linear(6, 3)
    baseline = torch.randn(6)
    result = IntegratedGradients(linear, steps=steps)(inputs, target=1, baselines=baseline)
    assert torch.allclose(result.values, linear.weight[1].detach() * (inputs - baseline), atol=1e-6)


def test_a_quadratic_form_is_exact_at_one_node():
    a = torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64)
    result = IntegratedGradients(Of(lambda x: torch.einsum("ni,ij,nj->n", x, a, x)), steps=1)(x)
    diagonal = a.diagonal()
    expected = diagonal * x**2 + 0.5 * x * (x @ (a + a.T) - 2 * diagonal * x)
    assert torch.allclose(result.values, expected, atol=1e-12)


def test_a_product_is_shared_equally():
    x = torch.tensor([[2.0, 3.0, -1.0, 5.0]])
    result = IntegratedGradients(Of(lambda x: x.prod(1)), steps=2)(x)
    assert torch.allclose(result.values, torch.full((1, 4), -30 / 4))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_nodes_integrate_polynomials_exactly(count):
    positions, weights = nodes(count)
    for degree in (0, 1, 2 * count - 1):
        assert math.isclose(float((weights * positions**degree).sum()), 1 / (degree + 1), rel_tol=1e-13)
    assert abs(float((weights * positions ** (2 * count)).sum()) - 1 / (2 * count + 1)) > 1e-16 or count > 8


def test_two_networks_of_one_function_agree():
    relu = torch.relu
    f = Of(lambda x: relu(relu(x[:, 0]) - 1 - relu(x[:, 1])))
    g = Of(lambda x: relu(relu(x[:, 0] - 1) - relu(x[:, 1])))
    for model in (f, g):
        result = IntegratedGradients(model, tolerance=1e-4, max_steps=4096)(torch.tensor([[3.0, 1.0]]))
        assert torch.allclose(result.values, torch.tensor([[1.5, -0.5]]), atol=2e-3)


def test_a_score_that_is_flat_at_the_input_has_a_contribution():
    result = IntegratedGradients(Of(lambda x: (1 - torch.relu(1 - x)).sum(1)), tolerance=1e-3)(
        torch.tensor([[2.0]])
    )
    assert torch.allclose(result.values, torch.ones(1, 1), atol=1e-3)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU(), nn.Sigmoid(), nn.SiLU()])
def test_deep_lift_of_one_hidden_layer_is_the_integral(inputs, activation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 2)).double()
    baseline = torch.randn(6)
    values = IntegratedGradients(model, steps=64)(inputs.double(), 1, baseline).values
    assert torch.allclose(values, DeepLift(model)(inputs.double(), 1, baseline).values, atol=1e-7)


def test_contributions_add_up_to_the_tolerance(smooth, small_cnn, inputs):
    result = IntegratedGradients(smooth, tolerance=1e-5)(inputs, target=[0, 1, 2])
    wanted = (result.output - result.baseline_output).abs().clamp(min=1e-3)
    assert (result.gap.abs() <= 2e-5 * wanted).all()
    images = torch.randn(3, 3, 9, 7)
    result = IntegratedGradients(small_cnn, tolerance=1e-2)(images, 1, torch.randn(3, 9, 7))
    assert (result.gap.abs() <= 1.01e-2 * (result.output - result.baseline_output).abs()).all()


def test_inputs_that_have_converged_drop_out(smooth):
    inputs = torch.cat([torch.zeros(1, 6), torch.full((1, 6), 40.0)])
    passed = []

    class Counting(nn.Module):
        def forward(self, x):
            passed.append(x.detach().clone())
            return smooth(x)

    IntegratedGradients(Counting(), tolerance=1e-4, batch_size=1000)(inputs, target=0)
    # the ends, 8 nodes of both, and from there on halves of the path of the second alone
    assert [len(x) for x in passed[:4]] == [2, 2, 16, 1] and len(passed) > 4
    assert all(x.abs().amax(1).min() > 0 for x in passed[3:-1])  # the last is the first row again


def test_gradients_that_jump_are_found():
    places = torch.tensor([0.1234, 0.5, 0.87])

    class Kinks(nn.Module):
        def forward(self, x):
            passed.append(len(x))
            return (x - places).relu().sum(1)

    passed = []
    result = IntegratedGradients(Kinks(), tolerance=1e-5, max_steps=10_000)(torch.ones(1, 1))
    assert result.gap.abs().max() < 1e-5 * (1 - places).sum()
    assert sum(passed) < 1000  # thrice 17 halvings at most


def test_an_input_that_adds_up_is_done_though_its_pieces_do_not():
    passed = []

    def score(x):
        passed.append(len(x))
        # the gaps of both halves are each other's opposite
        return ((x - 0.2).relu() - (x - 0.7).relu()).sum(1)

    result = IntegratedGradients(Of(score), tolerance=1e-6)(torch.ones(1, 1, dtype=torch.float64))
    assert result.gap.abs().max() < 1e-12
    # the ends, the whole path, its middle and its halves, and the input once more
    assert sum(passed) == 2 + 8 + 1 + 2 * 8 + 1


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_halving_depends_on_the_input_alone_and_ends_when_all_targets_add_up(watched, inputs, batch_size):
    torch.manual_seed(0)
    layers = nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    model, rows = watched(nn.Sequential(*layers).double()), inputs.double()
    method = IntegratedGradients(model, tolerance=1e-2, max_steps=4096, batch_size=batch_size)
    together = method(rows, target=[0, 1, 2])
    wanted = (together.output - together.baseline_output).abs().clamp(min=1e-3)
    assert (together.gap.abs() <= 1.01e-2 * wanted).all()
    for index in range(len(rows)):
        alone = IntegratedGradients(model, tolerance=1e-2, max_steps=4096)(
            rows[index, None], target=[0, 1, 2]
        )
        assert torch.allclose(alone.values[:, 0], together.values[:, index], atol=1e-9)


def test_too_few_steps_are_told(inputs):
    model = Of(lambda x: torch.relu(x - 0.3).sum(1))
    with pytest.warns(UserWarning, match="completeness gap of . of 5 inputs is over 1e-06 .* after 16 steps"):
        result = IntegratedGradients(model, tolerance=1e-6, max_steps=16)(inputs)
    assert result.gap.abs().max() > 1e-6


def test_the_same_as_captum(smooth, inputs):
    baseline = torch.randn(1, 6)
    values = IntegratedGradients(smooth, steps=20)(inputs, 1, baseline).values
    theirs = captum.attr.IntegratedGradients(smooth).attribute(inputs, baseline, target=1, n_steps=20)
    assert torch.allclose(values, theirs.float(), atol=1e-6)
    values = IntegratedGradients(smooth, layer="0", steps=20)(inputs, 1, baseline).values
    theirs = captum.attr.LayerIntegratedGradients(smooth, smooth[0]).attribute(
        inputs, baseline, target=1, n_steps=20
    )
    assert torch.allclose(values, theirs.float(), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_an_input_does_not_depend_on_the_others(smooth, inputs, batch_size):
    together = IntegratedGradients(smooth, steps=8, batch_size=batch_size)(inputs, 1).values
    for index in range(len(inputs)):
        alone = IntegratedGradients(smooth, steps=8)(inputs[index : index + 1], 1).values
        assert torch.allclose(together[index], alone[0], atol=1e-6)


def test_several_inputs_in_every_structure():
    def score(image, factor):
        return image.sum((1, 2)) * factor[:, 0]

    image, factor = torch.randn(3, 2, 4), torch.randn(3, 1)
    expected = image * factor[:, :, None] / 2, (image.sum((1, 2)) * factor[:, 0] / 2)[:, None]
    as_tuple = IntegratedGradients(Of(score))((image, factor))
    for found, part in zip(as_tuple.values, expected, strict=True):
        assert torch.allclose(found, part, atol=1e-5)

    class Named(nn.Module):
        def forward(self, image, factor):
            return score(image, factor)

    as_dict = IntegratedGradients(Named())({"factor": factor, "image": image})
    assert list(as_dict.values) == ["factor", "image"]
    assert torch.allclose(as_dict.values["image"], expected[0], atol=1e-5)
    assert as_dict.gap.abs().max() < 1e-4


def test_a_baseline_may_be_that_of_the_layer(inputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    tokens = torch.tensor([[1, 5, 2], [0, 0, 9]])
    result = IntegratedGradients(model, layer="0")(tokens, 0, AtLayer(Constant(0.5)))
    expected = (model[0](tokens) - 0.5) * model[2].weight[0].reshape(3, 4)
    assert torch.allclose(result.values, expected.detach(), atol=1e-6)
    as_token = IntegratedGradients(model, layer="0")(tokens, 0, torch.tensor([3, 3, 3]))
    expected = (model[0](tokens) - model[0].weight[3]) * model[2].weight[0].reshape(3, 4)
    assert torch.allclose(as_token.values, expected.detach(), atol=1e-6)
    with pytest.raises(ArgumentError, match="AtLayer is for methods with layer="):
        IntegratedGradients(nn.Linear(6, 1))(inputs, baselines=AtLayer(Constant()))


def test_expected_gradients_of_a_linear_map_take_the_mean_baseline(inputs):
    linear = nn.Linear(6, 3)
    data = torch.randn(40, 6)
    result = ExpectedGradients(linear, samples=40)(inputs, 1, FromData(data, replace=False))
    assert torch.allclose(result.values, linear.weight[1].detach() * (inputs - data.mean(0)), atol=1e-5)
    assert result.gap.abs().max() < 1e-5
    spread = linear.weight[1].detach().abs() * data.std(0) / 40**0.5
    assert torch.allclose(result.standard_error, spread.expand(5, 6), atol=1e-5)


def test_expected_gradients_are_within_their_errors_of_the_mean_integral(smooth, inputs):
    data = torch.randn(10, 6)
    exact = torch.stack([IntegratedGradients(smooth, steps=16)(inputs, 1, row).values for row in data]).mean(
        0
    )
    result = ExpectedGradients(smooth, samples=400, batch_size=333)(inputs, 1, FromData(data))
    distance = (result.values - exact) / result.standard_error
    assert 0.6 < distance.square().mean().sqrt() < 1.6
    again = ExpectedGradients(smooth, samples=400)(inputs[3:4], 1, FromData(data))
    assert torch.allclose(again.values[0], result.values[3], atol=1e-6)


def test_bad_input(smooth, inputs):
    with pytest.raises(ArgumentError, match="for a distribution there is ExpectedGradients"):
        IntegratedGradients(smooth)(inputs, 1, Gaussian())
    with pytest.raises(ShapeError, match="a baseline for inputs"):
        IntegratedGradients(smooth)(inputs, 1, torch.zeros(4, 6))
    with pytest.raises(ArgumentError, match="tolerance is a number above 0"):
        IntegratedGradients(smooth, tolerance=0)
    with pytest.raises(ArgumentError, match="steps is a whole number from 1 on"):
        IntegratedGradients(smooth, steps=0)
    with pytest.raises(ArgumentError, match="samples is a whole number from 2 on, got 1"):
        ExpectedGradients(smooth, samples=1)


def test_a_constant_output_converges_at_once(inputs):
    result = IntegratedGradients(Of(lambda x: torch.ones(len(x))))(inputs)
    assert result.values.abs().max() == 0 and result.gap.abs().max() == 0
