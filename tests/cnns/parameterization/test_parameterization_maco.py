"""MACO: the authors' formulas restated, magnitudes that never change, transparency, spectra and crops."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import Pipeline, robustness
from toumei.core.errors import ArgumentError, ShapeError

SIZES = [(8, 8), (9, 7), (7, 10), (31, 20)]


def standardize(array):
    return (array - array.mean()) / (array.std(ddof=1) + 1e-4)


def maco_of_one(phase, magnitude, size):
    """What horama's maco_preconditioner computes of one picture, in float64."""
    phase = standardize(phase)
    plane = standardize(np.fft.irfft2(magnitude * np.cos(phase) + 1j * magnitude * np.sin(phase), s=size))
    matrix = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    matrix = matrix / np.sqrt((matrix**2).sum(0)).max()
    return 1 / (1 + np.exp(-np.einsum("rc,chw->rhw", matrix, plane)))


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_those_of_the_authors_formulas(size):
    maco = param.MACO(2, 3, *size, seed=0)
    phase, magnitude = maco.phase.detach().double().numpy(), maco.magnitude.double().numpy()
    expected = np.stack([maco_of_one(one, magnitude, size) for one in phase])
    np.testing.assert_allclose(maco.get_image().detach().numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_magnitudes_stay_what_they_are_whatever_the_phases(size):
    maco = param.MACO(2, 3, *size, seed=0)
    inner = slice(1, (size[1] + 1) // 2)  # the outer columns are their own mirror images
    for _ in range(2):
        found = torch.fft.rfft2(maco.numbers().detach()).abs()[..., inner]
        ratio = found / maco.magnitude[..., inner]
        torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), atol=0, rtol=1e-3)
        with torch.no_grad():
            maco.phase += torch.randn(maco.phase.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_closed_form_has_the_published_slopes_and_energies(channels):
    magnitude = param.natural_magnitude(channels, 512, 512).double()
    frequency = param.frequencies(512, 512).double()
    for low, high, slope in [(0.004, 0.05, -1.3), (0.05, 0.12, -1.5), (0.12, 0.2, -1.8), (0.2, 0.3, -2.5)]:
        row = frequency[0]
        ends = [(row - edge).abs().argmin() for edge in (low + 0.003, high - 0.003)]
        rise = (magnitude[0, 0, ends[1]] / magnitude[0, 0, ends[0]]).log()
        assert rise / (row[ends[1]] / row[ends[0]]).log() == pytest.approx(slope, abs=0.01)
    energy = magnitude.square()
    shares = energy.sum((1, 2)) / energy.sum()
    expected = (0.37, 0.39, 0.24) if channels == 3 else (1 / channels,) * channels
    assert shares.tolist() == pytest.approx(expected)
    energy[:, 0, 0] = 0
    assert (energy[:, frequency < 0.1].sum() / energy.sum()).item() == pytest.approx(0.98, abs=0.01)
    assert param.MACO(1, channels, 64, 64).magnitude.shape == (channels, 64, 33)


def shown(images, seed=0):
    maco = param.MACO(images, 3, 16, 14, seed=seed)
    return maco, param.Transform(maco, lambda x: x * 2 - 1)


def test_a_batch_is_as_many_single_runs(small_cnn):
    maco, generator = shown(2)
    start = maco.phase.detach().clone()
    fv = Pipeline(generator, obj.Channel("conv2", channels=[1, 3])).attach(small_cnn)
    together = fv.optimize(3, torch.optim.NAdam, lr=1.0, verbose=False)
    for index, channel in enumerate([1, 3]):
        alone, generator = shown(1)
        with torch.no_grad():
            alone.phase.copy_(start[index : index + 1])
        single = Pipeline(generator, f"conv2:{channel}").attach(small_cnn)
        result = single.optimize(3, torch.optim.NAdam, lr=1.0, verbose=False)
        torch.testing.assert_close(result.images[0], together.images[index], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.transparency[0], maco.transparency[index], atol=1e-6, rtol=1e-3)


def test_transparency_is_the_sum_of_absolute_gradients_and_looking_adds_nothing(small_cnn):
    maco, generator = shown(2)
    fv = Pipeline(generator, ["conv2:1", "conv2:3"]).attach(small_cnn)
    assert not maco.transparency.any()
    expected = torch.zeros(2, 1, 16, 14)

    def look(progress):
        assert progress.image.shape == (2, 3, 16, 14)

    for _ in range(2):
        image = maco.get_image().detach().requires_grad_()
        score = small_cnn.conv2(small_cnn.relu1(small_cnn.conv1(image * 2 - 1))).mean((2, 3))
        (gradient,) = torch.autograd.grad(score[0, 1] + score[1, 3], image)
        expected += gradient.abs().mean(1, keepdim=True)
        fv.optimize(1, torch.optim.SGD, lr=1.0, verbose=False, callback=look)
        torch.testing.assert_close(maco.transparency, expected, atol=1e-6, rtol=1e-4)


def test_what_is_shown_is_clipped_at_the_percentiles_of_the_authors():
    maco = param.MACO(2, 3, 20, 15, seed=0)
    assert torch.equal(maco.transparent()[:, 3], torch.ones(2, 20, 15))
    maco.transparency = torch.rand(2, 1, 20, 15, generator=torch.Generator().manual_seed(1))
    made = maco.transparent().numpy()
    for index, image in enumerate(maco.get_image().detach().numpy()):
        clipped = np.clip(image, *np.percentile(image, (1, 99)))
        expected = (clipped - clipped.min()) / (clipped.max() - clipped.min())
        np.testing.assert_allclose(made[index, :3], expected, atol=1e-5)
        alpha = maco.transparency[index, 0].numpy()
        np.testing.assert_allclose(made[index, 3], np.minimum(alpha / np.percentile(alpha, 80), 1), atol=1e-5)


def test_the_spectrum_of_images_is_their_mean_magnitude_in_decorrelated_colors():
    images = torch.rand(5, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    loader = [(images[:2], torch.tensor([1, 2])), images[2:4], images[4]]
    found = param.magnitude_spectrum(loader, (12, 10))
    inverse = torch.linalg.inv(param.COLOR_CORRELATION.double()).numpy()
    centred = images.double().numpy() - np.array([0.48, 0.46, 0.41]).reshape(3, 1, 1)
    expected = np.abs(np.fft.rfft2(np.einsum("rc,nchw->nrhw", inverse, centred))).mean(0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    mixed = [images, torch.rand(2, 3, 7, 33), torch.rand(3, 40, 5)]
    assert param.magnitude_spectrum(mixed, 16).shape == (3, 16, 9)
    assert param.magnitude_spectrum([torch.rand(2, 1, 7, 9)], 8).shape == (1, 8, 5)


def test_a_magnitude_comes_from_a_tensor_or_a_file_and_is_resized(tmp_path):
    magnitude = torch.rand(3, 16, 9, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "m.npy", magnitude.numpy())
    save_file({"magnitude": magnitude}, tmp_path / "m.safetensors")
    for given in (magnitude, tmp_path / "m.npy", str(tmp_path / "m.safetensors")):
        torch.testing.assert_close(param.MACO(1, 3, 16, 16, magnitude=given).magnitude, magnitude)
        assert param.MACO(1, 3, 31, 20, magnitude=given).magnitude.shape == (3, 31, 11)
    save_file({"a": magnitude, "b": magnitude.clone()}, tmp_path / "two.safetensors")
    with pytest.raises(ArgumentError, match="holds 2 tensors"):
        param.load_magnitude(tmp_path / "two.safetensors")
    with pytest.raises(ArgumentError, match=r"\.npy and \.safetensors files, got '.*m.pt'"):
        param.load_magnitude(tmp_path / "m.pt")


def test_loaders_without_images_or_of_different_channels_are_errors():
    with pytest.raises(ArgumentError, match="loader is empty"):
        param.magnitude_spectrum([])
    with pytest.raises(ShapeError, match="1 channel after images of 3"):
        param.magnitude_spectrum([torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)], 8)
    with pytest.raises(ShapeError, match=r"RGB in \[0, 1\]"):
        param.magnitude_spectrum([torch.rand(1, 3, 8, 8) * 255])


@pytest.mark.parametrize(
    ("magnitude", "message"),
    [
        (torch.ones(1, 8, 5), r"must be \(3, H, W\), got \(1, 8, 5\)"),
        (torch.ones(8, 5), r"got \(8, 5\)"),
        (torch.zeros(3, 8, 5), "somewhere positive"),
        (-torch.ones(3, 8, 5), "nowhere negative"),
        (torch.full((3, 8, 5), math.nan), "finite"),
    ],
)
def test_a_magnitude_that_is_none_is_an_error_at_once(magnitude, message):
    with pytest.raises(ShapeError, match=message):
        param.MACO(1, 3, 8, 8, magnitude=magnitude)


def test_crops_are_squares_inside_the_picture_seen_at_their_places():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    images = torch.stack([torch.stack([y, x]), torch.stack([y, x]) + 100])
    crops = robustness.Crops(5, 9, (0.2, 0.6), uniform=True)
    torch.manual_seed(0)
    drawn = crops.draw(2, 40, 60)
    torch.manual_seed(0)
    seen = crops(images).view(5, 2, 2, 9, 9)
    steps = (2 * torch.arange(9) + 1) / 9 - 1
    for view in range(5):
        for image in range(2):
            cx, cy, half_width, half_height = drawn[image, view]
            assert half_width * 60 == pytest.approx(float(half_height * 40))
            assert max(abs(cx) + half_width, abs(cy) + half_height) <= 1 + 1e-6
            wanted_y = ((cy + half_height * steps + 1) * 40 - 1) / 2 + 100 * image
            wanted_x = ((cx + half_width * steps + 1) * 60 - 1) / 2 + 100 * image
            torch.testing.assert_close(seen[view, image, 0, :, 4], wanted_y, atol=1e-3, rtol=0)
            torch.testing.assert_close(seen[view, image, 1, 4, :], wanted_x, atol=1e-3, rtol=0)


def test_crops_are_drawn_as_they_say():
    torch.manual_seed(0)
    half = robustness.Crops(4000, 8, (0.25, 0.1)).draw(1, 50, 50)[0, :, 2]
    assert half.mean().item() == pytest.approx(0.25, abs=0.01)
    assert half.std().item() == pytest.approx(0.1, abs=0.01)
    drawn = robustness.Crops(4000, 8, (0.1, 0.2), uniform=True, spread=0.1).draw(1, 50, 50)[0]
    assert (drawn[:, 2].min() >= 0.1, drawn[:, 2].max() <= 0.2) == (True, True)
    assert drawn[:, 0].std().item() == pytest.approx(0.2, abs=0.01)


def test_noise_has_the_deviation_it_says_and_none_changes_nothing():
    torch.manual_seed(0)
    images = torch.zeros(1, 3, 100, 100)
    both = robustness.Noise(0.1, 0.3)(images)
    assert both.std().item() == pytest.approx(math.sqrt(0.1**2 + 0.3**2 / 3), rel=0.05)
    assert robustness.Noise()(images) is images


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: robustness.Crops(0, 8),
        lambda: robustness.Crops(1, 0),
        lambda: robustness.Crops(1, 8, (0.0, 0.1)),
        lambda: robustness.Crops(1, 8, (0.5, 0.4), uniform=True),
        lambda: robustness.Crops(1, 8, spread=-1),
        lambda: robustness.Noise(-0.1),
    ],
)
def test_crops_and_noise_that_make_no_sense_are_errors_at_once(wrong):
    with pytest.raises(ArgumentError, match="got"):
        wrong()
