"""Channel groups: planted factors come back, and what cannot be factorized says why."""

import pytest
import torch
from torch import nn

from toumei.cnns import Pipeline, parameterization
from toumei.cnns.layers.channel_groups import ChannelGroups, factorize, group_channels
from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.models import ShapesCNN, ShapesDataset


class Planted(nn.Module):
    """Turns three colour channels, each a group, into eight channels by a matrix that is not negative."""

    def __init__(self, mixing):
        super().__init__()
        self.mix = nn.Conv2d(3, 8, 1, bias=False)
        self.mix.weight.data = mixing.T[:, :, None, None].clone()
        self.relu = nn.ReLU(inplace=True)
        self.negative = nn.Conv2d(8, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images):
        return self.pool(self.negative(self.relu(self.mix(images)))).flatten(1)


@pytest.fixture
def planted(watched):
    """Three groups with different channels and positions, so that no other factors fit."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.rand(3, 8, generator=generator)
    mixing[:, :3] = torch.eye(3)
    images = torch.rand(4, 3, 6, 7, generator=generator)
    images[:, :, 0, :3] = torch.eye(3)
    return watched(Planted(mixing).train()), images, mixing


def test_planted_factors_are_recovered(planted):
    model, images, mixing = planted
    groups = group_channels(model, "relu", images, 3, iterations=5000)
    assert groups.error < 1e-2
    wanted = nn.functional.normalize(mixing, dim=1)
    cosines = wanted @ groups.directions.T
    best, which = cosines.max(1)
    assert best.min() > 0.999 and sorted(which.tolist()) == [0, 1, 2]
    maps = groups.maps[:, which] / mixing.norm(dim=1)[:, None, None]
    assert torch.allclose(maps, images, atol=0.05)


def test_the_maps_times_the_directions_are_the_activations_up_to_the_error(planted):
    model, images, _ = planted
    groups = group_channels(model, "relu", images, 2)
    activation = nn.functional.conv2d(images, model.mix.weight)
    difference = activation - torch.einsum("nkhw,kc->nchw", groups.maps, groups.directions)
    assert groups.error == pytest.approx((difference.norm() / activation.norm()).item(), rel=1e-4)
    assert 0.01 < groups.error < 1
    assert groups.maps.min() >= 0 and groups.directions.min() >= 0
    assert torch.allclose(groups.directions.norm(dim=1), torch.ones(2))
    strength = groups.maps.square().sum((0, 2, 3))
    assert strength[0] >= strength[1]


def test_one_seed_gives_one_result_whatever_the_batches(planted):
    model, images, _ = planted
    first, second = (group_channels(model, "relu", images, 3, seed=4, batch_size=size) for size in (1, 64))
    assert torch.allclose(first.directions, second.directions, atol=1e-4)
    again = group_channels(model, "relu", images, 3, seed=4)
    assert torch.equal(again.directions, second.directions) and torch.equal(again.maps, second.maps)


def test_groups_of_a_vision_transformer():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, image_size=32,
        patch_size=8, hidden_act="relu",
    )  # fmt: skip
    model = ViTForImageClassification(config)
    layer = next(name for name, module in model.named_modules() if "activation" in name or "act_fn" in name)
    groups = group_channels(model, layer, torch.rand(3, 3, 32, 32), 2)
    assert groups.maps.shape == (3, 2, 4, 4) and groups.directions.shape == (2, 20)


def test_the_pipeline_shows_the_groups_and_they_are_drawn_beside_the_images(tmp_path):
    images = ShapesDataset(seed=1).batch(range(5))[0]
    model = ShapesCNN(pretrained=True)
    groups = group_channels(model, "relu3", images, 3)
    pipeline = Pipeline(parameterization.FFTImage(3, 3, 24, 24, seed=0), groups.objective()).attach(model)
    losses = pipeline.optimize(4, verbose=False).losses
    assert (losses[-1] < losses[0]).all()
    axes = groups.plot(pipeline.result.images)
    assert [text.get_text() for text in axes.texts if text.get_text()] == [
        "images",
        "groups",
        "group 0",
        "group 1",
        "group 2",
    ]
    assert groups.plot(columns=2).images


def test_a_group_glows_in_its_colour_where_it_is_strong(planted):
    model, images, _ = planted
    groups = group_channels(model, "relu", images, 3)
    maps = torch.zeros(1, 3, 2, 2)
    maps[0, 1, 0, 1] = 1.0
    lit = ChannelGroups("relu", groups.directions, maps, torch.zeros(1, 3, 2, 2), 0.0).heat()
    assert lit[0, :, 0, 1].argmax() == groups.colors()[1].argmax()
    assert lit.sum((0, 1))[1, 0] == 0


def test_saved_groups_come_back(planted, tmp_path):
    model, images, _ = planted
    groups = group_channels(model, "relu", images, 2)
    groups.save(tmp_path / "new" / "groups.safetensors")
    loaded = ChannelGroups.load(tmp_path / "new" / "groups.safetensors")
    assert torch.equal(loaded.maps, groups.maps) and torch.equal(loaded.directions, groups.directions)
    assert repr(loaded) == repr(groups) and loaded.channel_axis is None
    with pytest.raises(ArgumentError, match=r"saved as \.safetensors"):
        groups.save(tmp_path / "groups.pt")


def test_bad_input_says_what_is_wrong(planted):
    model, images, _ = planted
    with pytest.raises(
        ArgumentError, match="'negative' has negative activations.*name the ReLU that follows"
    ):
        group_channels(model, "negative", images - 1)
    with pytest.raises(ShapeError, match="'', got .*name a layer before the positions are pooled"):
        group_channels(model, "", images)
    with pytest.raises(LayerError, match="no layer 'rel'"):
        group_channels(model, "rel", images)
    with pytest.raises(ShapeError, match="expected images"):
        group_channels(model, "relu", images[0])
    with pytest.raises(ShapeError, match="at least one"):
        group_channels(model, "relu", images[:0])
    with pytest.raises(ArgumentError, match="expected 1 to 8 groups of 8 channels at 168 positions, got 9"):
        group_channels(model, "relu", images, 9)
    with pytest.raises(ArgumentError, match="is zero on all"):
        factorize(torch.zeros(1, 2, 3, 3), 1, "relu")
    with pytest.raises(ShapeError, match="a picture for each of 2 groups"):
        group_channels(model, "relu", images, 2).plot(torch.zeros(3, 3, 8, 8))


def test_the_network_is_given_preprocessed_images_and_plots_show_them_as_they_are():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(2, 3, 9, 12)
    given = group_channels(model, "1", images * 2 - 1, 2)
    groups = group_channels(model, "1", images, 2, preprocess=lambda image: image * 2 - 1)
    assert torch.equal(groups.images, images) and torch.allclose(groups.maps, given.maps)


@pytest.mark.parametrize("size", [(4, 4), (64, 6), (1, 1)])
def test_small_images_are_plotted_too(size):
    groups = ChannelGroups("x", torch.eye(2), torch.rand(1, 2, *size), torch.rand(1, 3, *size), 0.0)
    groups.plot(torch.rand(2, 3, *size))
