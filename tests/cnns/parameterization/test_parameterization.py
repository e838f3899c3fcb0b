"""Pictures as functions of parameters: the spectrum against lucid's formula, and what every generator is."""

import inspect

import kornia.augmentation as K
import numpy as np
import pytest
import torch
import torchvision.transforms as T
from torch import nn

import toumei.cnns.parameterization as param
from toumei.core.errors import ShapeError
from toumei.core.seeding import make_generator, seeded

SIZES = [(8, 8), (9, 7), (7, 10), (31, 20), (20, 30), (5, 5), (1, 6), (6, 1)]
TRANSFORM = T.Compose([T.Pad(2), T.RandomRotation((-10, 11)), T.Lambda(lambda x: x * 255 - 117)])


def random_image(size, seed):
    return torch.rand(*size, generator=make_generator(seed))


def painter(images, channels, height, width, seed=None):
    with seeded(0):
        layers = (
            nn.Linear(4, channels * height * width),
            nn.Tanh(),
            nn.Unflatten(1, (channels, height, width)),
        )
    return param.GAN(nn.Sequential(*layers), (images, 4), seed=seed)


def alpha(images, channels, *size, seed=None):
    """An alpha channel beside one channel less of colours, so that the whole has the size asked for."""
    if channels == 1:
        return param.PixelImage(images, 1, *size, seed=seed)
    colors, transparency = (param.PixelImage(images, c, *size, seed=seed) for c in (channels - 1, 1))
    return param.AlphaImage(colors, transparency)


# How to make a small one of every generator that is exported: a new one must be added here.
SMALL = {
    "FFTImage": lambda *size, **options: param.FFTImage(*size, **options),
    "PixelImage": lambda *size, **options: param.PixelImage(*size, **options),
    "Neural": lambda *size, **options: param.Neural(*size, hidden=4, layers=2, **options),
    "AccentuatedImage": lambda *size, seed=None: param.AccentuatedImage(random_image(size, seed)),
    "LaplacianImage": lambda *size, **options: param.LaplacianImage(*size, levels=3, **options),
    "MACO": lambda *size, **options: param.MACO(*size, **options),
    "GAN": lambda *size, **options: painter(*size, **options),
    "SharedImage": lambda *size, seed=None: param.SharedImage(
        param.PixelImage(*size, seed=seed), param.FFTImage(*size, seed=seed)
    ),
    "AlphaImage": lambda n, c, *size, seed=None: alpha(n, c, *size, seed=seed),
    "Masked": lambda *size, seed=None: param.Masked(
        param.PixelImage(*size, seed=seed), torch.full(size, 0.5), torch.full(size[2:], 0.9)
    ),
    "Transform": lambda *size, **options: param.Transform(param.FFTImage(*size, **options), TRANSFORM),
}
EXPORTED = [
    name
    for name, thing in vars(param).items()
    if inspect.isclass(thing) and issubclass(thing, param.Generator) and not inspect.isabstract(thing)
]
every_generator = pytest.mark.parametrize("name", EXPORTED)


def lucid_colors(numbers, matrix):
    """The numbers (N, 3, H, W) in the basis of a matrix, through a sigmoid, in float64."""
    mixed = np.einsum("rc,nchw->nrhw", matrix, numbers) if matrix is not None else numbers
    return 1 / (1 + np.exp(-mixed))


def lucid_spectrum(coefficients, height, width, decay=1.0, saturation=4.0):
    """What lucid's fft_image computes before the colours (optvis/param/spatial.py), in float64."""
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.abs(np.fft.fftfreq(width)[: width // 2 + 1])[None, :]
    scale = 1 / np.maximum(np.sqrt(fy**2 + fx**2), 1 / max(height, width)) ** decay
    spectrum = scale * np.sqrt(height * width) * (coefficients[..., 0] + 1j * coefficients[..., 1])
    return np.fft.irfft2(spectrum, s=(height, width)) / saturation


def lucid_matrix():
    root = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    return root / np.sqrt((root**2).sum(axis=0)).max()


def before_colors(generator):
    """The numbers that the sigmoid of a generator without decorrelation got."""
    with torch.no_grad():
        return generator.get_image().double().logit()


@pytest.mark.parametrize("size", SIZES)
def test_spectrum_is_lucids_for_even_odd_and_oblong_pictures(size):
    generator = param.FFTImage(2, 3, *size, sd=0.3, seed=1)
    coefficients = generator.parameters[0].detach().double().numpy()
    assert coefficients.shape == (2, 3, size[0], size[1] // 2 + 1, 2)
    expected = lucid_colors(lucid_spectrum(coefficients, *size), lucid_matrix())
    np.testing.assert_allclose(generator.get_image().detach().numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"decay": 1.7}, {"decay": 0.0}, {"saturation": 1.0}])
def test_options_of_the_spectrum_enter_the_formula(options):
    generator = param.FFTImage(1, 3, 9, 14, sd=0.1, seed=2, **options)
    coefficients = generator.parameters[0].detach().double().numpy()
    expected = lucid_colors(lucid_spectrum(coefficients, 9, 14, **options), lucid_matrix())
    np.testing.assert_allclose(generator.get_image().detach().numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [param.FFTImage, param.PixelImage])
def test_colors_are_taken_as_they_are_or_through_a_matrix_of_ones_own(kind):
    given = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    plain = kind(2, 3, 6, 9, sd=0.2, seed=3, decorrelate=False)
    numbers = before_colors(plain)
    for decorrelate, matrix in ((True, torch.tensor(lucid_matrix())), (given, given.double())):
        colored = kind(2, 3, 6, 9, sd=0.2, seed=3, decorrelate=decorrelate)
        expected = torch.einsum("rc,nchw->nrhw", matrix, numbers).sigmoid().float()
        torch.testing.assert_close(colored.get_image(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [param.FFTImage, param.PixelImage])
def test_without_a_sigmoid_colors_are_clamped_around_the_mean_color_of_imagenet(kind):
    for sd in (0.05, 100.0):
        numbers = before_colors(kind(1, 3, 6, 9, sd=min(sd, 0.05), seed=3, decorrelate=False)) * (sd / 0.05)
        mixed = torch.einsum("rc,nchw->nrhw", torch.tensor(lucid_matrix()), numbers)
        expected = (mixed + torch.tensor([0.48, 0.46, 0.41]).double().view(3, 1, 1)).clamp(0, 1)
        image = kind(1, 3, 6, 9, sd=sd, seed=3, sigmoid=False).get_image()
        tolerance = 1e-5 if sd < 1 else 0.02  # the logit of float32 costs digits, which sd / 0.05 magnifies
        torch.testing.assert_close(image.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("size", "published"), [(128, 0.018), (224, 0.020)])
def test_pictures_start_nearly_gray(size, published):
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :]
    scale = 1 / np.maximum(np.hypot(fy, fx), 1 / size)
    reals = np.full((size, size), 2.0)  # how many independent numbers of that deviation a bin has ...
    reals[:, [0, size // 2]] = 1.0  # ... irfft2 drops half of it where a bin is its own mirror image
    expected = 0.01 / 4 * np.sqrt((scale**2 * reals).mean())
    assert expected == pytest.approx(published, abs=0.001)
    generator = param.FFTImage(8, 3, size, size, seed=4, decorrelate=False)
    assert before_colors(generator).std().item() == pytest.approx(expected, rel=0.05)
    assert (param.FFTImage(1, 3, size, size, seed=4).get_image() - 0.5).abs().max() < 0.05


def test_color_matrix_has_the_numbers_of_lucid():
    expected = [[0.5628, 0.1948, 0.0433], [0.5845, 0, -0.1082], [0.5845, -0.1948, 0.0649]]
    torch.testing.assert_close(param.COLOR_CORRELATION, torch.tensor(expected), atol=5e-5, rtol=0)
    assert param.COLOR_CORRELATION.norm(dim=0).max().item() == pytest.approx(1)
    assert param.COLOR_MEAN.tolist() == pytest.approx([0.48, 0.46, 0.41])


@pytest.mark.parametrize("size", SIZES)
def test_frequencies_are_the_lengths_of_numpys_two_dimensional_ones(size):
    y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    np.testing.assert_allclose(param.frequencies(*size).numpy(), np.sqrt(x**2 + y**2), atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_reaches_every_coefficient_that_can_change_the_picture(size):
    generator = param.FFTImage(1, 1, *size, seed=5)
    weights = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(6))
    (generator.get_image() * weights).sum().backward()
    touched = generator.parameters[0].grad[0, 0].abs() > 1e-7  # what is less is rounding
    height, width = size
    own_conjugate = torch.zeros(height, width // 2 + 1, dtype=torch.bool)  # bins that must be real
    for y in {0, height // 2 if height % 2 == 0 else 0}:
        for x in {0, width // 2 if width % 2 == 0 else 0}:
            own_conjugate[y, x] = True
    assert touched[..., 0].all()
    assert torch.equal(touched[..., 1], ~own_conjugate)


@pytest.mark.parametrize("decorrelate", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_can_be_moved_from_the_start_without_a_sigmoid_too(channels, decorrelate):
    generator = param.PixelImage(1, channels, 8, 8, seed=0, sigmoid=False, decorrelate=decorrelate)
    generator.get_image().square().sum().backward()
    assert generator.parameters[0].grad.ne(0).all()


@pytest.mark.parametrize("kind", [param.FFTImage, param.PixelImage])
def test_sd_scales_the_start_and_zero_is_gray(kind):
    small, large = (kind(1, 3, 6, 6, sd=sd, seed=7).parameters[0] for sd in (0.01, 0.5))
    torch.testing.assert_close(small * 50, large)
    assert torch.equal(kind(1, 3, 6, 6, sd=0).get_image(), torch.full((1, 3, 6, 6), 0.5))


def test_fresh_neural_pictures_are_one_flat_gray():
    assert torch.equal(param.Neural(2, 3, 9, 5, seed=0).get_image(), torch.full((2, 3, 9, 5), 0.5))


@pytest.mark.parametrize("size", [(5, 9), (9, 5), (6, 6), (1, 7)])
def test_neural_pictures_have_square_pixels_at_any_aspect_ratio(size):
    generator = param.Neural(1, 3, *size, seed=0)
    x, y = generator.coordinates[0]
    steps = [*x.diff(dim=1).flatten().tolist(), *y.diff(dim=0).flatten().tolist()]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert x.sum().item() == pytest.approx(0, abs=1e-4)
    assert y.sum().item() == pytest.approx(0, abs=1e-4)


@every_generator
def test_pictures_are_a_batch_in_the_range_of_colors(name):
    for size in [(1, 3, 8, 8), (2, 3, 9, 6), (3, 1, 5, 8), (1, 4, 6, 7)]:
        image = SMALL[name](*size, seed=0).get_image()
        assert image.shape == size
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1


@every_generator
def test_gradient_reaches_every_parameter(name):
    generator = SMALL[name](2, 3, 9, 6, seed=0)
    with torch.no_grad():
        for parameter in generator.parameters:
            parameter += 0.3  # away from a last layer of zeros, behind which nothing has a gradient
    seen = generator.view(generator.get_image())
    (seen * torch.linspace(0, 1, seen.numel()).view_as(seen)).sum().backward()
    for parameter in generator.parameters:
        assert parameter.is_leaf
        assert parameter.grad.flatten(1).ne(0).any(1).all()


@every_generator
def test_a_move_to_a_device_takes_everything_along_and_keeps_leaves(name):
    generator = SMALL[name](2, 3, 9, 6, seed=0)
    shapes = [parameter.shape for parameter in generator.parameters]
    assert generator.to("meta") is generator
    assert generator.device == torch.device("meta")
    image = generator.get_image()
    assert (image.device.type, image.shape) == ("meta", (2, 3, 9, 6))
    assert [parameter.shape for parameter in generator.parameters] == shapes
    for parameter in generator.parameters:
        assert parameter.is_leaf
        assert parameter.requires_grad
        assert parameter.device.type == "meta"


@every_generator
def test_a_move_to_the_same_device_keeps_the_picture(name):
    generator = SMALL[name](1, 3, 6, 6, seed=0)
    before = generator.get_image().detach()
    assert torch.equal(generator.to("cpu").get_image(), before)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in generator.parameters)


@every_generator
def test_a_seed_gives_one_picture_and_leaves_the_global_generator_alone(name):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (
        [p.detach() for p in SMALL[name](1, 3, 6, 6, seed=s).parameters] for s in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@every_generator
def test_without_a_seed_the_global_generator_decides(name):
    pictures = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        pictures.append([p.detach() for p in SMALL[name](1, 3, 6, 6).parameters])
    assert all(map(torch.equal, pictures[0], pictures[1]))
    assert not all(map(torch.equal, pictures[0], pictures[2]))


@every_generator
def test_each_picture_of_a_batch_depends_on_its_own_parameters_only(name):
    generator = SMALL[name](3, 3, 6, 6, seed=0)
    before = generator.get_image().detach()
    with torch.no_grad():
        for parameter in generator.parameters:
            parameter[1] += torch.linspace(0.5, 1, parameter[1].numel()).view_as(parameter[1])
    after = generator.get_image().detach()
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.allclose(after[1], before[1], atol=1e-3)


@every_generator
def test_numpy_is_the_picture_with_the_channels_last(name):
    generator = SMALL[name](2, 3, 5, 7, seed=0)
    array = generator.numpy()
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, generator.get_image().detach().permute(0, 2, 3, 1).numpy())


@every_generator
@pytest.mark.parametrize("channels", [1, 3])
def test_plot_image_shows_the_picture(name, channels):
    from matplotlib import pyplot

    generator = SMALL[name](1, channels, 5, 7, seed=0)
    axes = generator.plot_image()
    expected = generator.numpy()[0]
    np.testing.assert_allclose(axes.images[0].get_array(), np.broadcast_to(expected, (5, 7, 3)))
    assert generator.plot_image(ax=axes) is axes
    pyplot.close(axes.figure)


@pytest.mark.parametrize("name", ["FFTImage", "PixelImage", "Neural"])
@pytest.mark.parametrize("size", [(0, 3, 8, 8), (1, 3, 8, -1), (1, 3, 8.0, 8), (1, "3", 8, 8)])
def test_a_size_that_is_no_positive_whole_number_is_an_error_at_once(name, size):
    with pytest.raises(ShapeError, match=r"\(images, channels, height, width\), got"):
        SMALL[name](*size)


@pytest.mark.parametrize("kind", [param.FFTImage, param.PixelImage])
def test_a_color_matrix_that_is_not_3x3_is_an_error_at_once(kind):
    with pytest.raises(ShapeError, match=r"3x3, got \(3, 4\)"):
        kind(1, 3, 8, 8, decorrelate=torch.ones(3, 4))


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, image):
        return image * self.factor


def test_transform_shows_the_transformed_picture_and_keeps_the_picture():
    inner = param.FFTImage(2, 3, 6, 8, seed=0)
    generator = param.Transform(inner, lambda x: x[..., 1:], Half(), lambda x: x + 1)
    assert torch.equal(generator.get_image(), inner.get_image())
    assert torch.equal(generator.view(inner.get_image()), inner.get_image()[..., 1:] * 0.5 + 1)
    assert [id(parameter) for parameter in generator.parameters] == [id(inner.coefficients)]


def test_transforms_of_transforms_are_applied_from_the_inside_out():
    inner = param.Transform(param.PixelImage(1, 3, 4, 4, seed=0), lambda x: x + 1)
    outer = param.Transform(inner, lambda x: x * 2)
    image = outer.get_image()
    assert torch.equal(image, inner.get_image())
    assert torch.equal(outer.view(image), (image + 1) * 2)


def test_transform_without_transforms_shows_the_picture_itself():
    generator = param.Transform(param.PixelImage(1, 3, 4, 4, seed=0))
    image = generator.get_image()
    assert generator.view(image) is image


@pytest.mark.parametrize(
    "transform",
    [
        TRANSFORM,
        T.RandomCrop(5),
        K.RandomAffine(degrees=10.0, p=1.0),
        nn.Sequential(K.ColorJitter(0.1, 0.1, 0.1, 0.1, p=1.0), K.RandomHorizontalFlip(p=0.5)),
        K.AugmentationSequential(K.RandomErasing(p=1.0), data_keys=["input"]),
        lambda x: x.flip(-1),
        nn.functional.relu,
    ],
)
def test_any_callable_of_torchvision_kornia_or_the_user_is_a_transform(transform):
    generator = param.Transform(param.FFTImage(2, 3, 8, 10, seed=0), transform)
    seen = generator.view(generator.get_image())
    assert seen.shape[:2] == (2, 3)
    seen.sum().backward()
    assert generator.parameters[0].grad.flatten(1).ne(0).any(1).all()


def test_a_move_takes_transforms_that_are_modules_along():
    generator = param.Transform(param.PixelImage(1, 3, 4, 4), Half()).to("meta")
    assert generator.view(generator.get_image()).device.type == "meta"


@pytest.mark.parametrize("transform", [lambda x: x[0], lambda x: x[:1], lambda x: x.numpy(), lambda x: None])
def test_a_transform_that_returns_no_batch_is_named(transform):
    generator = param.Transform(param.PixelImage(2, 3, 4, 4), transform)
    with pytest.raises(ShapeError, match=r"<lambda>.*must return 2 pictures as \(N, C, H, W\), got"):
        generator.view(generator.get_image().detach())
