"""What a network forgets layer by layer, down to the weights that no layer of PyTorch's initializes."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer
from transformers import GPT2Config, GPT2LMHeadModel

from toumei.attribution import InputXGradient, LogProbability, randomization


class Noting(InputXGradient):
    """Keeps the models for which it is called."""

    def __init__(self, model, layer=None):
        super().__init__(model, layer)
        self.models = []

    def __call__(self, inputs, target=None, baselines=None):
        self.models.append(self.model)
        return super().__call__(inputs, target, baselines)


def gpt2():
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=20, n_positions=12))
    inputs = torch.tensor([[3, 7, 1, 19]])
    return model, inputs, LogProbability(2), "transformer.wte"


def vision_transformer():
    model = VisionTransformer(8, 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3)
    return model, torch.rand(2, 3, 8, 8), 1, None


@pytest.mark.parametrize("case", [gpt2, vision_transformer])
def test_a_transformer_forgets_all_its_weights(watched, case):
    torch.manual_seed(0)
    model, inputs, target, layer = case()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2)
    watched(model)
    method = Noting(model, layer)
    result = randomization(method, inputs, target)
    forgotten = dict(method.models[-1].named_parameters())
    for name, parameter in model.named_parameters():
        assert not torch.isclose(parameter, forgotten[name]).any(), name
    assert ("" in result.layers) == (case is vision_transformer)
    assert result.plot().get_xticklabels()[0].get_text() == "trained"


def test_weights_without_an_initialization_keep_their_mean_and_deviation():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(3 + 2 * torch.rand(100, 100))
            self.scale = nn.Parameter(torch.full((100,), 0.5))

        def forward(self, x):
            return (x @ self.weight * self.scale).sum(1)

    model = Own()
    method = Noting(model)
    result = randomization(method, torch.rand(2, 100))
    assert result.layers == ("",) and result.plot().get_xticklabels()[1].get_text() == "the model itself"
    trained, weight = model.weight.detach(), method.models[-1].weight.detach()
    assert torch.isclose(weight, trained).float().mean() < 0.01
    assert abs(float(weight.mean() - trained.mean())) < 0.03
    assert abs(float(weight.std() / trained.std()) - 1) < 0.03
    assert torch.equal(
        method.models[-1].scale, model.scale
    )  # of weights that are all the same nothing was learned
