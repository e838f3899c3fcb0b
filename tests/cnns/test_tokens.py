"""Vision transformers: channels are the last axis of tokens, and tokens have places in the picture."""

import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import Pipeline
from toumei.core.errors import UnitError

SIDE, WIDTH = 4, 20  # patches along an edge; channels, more than the 17 tokens


@pytest.fixture(scope="module")
def torchvision_vit():
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=WIDTH, mlp_dim=32, num_classes=6
    )
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros
    return model


@pytest.fixture(scope="module")
def hugging_face_vit():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": WIDTH, "intermediate_size": 32}
    config = ViTConfig(
        num_hidden_layers=2, num_attention_heads=2, id2label=dict(enumerate("abcdef")), **sizes
    )
    return ViTForImageClassification(config)


@pytest.fixture(params=["torchvision", "hugging face"])
def vit(request, watched):
    """A transformer, the name of its first block, and that of a linear layer in it."""
    if request.param == "torchvision":
        model = watched(request.getfixturevalue("torchvision_vit"))
        return model, "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_0.mlp.0"
    model = watched(request.getfixturevalue("hugging_face_vit"))
    linears = [name for name, module in model.named_modules() if getattr(module, "out_features", 0) == 32]
    assert linears
    return model, linears[0].split(".0.")[0] + ".0", linears[0]


def tokens(model, layer, image):
    """What a layer returns, (N, tokens, channels), by a hook of the test's own."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        model.eval()(image)
    for module, mode in modes:
        module.training = mode
    handle.remove()
    return kept[-1] if isinstance(kept[-1], torch.Tensor) else kept[-1][0]


def first_scores(model, objective, images=2):
    """The scores of the start of a run, and the pictures that it started from."""
    fv = Pipeline(param.FFTImage(images, 3, 32, 32, sd=0.5, seed=1), objective).attach(model)
    start = fv.image
    return -fv.optimize(1, verbose=False).losses[0], start


def test_a_channel_is_an_entry_of_the_last_axis_in_the_mean_over_the_tokens(vit):
    model, block, linear = vit
    for layer, channel in [(block, 3), (block, WIDTH - 1), (linear, 31)]:
        scores, start = first_scores(model, f"{layer}:{channel}")
        expected = tokens(model, layer, start)
        assert expected.shape[:2] == (2, 1 + SIDE**2)  # fewer tokens than the largest index of a channel
        torch.testing.assert_close(scores, expected[:, :, channel].mean(1))


def test_several_channels_give_each_picture_its_own(vit):
    model, block, _ = vit
    scores, start = first_scores(model, obj.Channel(block, channels=[19, 0, 18]), images=3)
    activation = tokens(model, block, start)
    expected = torch.stack(
        [activation[image, :, channel].mean() for image, channel in enumerate([19, 0, 18])]
    )
    torch.testing.assert_close(scores, expected)


def test_a_channel_out_of_range_is_told_the_number_of_channels_not_of_tokens(vit):
    model, block, _ = vit
    with pytest.raises(UnitError, match=f"no channel {WIDTH} in layer .*: it has {WIDTH} channels, 0 to 19"):
        first_scores(model, f"{block}:{WIDTH}")


@pytest.mark.parametrize("token", [0, 1, 16])
def test_a_neuron_at_a_token_is_that_entry(vit, token):
    model, block, _ = vit
    scores, start = first_scores(model, f"{block}:7:{token}")
    torch.testing.assert_close(scores, tokens(model, block, start)[:, token, 7])


@pytest.mark.parametrize(("y", "x"), [(0, 0), (0, 3), (2, 1), (3, 3)])
def test_a_neuron_at_y_x_is_the_patch_there_behind_the_class_token(vit, y, x):
    model, block, _ = vit
    scores, start = first_scores(model, f"{block}:7:{y}:{x}")
    torch.testing.assert_close(scores, tokens(model, block, start)[:, 1 + y * SIDE + x, 7])


def test_a_neuron_without_a_place_is_the_patch_at_the_centre(vit):
    model, block, _ = vit
    scores, start = first_scores(model, obj.Neuron(f"{block}:7"))
    torch.testing.assert_close(scores, tokens(model, block, start)[:, 1 + 2 * SIDE + 2, 7])


def test_the_patch_at_y_x_is_the_part_of_the_picture_there(vit):
    model, _, _ = vit
    embedding = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    generator = param.PixelImage(1, 3, 32, 32, seed=1)
    fv = Pipeline(generator, obj.Neuron(f"{embedding}:7:2:1")).attach(model)
    before = fv.image
    changed = (fv.optimize(1, verbose=False).images != before).any(1)[0]
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[16:24, 8:16] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("place", ["17", "4:0", "0:4"])
def test_a_place_outside_of_the_picture_is_an_error(vit, place):
    model, block, _ = vit
    with pytest.raises(UnitError, match=f"no position {place} in layer"):
        first_scores(model, f"{block}:7:{place}")


def test_a_direction_is_one_of_channels(vit):
    model, block, _ = vit
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
    scores, start = first_scores(model, obj.Direction(block, direction))
    torch.testing.assert_close(scores, (tokens(model, block, start) @ direction).mean(1))


def test_diversity_compares_channels_over_the_tokens(vit):
    model, block, _ = vit
    scores, start = first_scores(model, obj.Diversity(block))
    first, second = (one.T @ one for one in tokens(model, block, start))
    cosine = (first * second).sum() / first.norm() / second.norm()
    torch.testing.assert_close(scores, -cosine.expand(2))


def test_the_logits_of_a_transformer_are_found(vit):
    model, _, _ = vit
    scores, start = first_scores(model, obj.ClassLogit(4))
    with torch.no_grad():
        output = model(start)
    torch.testing.assert_close(scores, getattr(output, "logits", output)[:, 4])


def test_a_class_of_a_hugging_face_model_is_found_by_its_label(hugging_face_vit, watched):
    by_name, _ = first_scores(watched(hugging_face_vit), obj.ClassLogit("e"))
    by_index, _ = first_scores(hugging_face_vit, obj.ClassLogit(4))
    assert torch.equal(by_name, by_index)
    fv = Pipeline(param.FFTImage(1, 3, 32, 32), obj.ClassLogit("e")).attach(hugging_face_vit)
    assert fv.optimize(1, verbose=False).titles == ("e",)


def test_a_run_raises_a_channel_and_a_batch_equals_single_runs(vit):
    model, block, _ = vit

    def run(objective, coefficients):
        fv = Pipeline(param.FFTImage(len(coefficients), 3, 32, 32), objective)
        with torch.no_grad():
            fv.generator.parameters[0].copy_(coefficients)
        return fv.attach(model).optimize(5, verbose=False)

    coefficients = param.FFTImage(2, 3, 32, 32, seed=1).parameters[0].detach()
    batch = run([f"{block}:18", obj.Neuron(f"{block}:2")], coefficients)
    assert (batch.losses[-1] < batch.losses[0]).all()
    for index, objective in enumerate([f"{block}:18", obj.Neuron(f"{block}:2")]):
        single = run(objective, coefficients[index : index + 1])
        torch.testing.assert_close(batch.losses[:, index], single.losses[:, 0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(batch.images[index], single.images[0], atol=1e-3, rtol=0)


class Swin(nn.Module):
    """Maps with the channels last, (N, H, W, C), as in a Swin transformer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 9)

    def forward(self, x):
        return self.block(self.embed(x).permute(0, 2, 3, 1))


def test_the_channel_axis_of_maps_with_the_channels_last_is_named(watched):
    model = watched(Swin())
    for objective, pick in [
        (obj.Channel("block:8", channel_axis=-1), lambda maps: maps[..., 8].mean((1, 2))),
        (obj.Neuron("block:8", channel_axis=-1), lambda maps: maps[:, 4, 3, 8]),
        (obj.Neuron("block:8:1:5", channel_axis=-1), lambda maps: maps[:, 1, 5, 8]),
    ]:
        fv = Pipeline(param.FFTImage(2, 3, 32, 24, sd=0.5, seed=1), objective).attach(model)
        with torch.no_grad():
            expected = pick(model(fv.image))
        torch.testing.assert_close(-fv.optimize(1, verbose=False).losses[0], expected)
    with pytest.raises(UnitError, match="no channel 9 in layer 'block': it has 9 channels"):
        Pipeline(param.FFTImage(1, 3, 32, 24), obj.Channel("block:9", channel_axis=-1)).attach(model)
