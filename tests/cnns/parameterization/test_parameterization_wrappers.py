"""Pyramids, shared components, alpha, masks and generator networks: what each promises, and bad input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import toumei.cnns.parameterization as param
from toumei.cnns import Pipeline
from toumei.core.errors import ArgumentError, ShapeError


def numbers(*size, seed=0, sd=1.0):
    return param.PixelImage(*size, sd=sd, seed=seed)


def test_a_pyramid_is_the_sum_of_its_enlarged_levels():
    made = param.LaplacianImage(2, 3, 13, 9, levels=5, sd=0.3, seed=0)
    assert [tuple(level.shape[2:]) for level in made.parameters] == [(13, 9), (6, 4), (3, 2), (1, 1), (1, 1)]
    expected = sum(F.interpolate(level, size=(13, 9), mode="bilinear") for level in made.parameters)
    torch.testing.assert_close(made.numbers(), expected)
    with pytest.raises(ArgumentError, match="at least 1 level, got 0"):
        param.LaplacianImage(1, 3, 8, 8, levels=0)


def test_a_shared_component_is_the_same_in_every_picture():
    still = param.PixelImage(4, 3, 12, 10, sd=0)
    made = param.SharedImage(still, numbers(1, 3, 5, 4), param.FFTImage(1, 3, 12, 10, seed=1))
    image = made.get_image().detach()
    assert image.std() > 0.01
    assert all(torch.equal(image[0], other) for other in image[1:])


def test_a_component_of_several_pictures_fades_from_the_first_to_the_last():
    made = param.SharedImage(param.PixelImage(6, 1, 4, 4, sd=0), numbers(2, 1, 4, 4)).numbers()
    torch.testing.assert_close(made[[0, -1]], numbers(2, 1, 4, 4).numbers())
    share = ((made - made[:1]) / (made[-1:] - made[:1])).flatten(1).mean(1)
    assert (share.diff() >= 0).all()


@pytest.mark.parametrize("size", [(5, 3, 8, 8), (1, 1, 8, 8)])
def test_a_component_that_does_not_fit_is_an_error_at_once(size):
    with pytest.raises(ShapeError, match="cannot share a component"):
        param.SharedImage(numbers(4, 3, 8, 8), numbers(*size))


def test_a_network_sees_the_colors_before_backgrounds_and_results_keep_the_alpha(small_cnn):
    made = param.AlphaImage(numbers(2, 3, 12, 10), numbers(2, 1, 12, 10, seed=1), torch.zeros_like)
    image = made.get_image()
    torch.testing.assert_close(made.view(image), image[:, :3] * image[:, 3:])
    random = param.AlphaImage(made.colors, made.alpha)
    assert not torch.equal(random.view(image), random.view(image))
    result = Pipeline(random, ["conv2:0", "conv2:1"]).attach(small_cnn).optimize(2, verbose=False)
    assert result.images.shape == (2, 4, 12, 10)


def test_alpha_that_does_not_fit_or_is_not_composited_is_an_error(small_cnn):
    with pytest.raises(
        ShapeError, match=r"alpha must be \(2, 1, 8, 8\) for these colours, got \(1, 1, 8, 8\)"
    ):
        param.AlphaImage(numbers(2, 3, 8, 8), numbers(1, 1, 8, 8))
    with pytest.raises(ShapeError, match="Sequential cannot take pictures of 4 channels: AlphaImage"):
        Pipeline(numbers(1, 4, 8, 8), "conv2:0").attach(small_cnn)


@pytest.mark.parametrize("soft", [False, True])
def test_outside_of_the_mask_nothing_changes_by_a_bit(small_cnn, soft):
    photograph = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(12, 10)
    mask[3:8, 2:9] = 0.5 if soft else 1
    made = param.Masked(param.FFTImage.from_image(photograph), photograph, mask if soft else mask.bool())
    result = Pipeline(made, ["conv2:0", "conv2:1"]).attach(small_cnn).optimize(3, verbose=False)
    assert torch.equal(result.images[..., mask == 0], photograph[..., mask == 0])
    assert (result.images - photograph)[..., mask > 0].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (torch.rand(1, 3, 8, 8), torch.zeros(8, 8), "the mask is empty"),
        (torch.rand(1, 3, 8, 8), torch.ones(8, 1), r"the mask must fit pictures of \(1, 3, 8, 8\)"),
        (torch.rand(1, 3, 8, 8), torch.full((8, 8), 2.0), "from 0 to 1, got 2 to 2"),
        (torch.rand(1, 3, 9, 8), torch.ones(8, 8), "the image must fit"),
        (torch.rand(1, 3, 8, 8) + 1, torch.ones(8, 8), r"in \[0, 1\]"),
    ],
)
def test_masks_and_pictures_that_do_not_fit_are_errors_at_once(image, mask, message):
    with pytest.raises(ShapeError, match=message):
        param.Masked(numbers(1, 3, 8, 8), image, mask)


def painter(last=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 108), nn.Dropout(), last or nn.Tanh(), nn.Unflatten(1, (3, 6, 6)))


def test_a_generator_network_is_used_frozen_in_evaluation_mode_and_left_as_it_was(watched, small_cnn):
    network = watched(painter().train())
    made = param.GAN(network, (2, 4), seed=0)
    assert torch.equal(made.get_image(), made.get_image())  # no dropout
    torch.testing.assert_close(made.get_image(), (network.eval()(made.latent) + 1) / 2)
    network.train()
    result = Pipeline(made, ["conv2:0", "conv2:1"]).attach(small_cnn).optimize(3, verbose=False)
    assert (result.losses[-1] < result.losses[0]).all()


def test_the_range_of_a_generator_network_is_checked():
    painting = painter(nn.Sigmoid())
    made = param.GAN(painting, torch.zeros(1, 4), output_range=(0, 1))
    torch.testing.assert_close(made.get_image(), painting.eval()(torch.zeros(1, 4)))
    with pytest.raises(ShapeError, match=r"not output_range=\(-1, 1\)"):
        param.GAN(painter(nn.Softplus(beta=0.01)), (1, 4), seed=0)
    with pytest.raises(ShapeError, match=r"must make 2 pictures \(N, C, H, W\) .* got \(2, 3\)"):
        param.GAN(nn.Linear(4, 3), (2, 4))
