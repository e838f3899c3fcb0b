"""KernelSHAP: its coalitions, its regression, its errors and what they are said to be."""

from math import comb

import pytest
import torch
from torch import nn

from toumei.attribution import ExactShapley, FromData, KernelShap, grid
from toumei.attribution.perturbation.kernel_shap import kernel_regression
from toumei.attribution.perturbation.kernel_shap_design import kernel_design
from toumei.attribution.perturbation.shapley import coalitions, shapley_values
from toumei.core.errors import ArgumentError


def made(count, samples, seed=0):
    return kernel_design(count, samples, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "samples"), [(2, 2), (5, 30), (7, 60), (8, 100), (12, 500), (40, 300)])
def test_coalitions_are_different_pairs(count, samples):
    design = made(count, samples)
    assert len(design.keep.unique(dim=0)) == len(design.keep) <= samples
    assert len(design.keep) >= 0.95 * samples
    assert (design.keep[::2] == ~design.keep[1::2]).all()
    assert torch.isclose(design.weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_all_coalitions_have_the_weights_of_the_kernel():
    design = made(6, 10_000)
    assert len(design.keep) == 2**6 - 2 and not design.sampled.any()
    sizes = design.keep.sum(1).tolist()
    kernel = torch.tensor([5 / (comb(6, size) * size * (6 - size)) for size in sizes], dtype=torch.float64)
    assert torch.allclose(design.weights, kernel / kernel.sum())


def test_sizes_weigh_what_they_weigh_in_the_kernel_and_the_outer_ones_are_enumerated():
    count = 10
    design = made(count, 400)
    sizes = design.keep.sum(1)
    kernel = torch.tensor([1 / (size * (count - size)) for size in range(1, count)], dtype=torch.float64)
    weights = torch.zeros(count, dtype=torch.float64).index_add_(0, sizes, design.weights)[1:]
    assert torch.allclose(weights, kernel / kernel.sum())
    for size in (1, 2, 8, 9):
        assert (sizes == size).sum() == comb(count, size)
    assert not design.sampled[(sizes - 5).abs() >= 3].any()


def test_coalitions_of_one_size_are_equally_likely():
    seen = sum(made(6, 24, seed).keep[12:].sum(0) for seed in range(300)).double()
    drawn = 300 * (24 - 12) / 2
    assert (seen / drawn - 1).abs().max() < 0.1


def test_all_coalitions_give_the_shapley_values():
    table = torch.randn(2**7, 2, 3, dtype=torch.float64)
    design = made(7, 126)
    bits = (design.keep * 2 ** torch.arange(7)).sum(1)
    values, error = kernel_regression(design, table[bits], table[-1], table[0])
    assert torch.allclose(values.movedim(1, 0), shapley_values(table), atol=1e-9) and (error == 0).all()


def test_the_regression_is_the_constrained_least_squares_solution():
    design, generator = made(9, 60), torch.Generator().manual_seed(1)
    scores = torch.randn(60, 1, 1, generator=generator, dtype=torch.float64)
    ends = torch.tensor([[2.0]]).double(), torch.tensor([[0.5]]).double()
    values = kernel_regression(design, scores, *ends)[0][0, :, 0]
    # the last value by the others, and an ordinary weighted regression for those
    members = design.keep.double()
    reduced = (members[:, :-1] - members[:, -1:]) * design.weights.sqrt()[:, None]
    aims = (scores[:, 0, 0] - 0.5 - members[:, -1] * 1.5) * design.weights.sqrt()
    free = torch.linalg.lstsq(reduced, aims[:, None]).solution[:, 0]
    assert torch.allclose(values, torch.cat([free, 1.5 - free.sum()[None]]), atol=1e-9)


def test_standard_errors_are_those_over_seeds(watched):
    torch.manual_seed(0)
    count = 12
    net = watched(nn.Sequential(nn.Linear(count, 24), nn.ReLU(), nn.Linear(24, 1)))
    inputs = 2 * torch.randn(1, count)
    exact = ExactShapley(net)(inputs).values
    results = [KernelShap(net, samples=200, seed=seed)(inputs) for seed in range(30)]
    wrong = torch.stack([result.values - exact for result in results]).square().mean().sqrt()
    said = torch.stack([result.standard_error for result in results]).square().mean().sqrt()
    assert 0.7 < said / wrong < 1.6
    assert torch.stack([result.values - exact for result in results]).mean(0).abs().max() < wrong


def test_a_linear_model_is_fitted_from_the_fewest_samples_that_are_enough(watched):
    model = watched(nn.Linear(30, 1))
    inputs = torch.randn(2, 30)
    result = KernelShap(model, samples=60)(inputs)
    assert torch.allclose(result.values, model.weight * inputs, atol=1e-5)
    assert torch.allclose(result.r_squared, torch.ones(2))
    with pytest.raises(ArgumentError, match="at least 60"):
        KernelShap(model, samples=59)(inputs)


def test_too_few_samples_for_the_pixels_of_a_picture_names_superpixels(small_cnn):
    images = torch.rand(1, 3, 64, 64)
    pixels = torch.arange(64 * 64).reshape(64, 64)
    with pytest.raises(ArgumentError, match=r"4096 features.*superpixels"):
        KernelShap(small_cnn, features=pixels, samples=1000)(images, target=0)


def test_one_and_two_features(watched):
    for count in (1, 2):
        model = watched(nn.Linear(count, 1))
        result = KernelShap(model)(torch.ones(1, count))
        assert torch.allclose(result.values, model.weight, atol=1e-6)


def test_pictures_have_superpixels_by_default_or_a_grid(small_cnn):
    images = torch.rand(2, 3, 16, 24)
    result = KernelShap(small_cnn, samples=120, baseline_samples=2)(
        images, target=[0, 1], baselines=FromData(images)
    )
    assert result.values.shape == (2, 2, 3, 16, 24) and result.gap.abs().max() < 1e-5
    cells = grid(images, 2, 3)
    result = KernelShap(small_cnn, features=cells)(images, target=0)
    assert result.features.shape == (2, 6)
    exact = ExactShapley(small_cnn, features=cells)(images, target=0)
    assert torch.allclose(result.values, exact.values, atol=1e-7)


def test_half_precision_models_are_explained_in_float32():
    model = nn.Linear(5, 1).bfloat16()
    result = KernelShap(model)(torch.randn(1, 5).bfloat16())
    assert result.values.dtype == torch.float32 and result.gap.abs().max() < 1e-5


def test_every_coalition_passes_once(watched):
    passes = []

    class Counting(nn.Module):
        def forward(self, x):
            passes.append(len(x))
            return x.prod(1, keepdim=True)

    KernelShap(Counting(), samples=100, batch_size=32)(torch.randn(3, 12))
    assert sum(passes) - 7 == 300 and max(passes) == 32
    passes.clear()
    ExactShapley(Counting())(torch.randn(1, 5))
    assert sum(passes) - 3 == len(coalitions(5))
