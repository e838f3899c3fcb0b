"""What one forward pass shows: the last runs of layers, their channels, the grids of their tokens."""

import pytest
import torch
import torchvision
from torch import nn

from toumei.core import survey, with_channels_first
from toumei.core.errors import LayerError, UnreachedLayerError


def picture(height, width):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def layout(model, layer, inputs):
    model.eval()
    return survey(model, [layer], lambda: model(inputs)).layouts[layer]


def swin():
    return torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5)


def test_runs_are_counted_and_the_last_one_is_named():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 2), relu)
    x = torch.randn(2, 3)
    found = survey(model, ["1", "0", "1#0", "0/linear"], lambda: model(x))
    assert found.names == {"1": "1#1", "0": "0#0", "1#0": "1#0", "0/linear": "0/linear#0"}
    assert found.runs == {"1": 2, "0": 1, "1#0": 2, "0/linear": 1}
    assert torch.equal(found.activations["1"], model(x))


def test_activations_are_kept_only_if_asked_for():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    x = picture(6, 8)
    assert torch.equal(survey(model, ["0"], lambda: model(x)).activations["0"], model[0](x))
    bare = survey(model, ["0"], lambda: model(x), keep=False)
    assert not bare.activations and bare.layouts["0"].shape == (1, 4, 4, 6)


@pytest.mark.parametrize(
    ("layer", "axis"),
    [("features.0", 3), ("features.1", 3), ("features.1.0/add", 3), ("features.3", 3), ("features.0.0", 1)],
)
def test_channels_of_swin_are_last_after_the_permute(layer, axis):
    assert layout(swin(), layer, picture(32, 48)).channel_axis == axis


@pytest.mark.parametrize(
    ("layer", "axis"), [("block.0", 1), ("block.2", 3), ("block.3", 3), ("block.5", 3), ("block", 1), ("", 1)]
)
def test_channels_inside_convnext_move_with_its_permutes(layer, axis):
    block = torchvision.models.convnext.CNBlock(8, 1.0, 0.0)
    assert layout(block, layer, torch.rand(1, 8, 6, 10)).channel_axis == axis


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv1d(2, 8, 3), (1, 2, 32)),
        (nn.Conv3d(1, 4, 3), (2, 1, 5, 6, 7)),
        (nn.BatchNorm1d(3), (2, 3, 9)),
        (nn.GroupNorm(2, 4), (1, 4, 5)),
    ],
)
def test_signals_and_volumes_have_channels_on_axis_1_through_a_relu(model, shape):
    assert layout(nn.Sequential(model, nn.ReLU()), "1", torch.rand(shape)).channel_axis == 1


def test_tokens_have_channels_last_whatever_made_them():
    for model in (nn.Linear(4, 6), nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 6), nn.GELU())):
        assert layout(model, "", torch.rand(1, 5, 4)).channel_axis == 2
    assert layout(nn.Embedding(9, 4), "", torch.zeros(1, 5, dtype=torch.long)).channel_axis == 2


def test_channels_of_a_transposed_convolutional_signal():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv1d(4, 6, 3), nn.Identity()

        def forward(self, x):
            return self.out(self.conv(x).mT)

    assert layout(Transposed(), "out", torch.rand(1, 4, 9)).channel_axis == 2


def vit_of_torchvision():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=3
    )


@pytest.mark.parametrize("layer", ["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0.mlp.1"])
def test_the_square_grid_of_torchvisions_vit(layer):
    found = layout(vit_of_torchvision(), layer, picture(32, 32))
    assert (found.channel_axis, found.grid, found.offset) == (2, (4, 4), 1)


@pytest.mark.parametrize("layer", ["embeddings", "layers.0", "layers.1.mlp.fc1", "layernorm"])
def test_the_wide_grid_of_hugging_faces_vit(layer):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=(32, 64),
        patch_size=8,
    )  # fmt: skip
    model = ViTModel(config)
    names = dict(model.named_modules())
    if layer not in names:  # older versions call their blocks encoder.layer
        layer = layer.replace("layers.", "encoder.layer.").replace("mlp.fc1", "intermediate.dense")
    found = layout(model, layer, picture(32, 64))
    assert (found.channel_axis, found.grid, found.offset) == (2, (4, 8), 1)


def test_register_tokens_stand_before_the_grid():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=7,
        num_register_tokens=3,
    )  # fmt: skip
    found = layout(Dinov2WithRegistersModel(config), "layernorm", picture(28, 42))
    assert (found.channel_axis, found.grid, found.offset) == (2, (4, 6), 4)


class Patches(nn.Module):
    """Patches of 4 x 4 joined with tokens at both ends."""

    def __init__(self, before, after):
        super().__init__()
        self.embed, self.norm, self.before, self.after = nn.Conv2d(3, 6, 4, 4), nn.Identity(), before, after

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        first, last = (
            tokens.new_zeros(len(tokens), self.before, 6),
            tokens.new_zeros(len(tokens), self.after, 6),
        )
        return self.norm(torch.cat([first, tokens, last], 1))


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 0), (5, 0), (0, 1), (2, 3)])
def test_a_place_on_the_grid_is_the_patch_there(before, after):
    torch.manual_seed(0)
    model, images = Patches(before, after), picture(16, 32)
    found = survey(model, ["norm"], lambda: model(images))
    channels = with_channels_first(found.activations["norm"], found.layouts["norm"], "norm")
    assert torch.equal(channels.maps(), model.embed(images))
    assert torch.equal(channels.values[:, :, channels.index((2, 3))], model.embed(images)[:, :, 2, 3])


def test_what_cannot_be_followed_is_not_guessed():
    class Mixed(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).real

    found = layout(nn.Sequential(nn.Conv2d(3, 4, 3), Mixed()), "1", picture(8, 8))
    assert found.channel_axis is None


def test_what_follows_the_layers_may_fail_but_not_what_comes_before():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2))
    x = picture(8, 8)
    assert survey(model, ["0"], lambda: model(x)).layouts["0"].channel_axis == 1
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        survey(model, ["0", "2"], lambda: model(x))


def test_layers_that_do_not_exist_or_do_not_run_are_errors(small_cnn):
    with pytest.raises(LayerError, match="no layer 'conv'"):
        survey(small_cnn, ["conv"], lambda: None)
    with pytest.raises(UnreachedLayerError, match="'relu2' was never reached"):
        survey(small_cnn, ["conv1", "relu2"], lambda: small_cnn[:2](picture(8, 8)))


def test_surveys_and_channels_print_shapes_not_numbers():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), picture(6, 8)
    found = survey(model, ["0", "1"], lambda: model(x))
    assert repr(found) == "Survey(0#0 (1, 4, 4, 6), 1#0 (1, 4, 4, 6))"
    assert repr(found.activations) == "LaidOut(0: (1, 4, 4, 6), 1: (1, 4, 4, 6))"
    channels = with_channels_first(found.activations["1"], found.layouts["1"], "1")
    assert repr(channels) == "Channels((1, 4, 24) of '1' on the grid (4, 6))"
