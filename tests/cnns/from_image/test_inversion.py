"""Feature inversion: the distance that it brings down, and bad input."""

import pytest
import torch
from torch import nn

from toumei.cnns import invert, robustness
from toumei.core import run
from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.models import ShapesCNN, ShapesDataset


def inverted(model, picture, layer, **options):
    return invert(model, picture, layer, verbose=False, **{"steps": 5, "seed": 0} | options)


@torch.no_grad()
def distances(model, layer, images, wanted):
    """Squared distances of activations to that of one image, as shares of its squared norm."""
    activation = run(model, torch.cat([wanted[None], images]), record=[layer])[layer].flatten(1)
    return (activation[1:] - activation[0]).square().sum(1) / activation[0].square().sum()


def test_the_picture_is_far_nearer_to_its_image_than_other_images_are(watched):
    model = watched(ShapesCNN(pretrained=True))
    images = ShapesDataset(seed=3).batch(range(20))[0]
    layers = ["conv2", "conv4"]
    result = inverted(model, images[0], layers, steps=60)
    for index, layer in enumerate(layers):
        distance = distances(model, layer, result.images[[index]], images[0])
        assert distance < 0.5 * distances(model, layer, images[1:], images[0]).min()


def test_the_first_loss_is_the_distance_and_the_total_variation(small_cnn):
    picture = torch.rand(3, 15, 22)
    result = inverted(small_cnn, picture, "conv1", smoothness=0.3, snapshots=[0])
    start = result.snapshots[0]
    variation = start.diff(dim=2).abs().sum() + start.diff(dim=3).abs().sum()
    expected = distances(small_cnn, "conv1", start, picture)[0] + 0.3 * variation / start.numel()
    torch.testing.assert_close(result.losses[0, 0], expected)
    assert result.losses[-1] < result.losses[0]


def test_a_layer_that_forgets_nothing_gives_the_image_back(watched):
    class Passing(nn.Module):
        def forward(self, x):
            return 1.0 * x

    picture = 0.5 + 0.2 * nn.functional.avg_pool2d(torch.randn(1, 3, 13, 18), 5, 1, 2)[0]
    model = watched(nn.Sequential(Passing()))
    result = inverted(model, picture, "0", steps=200, smoothness=0.0)
    assert (result.images[0] - picture).abs().max() < 0.03


def test_several_layers_make_one_picture_each_as_if_alone(small_cnn):
    picture = torch.rand(3, 16, 22)
    both = inverted(small_cnn, picture, ["conv2", "conv1"], preprocess=robustness.preprocess("imagenet"))
    alone = inverted(small_cnn, picture, "conv2", preprocess=robustness.preprocess("imagenet"))
    assert both.titles == ("conv2", "conv1") and alone.titles == ("conv2",)
    torch.testing.assert_close(both.images[:1], alone.images)


def test_bad_input(small_cnn):
    with pytest.raises(ShapeError, match=r"one picture.*got \(2, 3, 8, 8\)"):
        inverted(small_cnn, torch.zeros(2, 3, 8, 8), "conv1")
    with pytest.raises(ShapeError, match="divide bytes by 255"):
        inverted(small_cnn, torch.zeros(3, 8, 8, dtype=torch.uint8), "conv1")
    with pytest.raises(LayerError, match="did you mean conv"):
        inverted(small_cnn, torch.zeros(3, 8, 8), "conv")
    with pytest.raises(ArgumentError, match="at least one"):
        inverted(small_cnn, torch.zeros(3, 8, 8), [])
