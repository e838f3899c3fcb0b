import pytest
import torch
from matplotlib import pyplot
from torch import nn

from toumei.attribution import (
    ExpectedGradients,
    FromData,
    GradCam,
    GuidedBackprop,
    InputXGradient,
    Saliency,
)
from toumei.attribution.metrics.comparison import Comparison, compare
from toumei.attribution.metrics.insertion_curves import deletion, insertion
from toumei.attribution.metrics.localization import (
    balance_inside,
    chance_level,
    pointing_game,
    relevance_mass_accuracy,
)
from toumei.attribution.metrics.removed_sets import faithfulness_correlation, infidelity, removals
from toumei.attribution.metrics.sanity_checks import max_sensitivity, randomization, spearman
from toumei.attribution.plots import heat_map
from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.models import ShapesCNN, ShapesDataset


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def linear(watched):
    torch.manual_seed(0)
    return watched(nn.Linear(8, 3).double())


@pytest.fixture(scope="module")
def shapes():
    images, labels, masks = ShapesDataset(seed=5).batch(range(12))
    return ShapesCNN(pretrained=True).eval(), images, labels, masks


def exact(model, inputs, target=1):
    return inputs * model.weight[target].detach()


def test_exact_contributions_of_a_linear_model_are_perfect(linear):
    inputs = draw(4, 8)
    removed = removals(linear, inputs, exact(linear, inputs), 1, size=3, samples=20)
    torch.testing.assert_close(removed.contributed, removed.lost)
    assert removed.infidelity().max() < 1e-20 and removed.infidelity(scaled=True).max() < 1e-20
    torch.testing.assert_close(removed.correlation(), torch.ones(4, dtype=torch.float64))
    assert infidelity(linear, inputs, exact(linear, inputs), 1).max() < 1e-20
    assert faithfulness_correlation(linear, inputs, exact(linear, inputs), 1).min() > 0.999


@pytest.mark.parametrize("size", [1, 2, 5])
def test_sensitivity_n_of_a_linear_model_is_1_for_every_n(linear, size):
    inputs, baseline = draw(4, 8), draw(8, seed=2)
    values = linear.weight[1].detach() * (inputs - baseline)
    assert removals(linear, inputs, values, 1, baseline, size=size).correlation().min() > 0.999


def test_scaled_contributions_are_as_faithful_but_have_infidelity(linear):
    inputs = draw(4, 8)
    removed = removals(linear, inputs, -3 * exact(linear, inputs), 1)
    torch.testing.assert_close(removed.correlation(), -torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(removed.infidelity(), 16 * removed.lost.square().mean(1))
    assert removed.infidelity(scaled=True).max() < 1e-20  # a number may be negative


def test_curves_of_a_linear_model_are_sums_of_sorted_contributions(linear):
    inputs = draw(4, 8)
    values = exact(linear, inputs)
    ordered = values.sort(1, descending=True).values.cumsum(1)
    bias = linear.bias[1].detach()
    comes = insertion(linear, inputs, values, 1, steps=8)
    torch.testing.assert_close(comes.scores, bias + torch.cat([torch.zeros(4, 1), ordered], 1))
    goes = deletion(linear, inputs, values, 1, steps=8)
    torch.testing.assert_close(goes.scores, values.sum(1, keepdim=True) + 2 * bias - comes.scores)
    heights = comes.scores
    torch.testing.assert_close(comes.auc, ((heights[:, 1:] + heights[:, :-1]) / 2).mean(1))
    for curve, kind, done in ((comes, "insertion", "shown"), (goes, "deletion", "hidden")):
        ax = curve.plot()
        assert ax.get_title().startswith(kind) and ax.get_xlabel() == f"share of the input that is {done}"
        pyplot.close(ax.figure)
    wrong = insertion(linear, inputs, -values, 1, steps=8)
    assert (wrong.auc < comes.auc).all()


def test_curves_run_from_the_baseline_to_the_input(shapes):
    model, images, labels, _ = shapes
    values = torch.rand(12, 1, 64, 64)  # one channel will do
    curve = insertion(model, images, values, labels, 0.5, steps=3)
    with torch.no_grad():
        ends = [
            model(pictures).gather(1, labels[:, None])[:, 0]
            for pictures in (torch.full_like(images, 0.5), images)
        ]
    torch.testing.assert_close(curve.scores[:, 0].float(), ends[0])
    torch.testing.assert_close(curve.scores[:, -1].float(), ends[1])
    assert curve.plot().get_ylabel() == "score of the target" and "12 inputs" in repr(curve)


def test_sets_follow_the_seed_and_batches_do_not_matter(shapes):
    model, images, labels, _ = shapes
    values = images[:3]
    options = {"size": 0.1, "samples": 4}
    first = removals(model, images[:3], values, labels[:3], batch_size=2, **options)
    same = removals(model, images[:3], values, labels[:3], batch_size=64, **options)
    other = removals(model, images[:3], values, labels[:3], seed=1, **options)
    torch.testing.assert_close(first.lost, same.lost, atol=1e-4, rtol=1e-4)
    assert torch.equal(first.contributed, same.contributed)
    assert not torch.equal(first.contributed, other.contributed)


def test_segments_are_taken_away_whole():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).double()
    inputs = draw(2, 1, 4, 4)
    values = inputs * model[1].weight.detach().reshape(1, 1, 4, 4)
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    removed = removals(model, inputs, values, size=1, samples=30, features=quarters)
    torch.testing.assert_close(removed.contributed, removed.lost)
    sums = values.reshape(2, 2, 2, 2, 2).sum((2, 4)).flatten(1)
    assert (removed.contributed[:, :, None] - sums[:, None]).abs().amin(2).max() < 1e-12


def test_moments_of_signals_come_and_go_with_all_their_channels(watched):
    model = watched(nn.Sequential(nn.Conv1d(3, 1, 1), nn.Flatten(), nn.Linear(5, 1)).double())
    inputs, axis = draw(4, 3, 5), {"channel_axis": 1}
    values = InputXGradient(model)(inputs).values
    removed = removals(model, inputs, values, size=1, samples=40, **axis)
    torch.testing.assert_close(removed.contributed, removed.lost)
    moments = values.sum(1)
    assert (removed.contributed[:, :, None] - moments[:, None]).abs().amin(2).max() < 1e-12
    heights = moments.sort(1, descending=True).values.cumsum(1)
    empty = model(torch.zeros_like(inputs)).detach()
    comes = insertion(model, inputs, values.sum(1, keepdim=True), steps=5, **axis)
    torch.testing.assert_close(comes.scores, empty + torch.cat([0 * empty, heights], 1))
    goes = deletion(model, inputs, values, steps=5, **axis)
    torch.testing.assert_close(goes.scores, comes.scores[:, -1:] + empty - comes.scores)


def test_what_does_not_fit_is_named(linear):
    inputs = draw(4, 8)
    with pytest.raises(ShapeError, match="do not fit inputs"):
        insertion(linear, inputs, draw(4, 7), 1)
    with pytest.raises(ArgumentError, match="at least one step"):
        deletion(linear, inputs, inputs, 1, steps=0)
    with pytest.raises(ArgumentError, match="1 to 8 positions"):
        removals(linear, inputs, inputs, 1, size=9)
    with pytest.raises(ArgumentError, match="at least 2 sets"):
        removals(linear, inputs, inputs, 1, samples=1)
    with pytest.raises(ShapeError, match="masks"):
        relevance_mass_accuracy(draw(2, 3, 4, 4), torch.ones(2, 3, 4) > 0)


def test_mass_and_pointing_by_hand():
    values = torch.zeros(3, 2, 2, 2)
    values[0, :, 0, 0] = torch.tensor([1.0, 2.0])
    values[0, 0, 1, 1] = -1.0
    values[1, :, 0, 1] = torch.tensor([2.0, -2.0])  # nothing in sum
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    masks[:, 0] = True
    assert relevance_mass_accuracy(values, masks).tolist() == [0.75, 0.0, 0.0]
    # of the second image nothing contributes, so that each place is as good: half of them lie in the mask
    assert pointing_game(values, masks).tolist() == [1.0, 0.5, 0.5]


def test_a_strong_reason_against_the_target_is_no_hit():
    values = torch.zeros(2, 3, 2, 2)
    values[:, 0, 0, 0], values[:, 0, 1, 1] = -9.0, 2.0  # the object's corner, and one beside it
    masks = torch.tensor([[[True, False], [False, False]], [[False, False], [False, True]]])
    assert pointing_game(values, masks).tolist() == [0.0, 1.0]
    assert pointing_game(-values, masks).tolist() == [1.0, 0.0]
    assert relevance_mass_accuracy(values, masks).tolist() == [9 / 11, 2 / 11]  # where signs do not count


def test_the_balance_inside_tells_signs_apart():
    masks = draw(5, 4, 4) > 0
    values = draw(5, 3, 4, 4, seed=1)
    balance = balance_inside(values, masks)
    torch.testing.assert_close(balance_inside(-values, masks), -balance)
    assert (balance.abs() <= relevance_mass_accuracy(values, masks)).all()
    # of contributions that all speak for the target it is the mass
    torch.testing.assert_close(
        balance_inside(values.abs(), masks), relevance_mass_accuracy(values.abs(), masks)
    )


def test_an_untrained_network_has_no_reason_inside():
    images, labels, masks = ShapesDataset(seed=5).batch(range(4))
    model = ShapesCNN().eval()
    balances = []
    for sign in (1, -1):
        model.head.weight.data *= sign  # as likely as the other
        balances.append(balance_inside(InputXGradient(model)(images, labels).values, masks))
    torch.testing.assert_close(balances[0], -balances[1])


def test_places_that_contribute_as_much_share_the_point():
    values = torch.zeros(1, 3, 4, 4)
    values[..., 1:3, :] = 2.0  # a segment of two rows
    for rows, share in ((1, 0.0), (2, 0.5), (3, 1.0)):
        masks = (torch.arange(4) < rows)[:, None].expand(4, 4)[None]
        assert pointing_game(values, masks).item() == share
    # whatever the order in which places are counted
    masks = draw(1, 4, 4) > 0
    assert pointing_game(values, masks) == pointing_game(values.flip(2, 3), masks.flip(1, 2))


def test_the_masks_of_others_say_what_the_place_alone_gives():
    masks = torch.zeros(6, 1, 6, dtype=torch.bool)
    masks[torch.arange(6), 0, torch.arange(6)] = True
    masks[:, :, 0] = True  # where every object is
    values = masks.double()[:, None]
    for measure in (relevance_mass_accuracy, pointing_game):
        assert (measure(values, masks) == 1).all()
        for others in (1, 3, 99):
            assert chance_level(measure, values, masks, others).tolist() == [1.0] + [0.5] * 5
    with pytest.raises(ArgumentError, match="two images"):
        chance_level(relevance_mass_accuracy, values[:1], masks[:1])


def test_random_contributions_have_the_share_of_the_mask():
    masks = torch.zeros(200, 16, 16, dtype=torch.bool)
    masks[:, :8, :8] = True
    values = draw(200, 1, 16, 16)
    assert float(relevance_mass_accuracy(values, masks).mean()) == pytest.approx(0.25, abs=0.02)
    assert float(pointing_game(values, masks).double().mean()) == pytest.approx(0.25, abs=0.1)


def test_rank_correlation_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    first, second = draw(3, 20).round(decimals=1), draw(3, 20, seed=1).round(decimals=1)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    torch.testing.assert_close(spearman(first, second), torch.tensor(expected, dtype=torch.float64))


def test_a_linear_saliency_is_not_sensitive(linear):
    inputs = draw(4, 8)
    assert max_sensitivity(Saliency(linear), inputs, 1).max() == 0
    moved = max_sensitivity(InputXGradient(linear), inputs, 1, radius=0.1, samples=5)
    weight = linear.weight[1].detach()
    bound = 0.1 * weight.norm() / (inputs * weight).norm(dim=1)
    assert (moved > 0).all() and (moved <= bound).all()
    with pytest.raises(ArgumentError, match="positive radius"):
        max_sensitivity(Saliency(linear), inputs, 1, radius=0)


def test_forgetting_changes_gradients_more_than_guided_backpropagation(shapes):
    model, images, labels, _ = shapes
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    gradients = randomization(InputXGradient(model), images[:4], labels[:4])
    guided = randomization(GuidedBackprop(model), images[:4], labels[:4])
    assert gradients.layers == ("head", "conv6", "conv5", "conv4", "conv3", "conv2", "conv1")
    assert guided.correlations[:4].mean() > gradients.correlations[:4].mean() + 0.1
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    again = randomization(InputXGradient(model), images[:4], labels[:4])
    assert torch.equal(gradients.correlations, again.correlations)
    assert gradients.plot().get_ylabel().startswith("rank correlation") and "7 layers" in repr(gradients)


def test_forgetting_a_layer_that_does_not_matter_changes_nothing(linear):
    result = randomization(InputXGradient(linear_with(linear)), draw(3, 8), 1, layers="spare")
    torch.testing.assert_close(result.correlations, torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="layer '1' has no weights"):
        randomization(InputXGradient(nn.Sequential(linear, nn.ReLU())), draw(3, 8), 1, layers=["1"])
    with pytest.raises(LayerError, match="spar"):
        randomization(InputXGradient(linear_with(linear)), draw(3, 8), 1, layers=["spar"])
    with pytest.raises(ArgumentError, match="no layer"):
        randomization(InputXGradient(nn.ReLU()), draw(3, 8), 1)


def linear_with(linear):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.spare = linear, nn.Linear(8, 8).double()

        def forward(self, x):
            return self.linear(x)

    return Spare()


def test_methods_beside_each_other(shapes, tmp_path):
    model, images, labels, masks = shapes
    methods = {"gradient": InputXGradient(model), "cam": GradCam(model, "relu5")}
    table = compare(methods, images, labels, masks, baselines=0.5, samples=3, steps=3)
    assert table.methods == ("gradient", "cam") and table.heat.shape == (2, 12, 64, 64)
    values = methods["gradient"](images, labels).values
    torch.testing.assert_close(table.columns["inside"][0], relevance_mass_accuracy(values, masks))
    torch.testing.assert_close(table.columns["pointing"][0], pointing_game(values, masks))
    torch.testing.assert_close(
        table.columns["pointing_chance"][0], chance_level(pointing_game, values, masks)
    )
    lines = str(table).splitlines()
    assert len(lines) == 3 and lines[1].startswith("gradient") and len(set(map(len, lines))) == 1
    assert table.markdown().count("\n") == 4
    table.save(tmp_path / "table.safetensors")
    again = Comparison.load(tmp_path / "table.safetensors")
    assert str(again) == str(table) and torch.equal(again.heat, table.heat)
    assert len(table.plot(images, 3, masks).axes) == 9 + 1  # and the colour bar
    with pytest.raises(ArgumentError, match="'x'"):
        compare(methods, images, labels, method_baselines={"x": 0.5})
    with pytest.raises(ArgumentError, match="on one network"):
        compare({**methods, "other": Saliency(ShapesCNN())}, images, labels)
    with pytest.raises(ArgumentError, match="a method is configured, such as .*, got <class"):
        compare([Saliency], images, labels)
    with pytest.raises(ArgumentError, match="at least one method"):
        compare([], images, labels)
    for inputs in ((images,), {"x": images}):
        with pytest.raises(ArgumentError, match="inputs is a tensor, got"):
            compare(methods, inputs, labels)


def test_a_method_is_compared_with_its_settings_and_its_baseline():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images, data = draw(4, 3, 4, 4), draw(20, 3, 4, 4, seed=1)
    model = model.double()
    methods = {
        "plain": Saliency(model, absolute=False),
        "expected": ExpectedGradients(model, samples=20, seed=3),
    }
    table = compare(methods, images, 1, method_baselines={"expected": FromData(data)}, faithfulness=False)
    wanted = [methods["plain"](images, 1).values, methods["expected"](images, 1, FromData(data)).values]
    torch.testing.assert_close(table.heat, torch.stack([heat_map(values) for values in wanted]))
