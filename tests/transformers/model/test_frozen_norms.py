"""Norms whose scale is kept constant are linear, whatever their modules do with their weights."""

import pytest
import torch
from architectures import build
from torch import nn

from toumei.core.errors import ArchitectureError
from toumei.transformers.model import anatomy
from toumei.transformers.model.frozen_norms import freeze_norm


def final_norm(kind):
    parts = anatomy(build(kind))
    return parts.module(parts.norm)


@pytest.mark.parametrize("width", [8, 9, 33])
@pytest.mark.parametrize("centered", [True, False])
def test_the_map_is_the_closed_form(width, centered):
    torch.manual_seed(width)
    norm = nn.LayerNorm(width) if centered else nn.RMSNorm(width, eps=1e-5)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    x = 3 * torch.randn(width) + 1
    found = freeze_norm(norm, x)
    scale = (x.var(correction=0) if centered else x.square().mean()).add(1e-5).rsqrt()
    assert found.centered == centered
    assert torch.allclose(found.gain.float(), norm.weight.detach() * scale, rtol=1e-4)
    y = torch.randn(width)
    by_hand = norm.weight.detach() * scale * (y - y.mean() if centered else y)
    assert torch.allclose(found(y.double()).float(), by_hand, atol=1e-4)
    if centered:
        assert torch.allclose(found.bias.float(), norm.bias.detach())


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "olmo", "nemotron", "cohere", "llama", "gpt2"])
def test_norms_of_models(kind):
    norm = final_norm(kind)
    x, direction = torch.randn(32), torch.randn(32).double()
    found = freeze_norm(norm, x)
    assert torch.allclose((found(x.double()) + found.bias).float(), norm(x[None, None])[0, 0], atol=1e-5)
    first, second = torch.randn(2, 32).double()
    assert torch.allclose(found(first + second), found(first) + found(second))
    assert torch.allclose(found.pull(direction) @ first, direction @ found(first))


@pytest.mark.parametrize("module", [nn.Tanh(), nn.Softmax(-1), nn.LayerNorm(4)])
def test_what_is_no_norm_of_this_form_is_refused(module):
    if isinstance(module, nn.LayerNorm):
        module = nn.Sequential(nn.Unflatten(-1, (2, 4)), module, nn.Flatten(2))
    with pytest.raises(ArchitectureError, match="no LayerNorm or RMSNorm"):
        freeze_norm(module, torch.randn(8))
