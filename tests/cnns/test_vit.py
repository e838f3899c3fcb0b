"""Every objective and every parameterization works on transformers, on tokens and attention outputs."""

import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import JointModel, Pipeline, robustness
from toumei.core.errors import ShapeError, UnreachedLayerError
from toumei.core.hooks import run

WIDTH, TOKENS, SIZE = 20, 17, 32


def torchvision_vit():
    model = VisionTransformer(SIZE, 8, 2, 2, WIDTH, 32, num_classes=6)
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros
    block = "encoder.layers.encoder_layer_0"
    return model, {"block": block, "attention": f"{block}.self_attention"}


def hugging_face_vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=6,
    )
    model = ViTForImageClassification(config)
    attention = next(name for name, _ in model.named_modules() if name.endswith("0.attention"))
    return model, {"block": attention.removesuffix(".attention"), "attention": attention}


def hugging_face_convnext():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[WIDTH, 24], depths=[1, 1], num_stages=2, patch_size=4, num_labels=6)
    model = ConvNextForImageClassification(config)
    depthwise = next(name for name, _ in model.named_modules() if name.endswith("dwconv"))
    return model, {"block": depthwise}  # a stage's own mean is zero, by its normalization


def hugging_face_resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[WIDTH, 24], depths=[1, 1], layer_type="basic", num_labels=6
    )
    model = ResNetForImageClassification(config)
    stage = next(name for name, _ in model.named_modules() if name.endswith("stages.0"))
    return model, {"block": stage}


NETWORKS = [torchvision_vit, hugging_face_vit, hugging_face_convnext, hugging_face_resnet]
TRANSFORMERS = NETWORKS[:2]
LAYERS = [(make, "block") for make in NETWORKS] + [(make, "attention") for make in TRANSFORMERS]


@pytest.fixture(scope="module")
def built():
    """The networks, each made once."""
    networks = {}

    def build(make):
        if make not in networks:
            torch.manual_seed(0)
            networks[make] = make()
        return networks[make]

    return build


def random(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def photo(*size):
    return torch.rand(*size, generator=torch.Generator().manual_seed(5))


def objectives(model, layer, shape):
    """Every kind of objective for a layer whose activation of three pictures has this shape."""
    channel = WIDTH - 1  # more than there are tokens
    reference = [obj.ActivationDifference, obj.DotCompare, obj.Style]
    return [
        obj.Layer(layer),
        obj.DeepDream(layer),
        obj.Channel(f"{layer}:{channel}"),
        obj.Channel(layer, channels=[channel, 0, 5]),
        obj.Neuron(f"{layer}:{channel}"),
        obj.Neuron(f"{layer}:{channel}:2:1"),
        obj.ChannelWeights(layer, {channel: 1.0, 3: -1.0}),
        obj.LocalGroup(layer, (1, 2, 2, 2), random(WIDTH)),
        obj.Direction(layer, random(WIDTH), similarity="dot-cosine"),
        obj.NeuronDirection(layer, random(3, WIDTH), (3, 0), similarity="cosine"),
        obj.TensorDirection(layer, random(1, *shape[1:])),
        obj.Diversity(layer),
        obj.Alignment(layer),
        obj.Interpolation(f"{layer}:0", f"{layer}:{channel}"),
        *(kind.to_image(model, layer, photo(1, 3, SIZE, SIZE)) for kind in reference),
        [f"{layer}:1", obj.Neuron(f"{layer}:{channel}"), obj.ClassLogit(4)],
    ]


def start(generator, objective, model):
    return Pipeline(generator, objective).attach(model)


@pytest.mark.parametrize(("make", "kind"), LAYERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_objective_can_be_raised(make, kind, built, watched):
    model, layers = built(make)
    watched(model)
    model.eval()
    with torch.no_grad():
        shape = run(model, torch.rand(3, 3, SIZE, SIZE), record=[layers[kind]])[layers[kind]].shape
    model.train()
    for objective in objectives(model, layers[kind], shape):
        generator = param.PixelImage(3, 3, SIZE, SIZE, sd=0.2, seed=1)
        losses = start(generator, objective, model).optimize(2, lr=0.01, verbose=False).losses.sum(1)
        assert losses[-1] < losses[0], objective


@pytest.mark.parametrize("make", TRANSFORMERS)
def test_attention_outputs_are_tokens_by_channels_also_out_of_a_tuple(make, built, watched):
    model, layers = built(make)
    watched(model)
    fv = start(param.FFTImage(2, 3, SIZE, SIZE, sd=0.5, seed=1), f"{layers['attention']}:18:3", model)
    kept, attention = [], model.get_submodule(layers["attention"])
    handle = attention.register_forward_hook(lambda *call: kept.append(call[2]))
    loss = fv.optimize(1, verbose=False).losses[0]
    handle.remove()
    # In transformers 5.6 a ViT's attention returns the states alone.
    states = kept[0][0] if make is torchvision_vit or isinstance(kept[0], tuple) else kept[0]
    assert states.shape == (2, TOKENS, WIDTH)
    torch.testing.assert_close(-loss, states[:, 3, 18].detach())


def generators():
    transforms = robustness.light(), robustness.CropOrPad(SIZE, SIZE), robustness.preprocess("imagenet")
    return {
        "pixels": param.PixelImage(2, 3, SIZE, SIZE, seed=1),
        "fft": param.FFTImage(2, 3, SIZE, SIZE, seed=1),
        "neural": param.Neural(2, 3, SIZE, SIZE, seed=1),
        "transformed": param.Transform(param.FFTImage(2, 3, 40, 36, seed=1), *transforms),
    }


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("kind", generators())
def test_every_parameterization_reaches_the_network(make, kind, built, watched):
    model, layers = built(make)
    fv = start(generators()[kind], [f"{layers['block']}:19", obj.ClassLogit(2)], watched(model))
    before = fv.image
    result = fv.optimize(3, lr=0.02, verbose=False, seed=0)
    assert result.losses.isfinite().all()
    assert (result.images != before).flatten(1).any(1).all()


@pytest.mark.parametrize("make", NETWORKS)
def test_one_picture_for_a_transformer_and_another_network(make, built, watched):
    model, layers = built(make)
    torch.manual_seed(1)
    both = watched(JointModel({"first": model, "second": nn.Sequential(nn.Conv2d(3, 4, 5))}))
    objective = obj.Channel(f"first.{layers['block']}:19") + obj.Channel("second.0:2")
    fv = start(param.FFTImage(1, 3, SIZE, SIZE, seed=1), objective, both)
    losses = fv.optimize(4, verbose=False).losses
    assert losses[-1] < losses[0]


def test_maps_with_the_channels_last_name_their_axis(built, watched):
    model, layers = built(hugging_face_convnext)
    layer = layers["block"].replace("dwconv", "pwconv1")
    for objective in (
        obj.Channel(f"{layer}:79", channel_axis=-1),
        obj.Neuron(f"{layer}:79", channel_axis=-1),
        obj.NeuronDirection(layer, random(80), similarity="dot-cosine", channel_axis=-1),
        obj.LocalGroup(layer, (0, 0, 2, 2), random(80), channel_axis=-1),
        -obj.Style(layer, obj.gram(random(1, 80, 4, 4)), channel_axis=-1),
    ):
        fv = start(param.FFTImage(2, 3, SIZE, SIZE, seed=1), objective, watched(model))
        losses = fv.optimize(4, verbose=False).losses
        assert (losses[-1] < losses[0]).all(), objective


@pytest.mark.parametrize("make", TRANSFORMERS)
def test_pictures_of_a_size_that_the_transformer_does_not_take_say_so(make, built):
    model, layers = built(make)
    with pytest.raises((ValueError, AssertionError), match=r"(?i)height|size"):
        start(param.FFTImage(1, 3, SIZE + 8, SIZE, seed=1), f"{layers['block']}:0", model)


def test_a_projection_that_torch_calls_as_a_function_says_that_it_was_not_reached(built):
    model, layers = built(torchvision_vit)
    with pytest.raises(UnreachedLayerError, match="out_proj"):
        start(param.FFTImage(1, 3, SIZE, SIZE), f"{layers['attention']}.out_proj:0", model)


def test_a_direction_of_another_number_of_tokens_says_so(built):
    model, layers = built(torchvision_vit)
    with pytest.raises(ShapeError, match=r"\(16, 20\) does not fit layer .* which makes \(17, 20\)"):
        objective = obj.TensorDirection(layers["block"], random(1, TOKENS - 1, WIDTH))
        start(param.FFTImage(1, 3, SIZE, SIZE), objective, model)
