"""Feature accentuation: it starts from the image, raises the score and stays near; and bad input."""

import pytest
import torch
from torch import nn

from toumei.cnns import accentuate, robustness
from toumei.core import run
from toumei.core.errors import ArgumentError, LayerError, ShapeError, UnitError
from toumei.models import ShapesCNN, ShapesDataset


def accentuated(model, images, objective="conv2:1", **options):
    options = {"views": nn.Identity(), "steps": 5, "seed": 0} | options
    return accentuate(model, images, objective, verbose=False, **options)


def photographs(images=1, height=21, width=30):
    """With black and white in them, as photographs have."""
    noise = torch.rand(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    return (1.5 * noise - 0.25).clamp(0, 1)


def test_it_starts_from_the_image_also_from_black_and_white(small_cnn):
    images = photographs(2)
    result = accentuated(small_cnn, images, steps=0)
    assert (result.images - images).abs().max() < 1e-5


def test_the_score_rises_and_the_image_stays_near(watched):
    model = watched(ShapesCNN(pretrained=True))
    images = ShapesDataset(seed=3).batch(range(3))[0]
    units = ["conv4:3", "conv4:5", "conv4:9"]
    result = accentuated(model, images, units, views=robustness.light(), steps=20)
    assert result.titles == tuple(units)
    with torch.no_grad():
        start, end = (run(model, x, record=["conv4"])["conv4"].mean((2, 3)) for x in (images, result.images))
    for image, channel in enumerate((3, 5, 9)):
        assert end[image, channel] > start[image, channel] + start.std()
    nearness = (result.images - images).flatten(1).norm(dim=1)
    others = (images - images.roll(1, 0)).flatten(1).norm(dim=1)
    assert (nearness < 0.7 * others).all()


def test_a_larger_penalty_keeps_the_image_nearer(small_cnn):
    image = photographs()
    free, held = (
        (accentuated(small_cnn, image, penalty=penalty, steps=20).images - image).square().mean()
        for penalty in (0.0, 100.0)
    )
    assert held < 0.5 * free


def test_the_loss_is_the_penalty_minus_the_score(small_cnn):
    image = photographs()
    result = accentuated(small_cnn, image, penalty=7.0, snapshots=1)
    for step in (0, 3):
        picture = result.snapshots[step]
        with torch.no_grad():
            score = nn.Sequential(small_cnn.conv1, nn.ReLU(), small_cnn.conv2)(picture)[:, 1].mean()
        expected = 7 * (picture - image).square().mean() - score
        torch.testing.assert_close(result.losses[step, 0], expected, atol=1e-5, rtol=1e-4)


def test_low_frequencies_move_faster_than_high_ones(small_cnn):
    image = torch.full((1, 3, 32, 32), 0.5)
    result = accentuated(small_cnn, image, "conv2:1:8:8", steps=1)
    change = torch.fft.rfft2(result.images - image).abs().mean((0, 1))
    assert change[1:4, 1:4].mean() > 3 * change[12:16, 12:16].mean()


def test_bad_input(small_cnn):
    with pytest.raises(ShapeError, match="divide bytes by 255"):
        accentuated(small_cnn, 255 * photographs())
    with pytest.raises(ShapeError, match=r"got \(5, 5\)"):
        accentuated(small_cnn, torch.zeros(5, 5))
    with pytest.raises(ShapeError, match="2 pictures"):
        accentuated(small_cnn, photographs(), ["conv1:0", "conv1:1"])
    with pytest.raises(ArgumentError, match="penalty is a weight of at least 0, got -1"):
        accentuated(small_cnn, photographs(), penalty=-1)
    with pytest.raises(LayerError, match="did you mean"):
        accentuated(small_cnn, photographs(), "conv3:1")
    with pytest.raises(UnitError, match="no channel 50"):
        accentuated(small_cnn, photographs(), "conv2:50")


def test_another_number_of_objectives_than_images_is_named(small_cnn):
    with pytest.raises(ShapeError, match="for 3 pictures, and there are 2"):
        accentuated(small_cnn, torch.rand(2, 3, 16, 16), ["conv1:0", "conv1:1", "conv1:2"])
