"""Starting from a given picture: exact inverses, the gradient of accentuation, and what is no picture."""

import numpy as np
import pytest
import torch

import toumei.cnns.parameterization as param
from toumei.core.errors import ShapeError

SIZES = [(8, 8), (9, 7), (7, 10), (31, 20), (1, 6), (6, 1)]
OWN = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
STARTS = [param.PixelImage.from_image, param.FFTImage.from_image, param.AccentuatedImage]
every_start = pytest.mark.parametrize("start", STARTS, ids=["pixel", "fft", "accentuated"])


def photograph(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@every_start
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_start_is_the_picture(start, size, channels):
    image = photograph(2, channels, *size)
    torch.testing.assert_close(start(image).get_image(), image, atol=1e-5, rtol=0)


@every_start
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("decorrelate", [True, False, OWN])
def test_the_start_is_the_picture_in_any_color_space(start, decorrelate, sigmoid):
    image = photograph(2, 3, 9, 14)
    made = start(image, decorrelate=decorrelate, sigmoid=sigmoid)
    torch.testing.assert_close(made.get_image(), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"decay": 1.7}, {"decay": 0.0}, {"saturation": 1.0}])
def test_the_start_is_the_picture_at_any_scale_of_the_spectrum(options):
    image = photograph(1, 3, 9, 14)
    made = param.FFTImage.from_image(image, **options)
    torch.testing.assert_close(made.get_image(), image, atol=1e-5, rtol=0)


@every_start
def test_black_and_white_are_moved_into_the_margin_and_no_further(start):
    image = torch.tensor([0.0, 1.0, 0.004, 0.5]).view(1, 1, 1, 4).expand(2, 3, 5, 4)
    made = start(image, margin=0.01).get_image()
    torch.testing.assert_close(made, image.clamp(0.01, 0.99), atol=1e-5, rtol=0)
    assert start(image).parameters[0].isfinite().all()
    torch.testing.assert_close(start(image, sigmoid=False).get_image(), image, atol=1e-5, rtol=0)


@every_start
def test_a_start_is_a_copy_without_graph(start):
    image = photograph(1, 3, 6, 6).requires_grad_()
    before = image.detach().clone()
    (parameter,) = start(image).parameters
    assert parameter.is_leaf
    assert parameter.requires_grad
    with torch.no_grad():
        parameter += 1
    assert torch.equal(image, before)


@every_start
def test_pictures_may_have_any_precision(start):
    half = photograph(1, 3, 6, 6).half()
    torch.testing.assert_close(start(half).get_image(), half.float(), atol=1e-5, rtol=0)


@every_start
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 8, 8), r"must be a tensor \(N, C, H, W\), got \(3, 8, 8\)"),
        (torch.rand(0, 3, 8, 8), r"got \(0, 3, 8, 8\)"),
        (np.zeros((1, 3, 8, 8)), "got ndarray"),
        (torch.full((1, 3, 8, 8), 255), r"in \[0, 1\], got values from 255 to 255"),
        (torch.full((1, 3, 8, 8), -0.1), r"got values from -0.1 to -0.1"),
        (torch.full((1, 3, 8, 8), torch.nan), r"got values from nan to nan"),
    ],
)
def test_what_is_no_picture_is_an_error_at_once(start, image, message):
    with pytest.raises(ShapeError, match=message):
        start(image)


@every_start
def test_a_color_matrix_without_inverse_is_an_error_at_once(start):
    with pytest.raises(ShapeError, match="colour matrix that has no inverse"):
        start(photograph(1, 3, 4, 4), decorrelate=torch.ones(3, 3))


def scale_of_horama(height, width, decay):
    fy, fx = np.fft.fftfreq(height)[:, None], np.abs(np.fft.fftfreq(width)[: width // 2 + 1])[None]
    frequency = np.maximum(np.sqrt(fy**2 + fx**2), 1 / max(height, width))
    return frequency**-decay * np.sqrt(height * width)


@pytest.mark.parametrize("decay", [1.5, 0.7])
@pytest.mark.parametrize("size", SIZES)
def test_accentuation_multiplies_the_gradient_of_the_spectrum_and_nothing_else(size, decay):
    image = photograph(2, 3, *size)
    weights = photograph(2, 3, *size, seed=1)
    made = param.AccentuatedImage(image, decay=decay)
    (made.get_image() * weights).sum().backward()
    matrix = param.COLOR_CORRELATION.double()
    numbers = torch.einsum("rc,nchw->nrhw", matrix.inverse(), image.double().clamp(1e-5, 1 - 1e-5).logit())
    spectrum = torch.fft.rfft2(numbers).requires_grad_()
    plain = torch.einsum("rc,nchw->nrhw", matrix, torch.fft.irfft2(spectrum, s=size)).sigmoid()
    torch.testing.assert_close(made.get_image().double(), plain, atol=1e-5, rtol=0)
    (plain * weights).sum().backward()
    expected = torch.view_as_real(spectrum.grad) * torch.tensor(scale_of_horama(*size, decay))[..., None]
    largest = expected.abs().max().item()
    torch.testing.assert_close(
        made.coefficients.grad.double(), expected, atol=1e-6 * max(largest, 1), rtol=1e-5
    )
