"""Colours that are measured, and gradients of one size."""

import pytest
import torch

import toumei.cnns.parameterization as param
from toumei.cnns.robustness.crops import NormalizeGradient
from toumei.core.errors import ArgumentError, ShapeError


def test_the_matrix_is_a_root_of_the_covariance_of_all_pixels():
    torch.manual_seed(0)
    mixing = torch.tensor([[0.1, 0.02, 0.0], [0.05, 0.06, 0.01], [0.0, 0.03, 0.08]])
    images = (0.5 + torch.einsum("rc,nchw->nrhw", mixing, torch.randn(6, 3, 10, 14))).clamp(0, 1)
    matrix = param.color_matrix([images[:4], (images[4:], torch.zeros(2))]).double()
    covariance = images.movedim(1, 3).reshape(-1, 3).double().T.cov(correction=0)
    root = matrix @ matrix.T
    torch.testing.assert_close(root / root.trace(), covariance / covariance.trace(), rtol=1e-5, atol=1e-6)
    norms = torch.linalg.vector_norm(matrix, dim=0)
    assert norms[0] == pytest.approx(1) and norms[0] >= norms[1] >= norms[2]
    torch.testing.assert_close(matrix.T @ matrix, torch.diag(norms.square()), rtol=0, atol=1e-6)


def test_pictures_take_it():
    matrix = param.color_matrix([torch.rand(2, 3, 8, 8)])
    assert param.FFTImage(1, 3, 9, 7, decorrelate=matrix, seed=0).get_image().shape == (1, 3, 9, 7)


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], ArgumentError, "the loader is empty"),
        ([torch.full((1, 3, 4, 4), 0.2)], ArgumentError, "all pixels have one colour"),
        ([torch.rand(1, 1, 4, 4)], ShapeError, "3 channels, got 1"),
    ],
)
def test_images_without_colours_are_refused(loader, error, message):
    with pytest.raises(error, match=message):
        param.color_matrix(loader)


def test_gradients_have_one_size_and_their_own_direction():
    image = torch.rand(3, 2, 5, 4, requires_grad=True)
    weight = torch.randn(3, 2, 5, 4) * torch.tensor([1.0, 100.0, 0.0])[:, None, None, None]
    shown = NormalizeGradient()(image)
    assert torch.equal(shown, image)
    (shown * weight).sum().backward()
    expected = weight.flatten(1) / weight.flatten(1).norm(dim=1, keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(image.grad.flatten(1), expected)
    assert not image.grad[2].any()
