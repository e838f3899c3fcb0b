"""Exact, sampled and hierarchical Shapley values: closed forms, and what cannot be asked for."""

from itertools import permutations, product
from math import factorial

import pytest
import torch
from torch import nn

from toumei.attribution import (
    ExactShapley,
    FromData,
    Gaussian,
    KernelShap,
    PartitionShap,
    ShapleySampling,
    Uniform,
)
from toumei.attribution.perturbation.shapley import coalitions, shapley_interactions, shapley_values
from toumei.core.errors import ArgumentError, ShapeError, UnitError

METHODS = {
    ExactShapley: {},
    KernelShap: {"samples": 62},
    ShapleySampling: {"samples": 16, "tolerance": 0},
    PartitionShap: {},
}


@pytest.fixture
def net(watched):
    torch.manual_seed(0)
    return watched(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)))


class Function(nn.Module):
    """A function of rows (N, M) as a network with one output."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)[:, None]


def by_orders(value, count, orders=None):
    """Shapley values by their definition: the mean rise over all orders."""
    total = torch.zeros(count, dtype=torch.float64)
    orders = list(permutations(range(count)) if orders is None else orders)
    for order in orders:
        shown = torch.zeros(count, dtype=torch.bool)
        before = value(shown)
        for player in order:
            shown[player] = True
            total[player] += value(shown) - before
            before = value(shown)
    return total / len(orders)


def test_shapley_values_are_the_mean_over_all_orders():
    table = torch.randn(2**5, dtype=torch.float64)
    value = {tuple(row.tolist()): score for row, score in zip(coalitions(5), table, strict=True)}
    expected = by_orders(lambda shown: value[tuple(shown.tolist())], 5)
    assert torch.allclose(shapley_values(table), expected, atol=1e-12)


def test_known_games():
    members = coalitions(4)
    unanimity = members.all(1).double()
    assert torch.allclose(shapley_values(unanimity), torch.full((4,), 0.25, dtype=torch.float64))
    # an airport is built for the largest plane; each pays its share of every piece it needs
    costs = torch.tensor([1.0, 2.0, 4.0, 7.0])
    airport = (members * costs).amax(1)
    shares = [1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 2 / 2, 1 / 4 + 1 / 3 + 2 / 2 + 3]
    assert torch.allclose(shapley_values(airport), torch.tensor(shares, dtype=torch.float64))


def test_dummy_symmetry_and_linearity():
    members = coalitions(4).double()
    game = members[:, 0] * members[:, 1] + 3 * members[:, 2]
    values = shapley_values(game)
    assert torch.allclose(values, torch.tensor([0.5, 0.5, 3.0, 0.0], dtype=torch.float64))
    other = torch.randn(16, dtype=torch.float64)
    assert torch.allclose(shapley_values(2 * game - other), 2 * values - shapley_values(other))


def test_interactions_follow_their_definition():
    table = torch.randn(2**4, dtype=torch.float64)
    result = shapley_interactions(table)
    bits = [1, 2, 4, 8]
    index = 0.0
    for size in range(3):
        for others in [(), (2,), (3,), (2, 3)]:
            if len(others) == size:
                base = sum(bits[o] for o in others)
                rise = table[base + 3] - table[base + 1] - table[base + 2] + table[base]
                index += factorial(size) * factorial(2 - size) / factorial(3) * rise
    assert torch.allclose(result[0, 1], index / 2)
    assert torch.allclose(result, result.T)
    assert torch.allclose(result.sum(1), shapley_values(table))


def test_interactions_of_a_network_sum_to_its_values(net):
    result = ExactShapley(net, interactions=True)(torch.randn(2, 6), target=[0, 2])
    assert result.interactions.shape == (2, 2, 6, 6)
    assert torch.allclose(result.interactions.sum(3), result.features, atol=1e-6)
    assert KernelShap(net)(torch.randn(2, 6), target=0).interactions is None


def test_a_table_has_two_to_the_power_of_players_rows():
    with pytest.raises(ShapeError, match="got 6"):
        shapley_values(torch.zeros(6))


@pytest.mark.parametrize("method", METHODS)
def test_linear_networks(watched, method):
    model = watched(nn.Linear(6, 2).double())
    inputs, baseline = torch.randn(3, 6).double(), torch.randn(6).double()
    result = method(model, **METHODS[method])(inputs, target=1, baselines=baseline)
    assert torch.allclose(result.values, model.weight[1] * (inputs - baseline), atol=1e-9)
    data = torch.randn(10, 6).double()
    result = method(model, baseline_samples=10, **METHODS[method])(
        inputs, target=1, baselines=FromData(data, replace=False)
    )
    assert torch.allclose(result.values, model.weight[1] * (inputs - data.mean(0)), atol=1e-9)
    assert result.gap.abs().max() < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_quadratics_share_each_product_evenly(method):
    """An order and its reverse, and groups of any shape, miss nothing of a game of pairs."""
    slopes, matrix = torch.randn(6).double(), torch.randn(6, 6).double()
    inputs, baseline = torch.randn(2, 6).double(), torch.randn(6).double()
    model = Function(lambda x: x @ slopes + torch.einsum("ni,ij,nj->n", x, matrix, x))
    result = method(model, **METHODS[method])(inputs, baselines=baseline)
    difference, ends = inputs - baseline, inputs + baseline
    expected = difference * (slopes + ends @ (matrix + matrix.T) / 2)
    assert torch.allclose(result.values, expected, atol=1e-9)
    assert result.standard_error is None or result.standard_error.max() < 1e-9


@pytest.mark.parametrize("method", [ExactShapley, KernelShap])
def test_products_are_shared_evenly(method):
    inputs = torch.randn(2, 6).double()
    result = method(Function(lambda x: x.prod(1)))(inputs)
    assert torch.allclose(result.values, inputs.prod(1, keepdim=True).expand(2, 6) / 6, atol=1e-9)


def test_implementations_of_one_function_get_the_same():
    def first(x):
        return ((x[:, 0].relu() - 1) - x[:, 1].relu()).relu()

    def second(x):
        return ((x[:, 0] - 1).relu() - x[:, 1].relu()).relu()

    for function in (first, second):
        result = ExactShapley(Function(function))(torch.tensor([[3.0, 1.0]]))
        assert torch.allclose(result.values, torch.tensor([[1.5, -0.5]]))


@pytest.mark.parametrize("method", METHODS)
def test_values_add_up_and_do_not_depend_on_the_batch(net, method):
    inputs = torch.randn(4, 6)
    for baselines in (0.3, Uniform(-1, 1), Gaussian(0.5), FromData(torch.randn(5, 6))):
        options = {"baseline_samples": 3, **METHODS[method]}
        together = method(net, batch_size=7, **options)(inputs, target=2, baselines=baselines)
        assert together.gap.abs().max() < 1e-5
        for index in range(4):
            alone = method(net, **options)(inputs[index : index + 1], target=2, baselines=baselines)
            assert torch.allclose(together.values[index], alone.values[0], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_one_result_and_several_targets_at_once(net, method):
    inputs, baseline = torch.randn(2, 6), Gaussian()
    several = method(net, seed=3, **METHODS[method])(inputs, [0, 2, torch.tensor([1, 0])], baseline)
    assert several.values.shape == (3, 2, 6) and several.features.shape == (3, 2, 6)
    for index, target in enumerate([0, 2, torch.tensor([1, 0])]):
        alone = method(net, seed=3, **METHODS[method])(inputs, target, baseline)
        assert torch.allclose(several[index].values, alone.values, atol=1e-6)
        again = method(net, seed=3, **METHODS[method])(inputs, target, baseline)
        assert torch.equal(alone.values, again.values)


@pytest.mark.parametrize("method", METHODS)
def test_dropout_is_off_and_the_mode_given_back(method, watched):
    model = watched(nn.Sequential(nn.Linear(5, 8), nn.Dropout(), nn.Linear(8, 1)).train())
    result = method(model, **{**METHODS[method], "batch_size": 3})(torch.randn(1, 5))
    with torch.no_grad():
        weight = model[2].weight @ model[0].weight
    assert result.values.shape == weight.shape and result.gap.abs().max() < 1e-5


def test_inner_layers_get_values_against_their_activation_at_the_baseline(net):
    inputs = torch.randn(2, 6)
    result = ExactShapley(net, layer="2")(inputs, target=1, baselines=0.5)
    with torch.no_grad():
        assert torch.allclose(result.baseline_output, net(torch.full_like(inputs, 0.5))[:, 1], atol=1e-6)
    assert result.values.shape == (2, 8) and result.gap.abs().max() < 1e-5


class Pair(nn.Module):
    """Tabular inputs and tokens, with an argument that is never hidden."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 4), nn.Linear(7, 2)

    def forward(self, table, tokens, scale):
        together = torch.cat([table, self.embed(tokens).mean(1)], 1)
        return self.head(together).tanh() * scale


@pytest.mark.parametrize("method", METHODS)
def test_dictionaries_tuples_and_tokens(method, watched):
    model = watched(Pair())
    table, tokens, scale = torch.randn(2, 3), torch.randint(1, 11, (2, 5)), torch.tensor([[1.0], [2.0]])
    given = {"table": table, "tokens": tokens, "scale": scale}
    features = {"table": torch.tensor([0, 1, 2]), "tokens": torch.tensor([3, 3, 4, 4, 5])}
    result = method(model, features=features, **METHODS[method])(given, target=1, baselines=[0.0, 10, None])
    assert result.gap.abs().max() < 1e-5 and (result.values["scale"] == 0).all()
    assert torch.allclose(result.values["tokens"][:, 0], result.features[:, 3] / 2)
    with torch.no_grad():
        empty = model(torch.zeros(2, 3), torch.full((2, 5), 10), scale)[:, 1]
    assert torch.allclose(result.baseline_output, empty)
    as_tuple = method(model, features=(features["table"], features["tokens"], None), **METHODS[method])(
        (table, tokens, scale), target=1, baselines=[0.0, 10, None]
    )
    assert torch.equal(as_tuple.values[1], result.values["tokens"])


def test_features_can_differ_by_input(net):
    inputs = torch.randn(3, 6)
    features = torch.tensor([[0, 0, 1, 1, 2, 2], [5, 5, 5, 9, 9, 9], [0, 1, 2, 5, 9, 9]])
    for method in (ExactShapley, KernelShap, PartitionShap, ShapleySampling):
        together = method(net, features=features)(inputs, target=0)
        assert together.features.shape == (3, 5)
        for index in range(3):
            alone = method(net, features=features[index])(inputs[index : index + 1], target=0)
            assert torch.allclose(together.values[index], alone.values[0], atol=1e-6)
    assert torch.equal(together.features[1, :3], torch.zeros(3))


def test_numbers_of_features_need_neither_start_at_0_nor_be_contiguous(net):
    inputs = torch.randn(2, 6)
    wanted = ExactShapley(net, features=torch.tensor([0, 0, 1, 1, 2, 2]))(inputs, target=0)
    got = ExactShapley(net, features=torch.tensor([-7, -7, 30, 30, 1000, 1000]))(inputs, target=0)
    assert torch.equal(got.values, wanted.values) and got.features.shape == (2, 3)
    expanded = torch.tensor([4, 4, 6, 6, 9, 9])[None].expand(2, 6)
    assert torch.allclose(ExactShapley(net, features=expanded)(inputs, target=0).values, wanted.values)


def test_owen_values_are_the_mean_over_orders_that_keep_groups_together(net):
    net = net.double()
    inputs = torch.randn(1, 6).double()

    def value(shown):
        with torch.no_grad():
            return net(torch.where(shown, inputs, 0.0))[0, 1]

    def orders(group):
        if isinstance(group, int):
            return [[group]]
        left, right = map(orders, group)
        return [a + b for a, b in product(left, right)] + [b + a for a, b in product(left, right)]

    hierarchy = ((0, (3, 5)), ((1, 2), 4))
    expected = by_orders(value, 6, orders(hierarchy))
    result = PartitionShap(net, hierarchy=hierarchy)(inputs, target=1)
    assert torch.allclose(result.values[0], expected, atol=1e-9)


def test_values_of_groups_that_are_not_split_are_divided_evenly(net):
    inputs = torch.randn(1, 6)
    result = PartitionShap(net, hierarchy=(((0, 1), 2), ((3, 4), 5)), samples=2)(inputs, target=1)
    values = result.values[0]
    assert torch.allclose(values[:3], values[0].expand(3)) and torch.allclose(values[3:], values[3].expand(3))
    assert not torch.allclose(values[0], values[3]) and result.gap.abs().max() < 1e-5


def test_which_groups_are_split_depends_on_the_input_and_the_target_alone(watched):
    torch.manual_seed(0)
    wide = watched(nn.Sequential(nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 3)).double())
    inputs, baseline = torch.randn(3, 36).double(), torch.randn(36).double()
    together = PartitionShap(wide, samples=60, batch_size=64)(inputs, [0, 1, 2], baseline)
    assert together.gap.abs().max() < 1e-9
    for batch_size in (2, 8, 1000):
        for index, target in product(range(3), range(3)):
            method = PartitionShap(wide, samples=60, batch_size=batch_size)
            alone = method(inputs[index, None], target, baseline)
            assert torch.allclose(alone.values[0], together[target].values[index], atol=1e-9)


def test_coalitions_that_several_targets_ask_for_pass_once(net):
    passed = []

    class Counting(nn.Module):
        def forward(self, x):
            passed.extend(x.tolist())
            return net(x)

    PartitionShap(Counting(), samples=10)(torch.randn(1, 6), target=[0, 1, 2])
    again = passed.pop()  # the input, to see whether it gets the same score
    assert again in passed and len(set(map(tuple, passed))) == len(passed) <= 2 + 3 * 10


@pytest.mark.parametrize(
    "hierarchy", [((0, 1, 2), (3, (4, 5))), ((0, 1), (2, 3)), (((0, 1), 2), ((3, 3), 5))]
)
def test_a_hierarchy_is_made_of_pairs_and_holds_each_feature_once(net, hierarchy):
    with pytest.raises(ArgumentError, match="hierarchy"):
        PartitionShap(net, hierarchy=hierarchy)(torch.randn(1, 6), target=1)


def test_sampling_is_within_its_standard_errors_and_stops(net):
    inputs = 3 * torch.randn(40, 6)
    exact = ExactShapley(net)(inputs, target=0).values
    result = ShapleySampling(net, samples=40, tolerance=0)(inputs, target=0)
    far = (result.values - exact) / result.standard_error.clamp(min=1e-6)
    assert 0.7 < far.square().mean().sqrt() < 1.5
    passes = []
    handle = [0]

    class Counting(nn.Module):
        def forward(self, x):
            handle[0] += len(x)
            return net(x)

    for tolerance in (0.3, 0.1):
        handle[0] = 0
        stopped = ShapleySampling(Counting(), samples=1000, tolerance=tolerance)(inputs, target=0)
        passes.append(handle[0])
        assert (stopped.standard_error.amax(1) <= tolerance * stopped.values.abs().amax(1)).all()
    assert passes[0] < passes[1] < 40 * 5 * 1000


def test_what_cannot_be_asked_for(net):
    inputs = torch.randn(2, 6)
    with pytest.raises(ArgumentError, match=r"2\^17 = 131,072 passes.*KernelShap"):
        ExactShapley(nn.Linear(17, 1))(torch.randn(1, 17))
    with pytest.raises(ShapeError, match="baseline"):
        ExactShapley(net)(inputs, target=0, baselines=torch.zeros(5))
    with pytest.raises(UnitError, match="the network has 3"):
        ExactShapley(net)(inputs, target=3)
    with pytest.raises(ArgumentError, match="samples is a whole number from 16 on, got 4"):
        ShapleySampling(net, samples=4)
    with pytest.raises(ArgumentError, match="tolerance is a number from 0 on"):
        ShapleySampling(net, tolerance=-0.1)
    with pytest.raises(ArgumentError, match="a group of a hierarchy is a pair"):
        PartitionShap(net, hierarchy=((0, 1, 2), (3, (4, 5))))
    with pytest.raises(TypeError, match="'steps'"):
        ExactShapley(net, steps=3)


@pytest.mark.parametrize("method", METHODS)
def test_features_may_be_a_function_of_what_is_attributed_to(net, method):
    inputs, blocks, seen = torch.randn(2, 6), torch.tensor([0, 0, 1, 1, 2, 2]), []

    def halves(given):
        seen.append(given)
        return torch.arange(given.shape[1]) // 2

    made = method(net, features=halves, **METHODS[method])
    expected = method(net, features=blocks, **METHODS[method])(inputs, target=0)
    assert torch.equal(made(inputs, target=0).values, expected.values)
    layer = method(net, "2", features=halves, **METHODS[method])(inputs, target=0)
    assert layer.features.shape == (2, 4) and [given.shape for given in seen] == [(2, 6), (2, 8)]


def test_a_constant_output_gets_zeros():
    for method, options in METHODS.items():
        result = method(Function(lambda x: torch.ones(len(x))), **options)(torch.randn(2, 6))
        assert result.values.abs().max() < 1e-12


def test_saved_values_of_features_are_loaded(net, tmp_path):
    result = ExactShapley(net, interactions=True)(torch.randn(2, 6), target=0)
    result.save(tmp_path / "a.safetensors")
    loaded = type(result).load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.features, result.features)
    assert torch.equal(loaded.interactions, result.interactions)


@pytest.mark.parametrize("method", [KernelShap, ExactShapley])
def test_the_positions_of_signals_are_features_where_the_channel_axis_is_given(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2))
    signals = torch.randn(3, 2, 8)
    by_channel, by_place = method(net)(signals, 1), method(net, channel_axis=1)(signals, 1)
    assert by_channel.features.shape == (3, 2) and by_place.features.shape == (3, 8)
    assert by_place.gap.abs().max() < 1e-5
