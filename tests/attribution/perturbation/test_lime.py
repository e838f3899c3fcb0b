"""LIME: closed forms of its regressions, its kernels, and what cannot be asked for."""

import pytest
import torch
from torch import nn

from toumei.attribution import Lime, superpixels
from toumei.attribution.perturbation.shapley import coalitions
from toumei.attribution.perturbation.surrogate import weighted_lasso, weighted_r_squared, weighted_ridge
from toumei.core.errors import ArgumentError, ShapeError

EQUAL = {"width": float("inf"), "ridge": 0.0}


@pytest.fixture
def net(watched):
    torch.manual_seed(0)
    return watched(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))


@pytest.mark.parametrize("options", [{}, {"space": "inputs"}, {"distance": "euclidean", "width": 2.0}])
def test_linear_models_get_their_terms_from_any_kernel(watched, options):
    model = watched(nn.Linear(6, 2).double())
    inputs, baseline = torch.randn(3, 6).double(), torch.randn(6).double()
    for samples in (30, 1000):
        result = Lime(model, samples=samples, ridge=0, **options)(inputs, target=1, baselines=baseline)
        assert torch.allclose(result.values, model.weight[1] * (inputs - baseline), atol=1e-8)
        assert torch.allclose(result.r_squared, torch.ones(3).double())
    assert result.gap is None


def test_coefficients_are_those_of_scikit_learn():
    from sklearn.linear_model import Ridge

    members, scores = torch.rand(40, 5).round(), torch.randn(40, 2, 3)
    weights = torch.rand(40, 2)
    values, intercept = weighted_ridge(members, scores, weights, 0.7)
    shared, _ = weighted_ridge(members, scores, weights[:, 0], 0.7)
    fitted = torch.einsum("cm,rmt->crt", members.double(), values) + intercept
    r_squared = weighted_r_squared(scores.double(), fitted, weights)
    for row in range(2):
        model = Ridge(0.7).fit(members.numpy(), scores[:, row].numpy(), weights[:, row].numpy())
        assert torch.allclose(values[row].T, torch.from_numpy(model.coef_).double(), atol=1e-5)
        assert torch.allclose(intercept[row], torch.from_numpy(model.intercept_).double(), atol=1e-5)
        score = model.score(members.numpy(), scores[:, row].numpy(), weights[:, row].numpy())
        assert abs(r_squared[row].mean() - score) < 1e-5  # scikit-learn's is the mean over targets
    assert torch.allclose(shared[0], values[0])
    flat = weighted_ridge(members, scores, weights[:, 0], 1e9)[0]
    assert flat.abs().max() < 1e-6
    assert r_squared.shape == (2, 3) and ((r_squared > 0) & (r_squared < 1)).all()


@pytest.mark.parametrize("count", range(1, 9))
def test_few_features_get_what_as_many_drawn_samples_give_in_the_mean(watched, count):
    from sklearn.linear_model import Ridge

    torch.manual_seed(count)
    model = watched(nn.Sequential(nn.Linear(count, 8), nn.Tanh(), nn.Linear(8, 1)).double())
    inputs, keep = torch.randn(1, count).double(), coalitions(count)
    result = Lime(model)(inputs)
    kernel = torch.exp(-((1 - keep.double().mean(1).sqrt()) ** 2) / (2 * 0.25**2))
    with torch.no_grad():
        scores = model(torch.where(keep, inputs, 0.0))[:, 0]
    # of 1000 samples each coalition gets its share
    expected = Ridge(1.0).fit(keep.numpy(), scores.numpy(), (kernel * 1000 / 2**count).numpy())
    assert torch.allclose(result.values[0], torch.from_numpy(expected.coef_), atol=1e-9)


def test_r_squared_by_its_definition_and_of_constants():
    scores, fitted, weights = (
        torch.randn(9, dtype=torch.float64),
        torch.randn(9).double(),
        torch.rand(9).double(),
    )
    mean = (weights * scores).sum() / weights.sum()
    expected = 1 - (weights * (scores - fitted) ** 2).sum() / (weights * (scores - mean) ** 2).sum()
    assert torch.isclose(weighted_r_squared(scores, fitted, weights), expected)
    assert weighted_r_squared(torch.full((9,), 0.3).double(), torch.full((9,), 0.3).double(), weights) == 1


def test_the_lasso_is_a_soft_threshold_where_coalitions_are_independent(watched):
    coefficients = torch.tensor([0.5, 0.2, -0.1, 0.05, 0.01])
    model = nn.Linear(5, 1).double()
    with torch.no_grad():
        model.weight.copy_(coefficients)
    watched(model)
    inputs = torch.ones(1, 5).double()
    result = Lime(model, lasso=0.01, **EQUAL)(inputs)
    soft = coefficients.sign() * (coefficients.abs() - 0.04).clamp(min=0)
    assert torch.allclose(result.values[0], soft.double(), atol=1e-6)
    assert torch.allclose(Lime(model, **EQUAL)(inputs).values[0], coefficients.double(), atol=1e-9)
    assert result.r_squared < 1


def test_lasso_without_a_penalty_to_speak_of_is_least_squares():
    members, scores, weights = torch.rand(30, 3).round(), torch.randn(30, 2, 1), torch.rand(30, 2)
    lasso = weighted_lasso(members, scores, weights, 1e-9)[0]
    assert torch.allclose(lasso, weighted_ridge(members, scores, weights)[0], atol=1e-4)


def test_no_coefficient_is_zeroed_and_the_kernel_matters(net):
    inputs = torch.randn(2, 6)
    near = Lime(net, width=0.05, ridge=1e-6)(inputs, target=[0, 1, 2])
    far = Lime(net, width=100.0, ridge=1e-6)(inputs, target=[0, 1, 2])
    assert (near.values != 0).all() and not torch.allclose(near.values, far.values, atol=1e-3)
    # the narrow kernel sees little but the input and its nearest neighbours
    with torch.no_grad():
        hidden = torch.where(torch.eye(6, dtype=torch.bool), 0.0, inputs[:1])
        drops = net(inputs[:1]) - net(hidden)
    closest = Lime(net, width=0.02, ridge=1e-9)(inputs[:1], target=[0, 1, 2])
    assert torch.allclose(closest.values[:, 0], drops.T, atol=2e-2)


def test_weights_depend_on_inputs_in_their_own_space_only(net):
    inputs = torch.tensor([[10.0, 0.1, 0.1, 0.1, 0.1, 0.1]])
    features, numbers = (Lime(net, space=space)(inputs, target=0) for space in ("features", "inputs"))
    assert not torch.allclose(features.values, numbers.values, atol=1e-3)
    scaled = nn.Sequential(nn.Linear(6, 6, bias=False), net)
    with torch.no_grad():
        scaled[0].weight.copy_(torch.eye(6) / 2)
    same = Lime(scaled, space="inputs")(2 * inputs, target=0)  # the cosine does not see the scale
    assert torch.allclose(same.values, numbers.values, atol=1e-5)


@pytest.mark.parametrize("space", ["features", "inputs"])
def test_batches_seeds_and_targets(net, space):
    inputs = torch.randn(4, 6)
    options = {"samples": 50, "space": space, "seed": 5}
    together = Lime(net, batch_size=7, **options)(inputs, target=[0, torch.tensor([2, 1, 0, 1])])
    for index, target in enumerate((2, 1, 0, 1)):
        alone = Lime(net, **options)(inputs[index : index + 1], target=target)
        assert torch.allclose(together[1].values[index], alone.values[0], atol=1e-6)
        assert torch.allclose(together[1].r_squared[index], alone.r_squared[0], atol=1e-5)
    other = Lime(net, **{**options, "seed": 6})(inputs, target=0)
    assert not torch.equal(other.values, together[0].values)


def test_superpixels_of_pictures(small_cnn):
    images = torch.rand(2, 3, 24, 32)
    images[:, :, :, 16:] *= 0.1
    found = superpixels(images, 8)
    assert found.shape == (2, 1, 24, 32) and found.min() == 0
    result = Lime(small_cnn, samples=120)(images, target=1)
    assert result.values.shape == images.shape
    for index in range(2):
        alone = Lime(small_cnn, samples=120)(images[index : index + 1], target=1)
        assert torch.allclose(alone.values[0], result.values[index], atol=1e-6)
    assert superpixels(images[:, :1], 4).shape == (2, 1, 24, 32)
    with pytest.raises(ShapeError, match="pictures"):
        superpixels(torch.rand(3, 24, 32))
    with pytest.raises(ArgumentError, match="one segment"):
        superpixels(images, 0)


def test_tokens(watched):
    model = watched(nn.Sequential(nn.EmbeddingBag(9, 2, mode="sum")))
    tokens = torch.randint(1, 9, (2, 7))
    result = Lime(model, ridge=0)(tokens, target=0, baselines=0)
    table = model[0].weight[:, 0]
    assert torch.allclose(result.values, (table[tokens] - table[0]).detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 6}, "6 samples cannot determine 6 coefficients"),
        ({"width": 0.0}, "width and lasso are above 0"),
        ({"ridge": -1.0}, "ridge is at least 0"),
        ({"lasso": 0.0}, "lasso are above 0"),
        ({"space": "pixels"}, "space is one of 'features', 'inputs'"),
        ({"distance": "manhattan"}, "distance is one of 'cosine', 'euclidean'"),
        ({"width": 1e-3, "ridge": 0.0}, "cannot determine 6 coefficients: .* wider kernel"),
    ],
)
def test_what_cannot_be_asked_for(net, options, message):
    with pytest.raises(ArgumentError, match=message):
        Lime(net, **options)(torch.randn(1, 6), target=0)


def test_settings_are_checked_when_the_method_is_made(net):
    for options in ({"width": 0.0}, {"space": "pixels"}, {"samples": 1.5}, {"batch_size": True}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            Lime(net, **options)
    with pytest.raises(TypeError, match="'kernel'"):
        Lime(net, kernel=2)
