"""One name means one tensor for recordings, edits, pictures and attributions of many kinds of networks."""

from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.attribution import Occlusion, Saliency
from toumei.core import hooked, run, survey
from toumei.core.layout import channels_of


@dataclass
class Kind:
    """A network, its inputs, and what a newcomer would type.

    `expected` gives the values of the unit, (N,), from the tensor of its layer.
    """

    build: object
    inputs: tuple
    layers: tuple
    unit: str
    expected: object
    pictures: bool = True


def resnet():
    return torchvision.models.resnet18(num_classes=4)


def branches():
    return torchvision.models.googlenet(num_classes=4, aux_logits=False, init_weights=False).inception3a


def convnext():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), torchvision.models.convnext.CNBlock(8, 1.0, 0.0))


def swin():
    return torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5)


def vit():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=3
    )


def wide_vit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=(32, 64),
        patch_size=8, attn_implementation="eager",
    )  # fmt: skip
    return ViTModel(config, add_pooling_layer=False)


def vit_with_registers():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=7,
        num_register_tokens=3,
    )  # fmt: skip
    return Dinov2WithRegistersModel(config)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=8, vocab_size=11, n_positions=16, attn_implementation="eager",
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=11, attn_implementation="eager", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, vocab_size=11,
        attn_implementation="eager",
    )  # fmt: skip
    return BertModel(config)


def picture(channels, *sizes):
    return torch.rand(2, channels, *sizes, generator=torch.Generator().manual_seed(0))


IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
KINDS = {
    "resnet18": Kind(
        resnet, (picture(3, 32, 48),), ("layer2.0.relu", "layer2.0.relu#0", "layer3.0/add"),
        "layer2.0.relu:7:1:2", lambda tensor: tensor[:, 7, 1, 2],
    ),
    "inception branches": Kind(
        branches, (picture(192, 8, 6),), ("branch2", "/cat", "branch1/relu"),
        "/cat:70", lambda tensor: tensor[:, 70].mean((1, 2)),
    ),
    "convnext": Kind(
        convnext, (picture(3, 16, 24),), ("1.block.3", "1/add", "1.block.4/gelu"),
        "1.block.3:2:1:4", lambda tensor: tensor[:, 1, 4, 2],
    ),
    "swin": Kind(
        swin, (picture(3, 32, 48),), ("features.1", "features.1.0/add#0", "features.1.0/add"),
        "features.1:5:3:7", lambda tensor: tensor[:, 3, 7, 5],
    ),
    "vit": Kind(
        vit, (picture(3, 32, 32),),
        ("encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0/add#1", "encoder.ln"),
        "encoder.layers.encoder_layer_1:5:2:3", lambda tensor: tensor[:, 1 + 2 * 4 + 3, 5],
    ),
    "vit of 4 x 8 patches": Kind(
        wide_vit, (picture(3, 32, 64),), ("layernorm", "embeddings"),
        "layernorm:5:2:3", lambda tensor: tensor[:, 1 + 2 * 8 + 3, 5],
    ),
    "vit with registers": Kind(
        vit_with_registers, (picture(3, 28, 42),), ("layernorm", "embeddings"),
        "layernorm:5:2:3", lambda tensor: tensor[:, 4 + 2 * 6 + 3, 5],
    ),
    "gpt2": Kind(
        gpt2, (IDS,), ("transformer.h.0", "transformer.h.0.attn/softmax", "transformer.h.1.attn[1]"),
        "transformer.h.0:3:4", lambda tensor: tensor[:, 4, 3], False,
    ),
    "llama": Kind(
        llama, (IDS,), ("model.layers.1", "model.layers.0.self_attn/softmax", "model.layers.0/add#0"),
        "model.layers.1:3:4", lambda tensor: tensor[:, 4, 3], False,
    ),
    "bert": Kind(
        bert, (IDS,), ("encoder.layer.1", "[pooler_output]", "encoder.layer.0.attention.self/softmax"),
        "encoder.layer.1:3:0", lambda tensor: tensor[:, 0, 3], False,
    ),
    "lstm": Kind(
        lambda: nn.Sequential(nn.LSTM(3, 4, batch_first=True)), (picture(5, 3),), ("0", "0[1]", "0[1][1]"),
        "0:2:3", lambda tensor: tensor[:, 3, 2], False,
    ),
    "conv1d": Kind(
        lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU()), (picture(2, 12),), ("0", "1", "1/relu"),
        "1:4:5", lambda tensor: tensor[:, 4, 5], False,
    ),
    "conv3d": Kind(
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU()), (picture(1, 5, 6, 7),), ("0", "1", "1/relu"),
        "1:2:1:0:3", lambda tensor: tensor[:, 2, 1, 0, 3], False,
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    kind = KINDS[request.param]
    torch.manual_seed(0)
    return kind, kind.build().eval()


def test_recordings_edits_and_surveys_see_the_same_tensor(kind):
    kind, model = kind
    with torch.no_grad():
        recorded = run(model, *kind.inputs, record=kind.layers)
        found = survey(model, kind.layers, lambda: model(*kind.inputs))
        numbered = run(model, *kind.inputs, record=found.names)
        for layer in kind.layers:
            seen = []

            def note(tensor, seen=seen):
                seen.append(tensor.clone())
                return tensor

            with hooked(model, edit={layer: note}):
                model(*kind.inputs)
            for other in (seen[-1], found.activations[layer], numbered[layer]):
                torch.testing.assert_close(recorded[layer], other)  # a mode switches fused attention off


def test_an_edit_changes_what_the_name_means(kind):
    kind, model = kind
    with torch.no_grad():
        for layer in kind.layers:
            with hooked(model, [layer], {layer: torch.zeros_like}) as after:
                model(*kind.inputs)
            assert not after[layer].any(), layer


def test_attributions_and_objectives_score_the_same_unit(kind):
    kind, model = kind
    layer = kind.unit.split(":")[0]
    with torch.no_grad():
        wanted = kind.expected(run(model, *kind.inputs, record=[layer])[layer])
        found = survey(model, [layer], lambda: model(*kind.inputs))
    whole_numbers = not kind.inputs[0].is_floating_point()
    method = Occlusion(model, window=1) if whole_numbers else Saliency(model)
    torch.testing.assert_close(method(kind.inputs[0], kind.unit).output, wanted)
    torch.testing.assert_close(obj.as_objective(kind.unit).score(found.activations), wanted)
    assert channels_of(found.activations, layer).values.shape[0] == len(wanted)


def test_a_picture_is_optimized_for_the_same_unit(kind):
    kind, model = kind
    if not kind.pictures:
        assert kind.inputs[0].dim() != 4  # what is no picture has no pictures
        return
    layer, seen = kind.unit.split(":")[0], {}

    def score(activations):
        seen["tensor"] = activations[layer].detach()
        return obj.as_objective(kind.unit).score(activations)

    image = param.PixelImage(*kind.inputs[0].shape, seed=0)
    pipeline = obj.Pipeline(image, obj.Function(score, [layer])).attach(model)
    with torch.no_grad():
        wanted = run(model, pipeline.image, record=[layer])[layer]
    torch.testing.assert_close(seen["tensor"], wanted)
    pipeline.optimize(1, verbose=False, seed=0)
