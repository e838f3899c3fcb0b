"""What norms do to directions, measured in the graph of a pass."""

import copy

import pytest
import torch
from architectures import build

from toumei.core.errors import ArchitectureError
from toumei.transformers.heads.norm_factors import measured_factor
from toumei.transformers.heads.weights import input_factor
from toumei.transformers.model.hooked_model import HookedModel

NORMS = {  # the kind, the norm of layer 1, and what the gain adds to its weight
    "gpt2": ("layer_norm", "transformer.h.1.ln_1", 0),
    "nemotron": ("layer_norm", "model.layers.1.input_layernorm", 1),
    "cohere": ("layer_norm", "model.layers.1.input_layernorm", 0),
    "llama": ("rms_norm", "model.layers.1.input_layernorm", 0),
    "gemma2": ("rms_norm", "model.layers.1.input_layernorm", 1),
}


def with_random_norms(kind, dtype):
    model = copy.deepcopy(build(kind)).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(dtype))
    return HookedModel(model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", NORMS)
def test_kind_gain_and_bias_are_those_of_the_module(kind, dtype):
    model = with_random_norms(kind, dtype)
    expected, name, plus = NORMS[kind]
    factor, norm = input_factor(model.points, 1), model.model.get_submodule(name)
    assert factor.kind == expected
    torch.testing.assert_close(factor.gain, plus + norm.weight.detach().double(), rtol=0, atol=1e-12)
    bias = getattr(norm, "bias", None)
    zeros = torch.zeros_like(factor.gain)
    torch.testing.assert_close(
        factor.bias, zeros if bias is None else bias.detach().double(), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_a_norm_does_is_its_factor_times_one_number(kind):
    model = with_random_norms(kind, torch.float64)
    factor = input_factor(model.points, 1)
    norm = model.model.get_submodule(NORMS[kind][1])
    x = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = norm(x).detach()
    scale = factor.scale(x, y)
    root = x.var(-1, unbiased=False) if kind == "gpt2" else x.square().mean(-1)
    torch.testing.assert_close(scale[:, 0], root.rsqrt(), rtol=1e-3, atol=0)
    torch.testing.assert_close(factor.after(x) * scale + factor.bias, y)
    weight = torch.randn(32, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(x @ factor.before(weight), factor.after(x) @ weight)


def test_more_than_a_norm_is_refused():
    model = HookedModel(build("gpt2"))
    graph, network = model.points.graph, model.points.networks[0]
    with pytest.raises(ArchitectureError, match="cannot be folded"):
        measured_factor(graph, network.first.input, network.down.output)
