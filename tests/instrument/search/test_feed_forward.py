import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer, resnet18
from tracked import Function, graph_of, transformer

from toumei.core.errors import ArgumentError
from toumei.instrument.search.activations import find_activations
from toumei.instrument.search.feed_forward import FindTransformerFFN, find_feed_forward
from toumei.instrument.search.linear_maps import find_linear
from toumei.instrument.search.normalizations import find_normalizations
from toumei.instrument.search.residual_sums import find_residual_sums

EXPECTED = {  # kind, activation function, module of the second one, its last linear map, neurons
    "gpt2": ("plain", "gelu_tanh", "transformer.h.1.mlp", "transformer.h.1.mlp.c_proj", 128),
    "bloom": ("plain", "gelu_tanh", "transformer.h.1.mlp", "transformer.h.1.mlp.dense_4h_to_h", 128),
    "llama": ("gated", "silu", "model.layers.1.mlp", "model.layers.1.mlp.down_proj", 48),
    "gemma2": ("gated", "gelu_tanh", "model.layers.1.mlp", "model.layers.1.mlp.down_proj", 48),
    "mixtral": ("experts", "silu", "model.layers.1.mlp.experts", None, 48),
    "gpt_oss": ("experts", "quick_gelu", "model.layers.1.mlp.experts", None, 48),
    "bert": ("plain", "gelu", "encoder.layer.1", "encoder.layer.1.output.dense", 48),
    "vit": ("plain", "gelu", "layers.1.mlp", "layers.1.mlp.fc2", 48),
    "bitnet": ("gated", "relu_squared", "model.layers.1.mlp", "model.layers.1.mlp.down_proj", 48),
    "apertus": ("plain", "xielu", "model.layers.1.mlp", "model.layers.1.mlp.down_proj", 48),
    "clip_vision_model": ("plain", "quick_gelu", "encoder.layers.1.mlp", "encoder.layers.1.mlp.fc2", 48),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_feed_forward_networks_of_transformers(kind):
    model, inputs = transformer(kind)
    first, second = find_feed_forward(graph_of(model, **inputs))
    name, activation, module, down, neurons = EXPECTED[kind]
    assert (second.kind, second.activation.name, second.module) == (name, activation, module)
    assert (second.down_module, second.hidden_size) == (down, neurons)
    assert (first.layer, second.layer) == (0, 1)
    assert second.first.in_features == second.down.out_features == 32
    assert (second.up is not None) == (name != "plain")
    if down is not None:
        assert second.down.weight.name == f"{down}.weight"
    places = dict(model.named_parameters())
    for one in (second.first, second.up, second.down):
        assert one is None or one.weight.name in places


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_last_linear_map_takes_the_coefficients(kind):
    model, inputs = transformer(kind)
    graph = graph_of(model, **inputs)
    for network in find_feed_forward(graph):
        values = graph.replay(record=[network.coefficients, network.down.input])
        coefficients, given = values[network.coefficients.name], values[network.down.input.name]
        assert torch.equal(
            coefficients.reshape(-1, network.hidden_size), given.reshape(-1, network.hidden_size)
        )


def test_coefficients_are_the_activation_of_the_gate_times_the_other_map():
    model, inputs = transformer("llama")
    graph = graph_of(model, **inputs)
    network = next(find_feed_forward(graph))
    values = graph.replay(record=[network.first.input, network.coefficients])
    x = values[network.first.input.name]
    mlp = model.model.layers[0].mlp
    assert torch.equal(values[network.coefficients.name], F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))


def test_networks_of_an_encoder_and_a_decoder_are_numbered_in_their_order():
    model, inputs = transformer("t5")
    networks = list(find_feed_forward(graph_of(model, **inputs)))
    assert [one.layer for one in networks] == [0, 1, 2, 3]
    assert networks[2].module == "decoder.block.0.layer.2.DenseReluDense"
    assert {(one.kind, one.activation.name) for one in networks} == {("gated", "gelu_tanh")}


def test_experts_that_run_one_by_one_are_of_one_layer():
    model, inputs = transformer("mixtral", experts_implementation="eager")
    networks = list(find_feed_forward(graph_of(model, **inputs)))
    assert {one.kind for one in networks} == {"experts"}
    assert [one.layer for one in networks] == sorted(one.layer for one in networks)
    assert {one.layer for one in networks} == {0, 1}
    assert networks[0].down.weight.name == "model.layers.0.mlp.experts.down_proj"
    assert (
        sum(one.coefficients.shape[0] for one in networks if one.layer == 0) == 2 * 10
    )  # two for each token


def test_networks_of_torch_and_torchvision():
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 24), 2, enable_nested_tensor=False
    ).train()
    networks = list(find_feed_forward(graph_of(encoder, torch.randn(3, 2, 16))))  # with dropout
    assert [(one.module, one.down_module) for one in networks] == [
        ("layers.0", "layers.0.linear2"),
        ("layers.1", "layers.1.linear2"),
    ]
    assert repr(networks[0]) == "FeedForward('layers.0', layer 0, plain, relu, 16 -> 24 -> 16)"
    networks = list(
        find_feed_forward(graph_of(VisionTransformer(16, 4, 2, 4, 32, 48).eval(), torch.ones(1, 3, 16, 16)))
    )
    assert [(one.layer, one.down_module) for one in networks] == [
        (0, "encoder.layers.encoder_layer_0.mlp.3"),
        (1, "encoder.layers.encoder_layer_1.mlp.3"),
    ]


def test_the_names_of_fmrai():
    model, inputs = transformer("bert")
    (first, _) = FindTransformerFFN(graph_of(model, **inputs)).search()
    assert first.linear_top.name == "encoder.layer.0.intermediate.dense/linear#0"
    assert first.act.name == "encoder.layer.0.intermediate.intermediate_act_fn/gelu#0"
    assert first.linear_bottom.name == "encoder.layer.0.output.dense/linear#0"


def layers():
    torch.manual_seed(0)
    return {"up": nn.Linear(4, 8), "down": nn.Linear(4, 4), "wide": nn.Linear(8, 4)}


def networks_of(function):
    parts = layers()
    return list(
        find_feed_forward(graph_of(Function(lambda x: function(x, **parts), **parts), torch.ones(2, 4)))
    )


def test_networks_written_by_hand():
    (plain,) = networks_of(lambda x, up, down, wide: up(x).relu().square() @ wide.weight.t() + wide.bias)
    assert (plain.kind, plain.activation.name, plain.down.bias.name) == ("plain", "relu_squared", "wide.bias")
    (gated,) = networks_of(lambda x, up, down, wide: down((h := up(x))[:, :4] * F.gelu(h[:, 4:])))
    assert (gated.kind, gated.first.operation, gated.hidden_size) == ("gated", gated.up.operation, 4)
    (glu,) = networks_of(lambda x, up, down, wide: down((h := up(x).chunk(2, -1))[0] * h[1].sigmoid()))
    assert (glu.kind, glu.activation.name) == ("gated", "sigmoid")
    (scaled,) = networks_of(
        lambda x, up, down, wide: down(F.silu(down(x) * 0.3) * down(x))
    )  # as in Falcon H1
    assert (scaled.kind, scaled.activation.name, scaled.hidden_size) == ("gated", "silu", 4)
    (normed,) = networks_of(lambda x, up, down, wide: wide(F.layer_norm(up(x).relu(), (8,))))
    assert (normed.kind, normed.coefficients.name) == ("plain", "/layer_norm#0")
    assert normed.before_norm.name == "/relu#0"
    (experts,) = networks_of(lambda x, up, down, wide: wide(up(x[torch.tensor([1])]).relu()))
    assert experts.kind == "experts"


@pytest.mark.parametrize(
    "function",
    [
        lambda x, up, down, wide: wide(up(x)),
        lambda x, up, down, wide: wide(up(x).tanh()),  # a pooler and a classifier
        lambda x, up, down, wide: up(F.layer_norm(down(x).relu(), (4,))),  # as in heads of BERT
        lambda x, up, down, wide: down(x.relu()),
        lambda x, up, down, wide: down(down(x) * x.sigmoid()),  # an output gate
        lambda x, up, down, wide: wide(up(down.weight).relu()),  # of weights alone
    ],
)
def test_other_linear_maps_are_no_network(function):
    assert not networks_of(function)


def test_mamba_has_no_feed_forward_network():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = transformer("mamba")
    assert not list(find_feed_forward(graph_of(model, **inputs)))


SLOPE = math.sqrt(2 / math.pi)
WRITTEN_OUT = {
    "gelu_tanh": [
        lambda x: 0.5 * x * (1 + torch.tanh(SLOPE * (x + 0.044715 * torch.pow(x, 3)))),
        lambda x: x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))),
        lambda x: 0.5 * (x * (torch.tanh((x + 0.044715 * x * x * x) * SLOPE) + 1)),
    ],
    "gelu": [
        lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        lambda x: 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5))),
    ],
    "silu": [lambda x: x * torch.sigmoid(x), lambda x: x.sigmoid() * x],
    "quick_gelu": [lambda x: x * torch.sigmoid(1.702 * x), lambda x: torch.sigmoid(x * 1.702) * x],
    "mish": [lambda x: x * torch.tanh(F.softplus(x))],
    "relu_squared": [lambda x: F.relu(x) ** 2, lambda x: x.relu().square(), lambda x: (y := x.relu()) * y],
    "soft_cap": [lambda x: torch.tanh(x / 50.0) * 50.0],
}
IN_TORCH = {
    "relu": [F.relu, lambda x: x.clamp(0), lambda x: x.clamp(min=0.0)],
    "relu6": [F.relu6, lambda x: x.clamp(0, 6)],
    "gelu": [F.gelu],
    "gelu_tanh": [lambda x: F.gelu(x, approximate="tanh")],
    "silu": [F.silu],
    "tanh": [torch.tanh],
}


@pytest.mark.parametrize(
    ("name", "function"),
    [(name, one) for table in (WRITTEN_OUT, IN_TORCH) for name, many in table.items() for one in many],
)
def test_activations_in_one_function_or_written_out(name, function):
    (one,) = find_activations(graph_of(Function(function), torch.ones(2)))
    assert (one.name, one.input.name) == (name, "inputs[0]")
    assert one.output is one.operations[0].outputs[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.clamp(-1, 1),
        lambda x: x.clamp(min=torch.zeros(())),
        lambda x: 2 * x * (x + 1),
        lambda x: x.softmax(-1),
        lambda x: x.square(),
    ],
)
def test_other_functions_are_no_activation(function):
    assert not list(find_activations(graph_of(Function(function), torch.ones(2))))


def test_activations_are_found_once_and_in_their_order():
    model, inputs = transformer("gemma2")
    names = [one.name for one in find_activations(graph_of(model, **inputs))]
    assert names == ["soft_cap", "gelu_tanh", "soft_cap", "gelu_tanh", "soft_cap"]  # of attention and logits


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "vit", "t5"])
def test_linear_maps_are_the_layers_of_the_model(kind):
    model, inputs = transformer(kind)
    maps = list(find_linear(graph_of(model, **inputs)))
    there = [one for one in model.modules() if type(one).__name__ in ("Linear", "Conv1D")]
    assert len(maps) == len(there)
    for one in maps:
        weight = model.get_parameter(one.weight.name)
        assert set(weight.shape) == {one.in_features, one.out_features}


def test_linear_maps_by_other_functions():
    weight, bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))

    def found(function, *shape):
        model = Function(lambda x: function(x))
        model.weight, model.bias = weight, bias
        (one,) = find_linear(graph_of(model, torch.ones(*shape)))
        return one

    one = found(lambda x: x @ weight + bias, 2, 4)
    assert (one.output.name, one.weight.name, one.bias.name) == ("/add#0", "weight", "bias")
    assert repr(one) == "LinearMap('/matmul#0', 4 -> 6)"
    one = found(lambda x: torch.addmm(bias, x, weight), 2, 4)
    assert (one.bias.name, one.in_features, one.out_features) == ("bias", 4, 6)
    one = found(lambda x: torch.einsum("bi,io->bo", x, weight), 2, 4)
    assert (one.bias, one.in_features, one.out_features) == (None, 4, 6)
    one = found(lambda x: weight.t() @ x, 4, 3)
    assert (one.in_features, one.out_features, one.weight.name) == (4, 6, "weight")
    one = found(lambda x: F.conv2d(x, weight.t()[..., None, None], bias), 1, 4, 2, 2)
    assert (one.in_features, one.out_features, one.bias.name) == (4, 6, "bias")


def test_other_products_are_no_linear_map():
    weight = nn.Parameter(torch.randn(3, 3, 3, 3))
    for function in (lambda x: x @ x.mT, lambda x: F.conv2d(x, weight), lambda x: x * weight[0, 0, 0, 0]):
        model = Function(lambda x, function=function: function(x))
        model.weight = weight
        assert not list(find_linear(graph_of(model, torch.ones(1, 3, 4, 4))))


@pytest.mark.parametrize(
    ("kind", "norm", "count"),
    [("gpt2", "layer_norm", 5), ("llama", "rms_norm", 5), ("gemma2", "rms_norm", 9), ("t5", "rms_norm", 12)],
)
def test_normalizations_of_transformers(kind, norm, count):
    model, inputs = transformer(kind)
    norms = list(find_normalizations(graph_of(model, **inputs)))
    assert [one.kind for one in norms] == [norm] * count
    weights = [name for name, one in model.named_parameters() if one.dim() == 1 and name.endswith("weight")]
    assert sorted(one.weight.name for one in norms) == sorted(weights)


def mean(x):
    return x.mean(-1, keepdim=True)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("rms_norm", lambda x: F.rms_norm(x, (4,))),
        ("rms_norm", lambda x: x / torch.sqrt(mean(x**2) + 1e-6)),
        ("rms_norm", lambda x: x * (mean(x * x) + 1e-6) ** -0.5),
        ("layer_norm", lambda x: F.layer_norm(x, (4,))),
        ("layer_norm", lambda x: (x - mean(x)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-6)),
        ("layer_norm", lambda x: (x - mean(x)) / (x.std(-1, keepdim=True) + 1e-6)),
        ("layer_norm", lambda x: (y := x - mean(x)) * torch.rsqrt(mean(y.square()) + 1e-6)),
        ("layer_norm", lambda x: (x - mean(x)) * torch.rsqrt(mean((x - mean(x)).pow(2)) + 1e-6)),  # Cohere
        ("group_norm", lambda x: F.group_norm(x[:, :, None], 2)),
        ("instance_norm", lambda x: F.instance_norm(x[None])),
    ],
)
def test_normalizations_in_one_function_or_written_out(kind, function):
    (one,) = find_normalizations(graph_of(Function(function), torch.randn(2, 4)))
    assert (one.kind, one.weight, one.bias) == (kind, None, None)


def test_normalizations_of_a_cnn_with_their_weights():
    norms = list(find_normalizations(graph_of(resnet18(num_classes=2).eval(), torch.ones(1, 3, 32, 32))))
    assert len(norms) == 20
    assert (norms[0].weight.name, norms[0].bias.name) == ("bn1.weight", "bn1.bias")
    assert repr(norms[0]) == "Normalization('batch_norm', 'bn1/batch_norm#0')"


@pytest.mark.parametrize(
    ("kind", "count"),
    [("gpt2", 4), ("llama", 4), ("bert", 4), ("t5", 10), ("mixtral", 4), ("swin", 6), ("mamba", 2)],
)
def test_residual_sums_of_transformers(kind, count):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = transformer(kind)
    sums = list(find_residual_sums(graph_of(model, **inputs)))
    assert len(sums) == count
    assert all(one.stream.shape == one.branch.shape == one.output.shape for one in sums)


def test_residual_sums_of_a_cnn_lead_from_one_to_the_next():
    sums = list(find_residual_sums(graph_of(resnet18(num_classes=2).eval(), torch.ones(1, 3, 32, 32))))
    assert [one.module for one in sums] == ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert sums[0].branch.name == "layer1.0.bn2/batch_norm#0"


def test_other_sums_are_not_residual():
    layer = nn.Linear(4, 4)
    for function in (
        lambda x: x + x.square(),  # nothing with weights in between
        lambda x: layer(x) + layer(x),
        lambda x: layer(x) + 1,
        lambda x: layer(x) + layer.bias,
        lambda x: layer(x).mean() + x,
    ):
        assert not list(find_residual_sums(graph_of(Function(function, layer=layer), torch.ones(2, 4))))
    (one,) = find_residual_sums(graph_of(Function(lambda x: layer(x) + x, layer=layer), torch.ones(2, 4)))
    assert (one.stream.name, one.branch.name) == ("inputs[0]", "layer/linear#0")


@pytest.mark.parametrize(
    "search", [find_feed_forward, find_linear, find_activations, find_normalizations, find_residual_sums]
)
def test_empty_graphs_and_what_is_no_graph(search):
    assert not list(search(graph_of(nn.Identity(), torch.ones(2))))
    with pytest.raises(ArgumentError, match="graph is a OperationGraph, got a Linear"):
        search(nn.Linear(2, 2))
