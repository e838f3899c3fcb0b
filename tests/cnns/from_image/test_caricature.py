"""Caricature: what it raises, that image and picture are shown alike, and bad input."""

import pytest
import torch
from torch import nn

from toumei.cnns import caricature, robustness
from toumei.cnns.parameterization import FFTImage
from toumei.core.errors import ArgumentError, LayerError, ShapeError


def image(height=21, width=30, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def drawn(model, picture, layer="conv2", **options):
    options = {"views": nn.Identity(), "steps": 5, "seed": 0} | options
    return caricature(model, picture, layer, verbose=False, **options)


def activation(model, images):
    with torch.no_grad():
        return nn.Sequential(model.conv1, nn.ReLU(), model.conv2)(images)


def test_the_loss_is_minus_the_dot_product_with_the_image_and_falls(small_cnn):
    result = drawn(small_cnn, image(), steps=60, snapshots=[0])
    wanted = activation(small_cnn, image()[None])
    dots = [
        (activation(small_cnn, pictures) * wanted).sum() for pictures in (result.snapshots[0], result.images)
    ]
    torch.testing.assert_close(result.losses[0, 0], -dots[0])
    assert dots[1] > wanted.square().sum() > dots[0]  # it excites the layer that way more than the image does


def test_a_planted_direction_is_exaggerated(watched):
    """A network of one channel that sees red: the caricature of a reddish image is redder than the image."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    model[0].weight.data = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    watched(model)
    reddish = torch.tensor([0.6, 0.5, 0.5]).view(3, 1, 1).expand(3, 16, 16)
    result = drawn(model, reddish, "0", steps=60)
    assert result.images[0, 0].mean() > 0.6 + 0.1


def test_with_a_power_the_score_is_lucids(small_cnn):
    result = drawn(small_cnn, image(), power=1.5, snapshots=[0])
    seen, other = (activation(small_cnn, x).flatten() for x in (result.snapshots[0], image()[None]))
    dot = seen @ other
    torch.testing.assert_close(result.losses[0, 0], -dot * (dot / (1e-6 + seen.norm())).clamp(min=0.1) ** 1.5)


def test_image_and_picture_are_shown_in_the_same_views(small_cnn):
    seen = []
    views = robustness.light(same_on_batch=True)
    result = drawn(
        small_cnn, image(), views=views, preprocess=lambda x: seen.append(x.detach()) or x, snapshots=[0]
    )
    assert result.images.shape == (1, 3, 21, 30)
    assert all(len(batch) == 2 for batch in seen)
    assert not torch.equal(seen[-1][0], seen[-2][0])  # another draw for every step, of the image too


def test_a_picture_that_is_the_image_is_seen_as_the_image_is(small_cnn, monkeypatch):
    seen = []
    start = FFTImage.from_image(image()[None])
    monkeypatch.setattr("toumei.cnns.from_image.caricatures.FFTImage", lambda *size, seed: start)
    views = robustness.lucid(same_on_batch=True)
    drawn(small_cnn, image(), views=views, preprocess=lambda x: seen.append(x.detach()) or x, steps=1)
    for reference, picture in seen:
        torch.testing.assert_close(picture, reference, atol=1e-4, rtol=1e-4)


def test_several_layers_make_one_picture_each_as_if_alone(small_cnn):
    both = drawn(small_cnn, image(), ["conv2", "conv1", "conv2"])
    assert both.titles == ("conv2", "conv1", "conv2")
    alone = drawn(small_cnn, image(), "conv2")
    torch.testing.assert_close(both.images[:1], alone.images)


def test_one_seed_one_caricature(small_cnn):
    options = {"views": robustness.light(same_on_batch=True)}
    first, again, other = (drawn(small_cnn, image(), seed=seed, **options).images for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_lucids_views_are_the_default(small_cnn):
    seen = []
    drawn(small_cnn, image(), views=None, preprocess=lambda x: seen.append(x.shape) or x)
    assert seen[-1] == (2, 3, 21 + 12, 30 + 12)


def test_bad_input(small_cnn):
    with pytest.raises(ShapeError, match=r"one picture, \(C, H, W\) or \(1, C, H, W\), got \(2, 3, 8, 8\)"):
        drawn(small_cnn, torch.zeros(2, 3, 8, 8))
    with pytest.raises(ShapeError, match="divide bytes by 255"):
        drawn(small_cnn, 255 * image())
    with pytest.raises(ArgumentError, match="give them same_on_batch=True"):
        drawn(small_cnn, image(), views=robustness.light())
    with pytest.raises(LayerError, match="did you mean conv"):
        drawn(small_cnn, image(), "conv")
    with pytest.raises(ArgumentError, match="at least one layer"):
        drawn(small_cnn, image(), [])


def test_views_that_tell_image_and_picture_apart_are_refused_also_inside_of_others(small_cnn):
    separate, several = nn.Sequential(robustness.light()), robustness.Crops(3, 8)
    with pytest.raises(ArgumentError, match="give them same_on_batch=True"):
        caricature(small_cnn, torch.rand(3, 16, 16), "conv1", views=separate, steps=1, verbose=False)
    with pytest.raises(ArgumentError, match="once each, not 3 times"):
        caricature(small_cnn, torch.rand(3, 16, 16), "conv1", views=several, steps=1, verbose=False)
