"""Small networks of many kinds, with inputs, for the tests of graphs."""

import warnings

import torch
import torchvision
from torch import nn

TOKENS = torch.randint(0, 90, (2, 7), generator=torch.Generator().manual_seed(0))
SMALL = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 90}
SMALL |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GATED = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 24}


class Twofold(torch.autograd.Function):
    """2 x + 1, by an autograd function of the user."""

    @staticmethod
    def forward(ctx, x):
        return x * 2 + 1

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class Tricky(nn.Module):
    """Views, writes in place, parts, dropout, a constant, a custom function, a number that Python reads."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()
        self.scale = torch.tensor(2.0)

    def forward(self, x):
        y = self.linear(x)
        column = y[:, 0]
        y.add_(1)
        before = column * 2
        y[0] = 5.0
        after = column + before.sum()
        z = self.linear(self.drop(self.norm(torch.relu_(y.clone())))) * self.scale
        first, second = Twofold.apply(z).chunk(2)
        if first.sum().item() > -1e9:
            z = torch.cat([second, first])
        x.mul_(2)
        return {"main": z + after[:, None] + x, "others": (before, None, 3)}


def scripted():
    """A linear map and tanh in TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.ones(1, 3))


def network(name):
    """A network in evaluation mode and a function that makes its inputs."""
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    return make().eval(), inputs


def hf(name, **config):
    import transformers

    made = getattr(transformers, name)
    return lambda: made(made.config_class(**config))


def images():
    return (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)),), {}


def tokens():
    return (TOKENS,), {}


def both():
    return (), {"input_ids": TOKENS, "decoder_input_ids": TOKENS[:, :5]}


def sequence():
    return (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)),), {}


GPT2 = {"n_embd": 16, "n_head": 4, "n_layer": 2, "vocab_size": 90, "bos_token_id": 0, "eos_token_id": 1}
T5 = {"d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24, "num_layers": 2, "vocab_size": 90}
MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 90, "state_size": 4}
NETWORKS = {
    "resnet18": (torchvision.models.resnet18, images),
    "swin": (lambda: torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4]), images),
    "vit": (lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32), images),
    "tricky": (Tricky, lambda: ((torch.randn(4, 3, generator=torch.Generator().manual_seed(2)),), {})),
    "lstm": (lambda: nn.LSTM(8, 5, 2, bidirectional=True), sequence),
    "gpt2": (hf("GPT2LMHeadModel", **GPT2), tokens),
    "llama": (hf("LlamaForCausalLM", **GATED), tokens),
    "gemma2": (hf("Gemma2ForCausalLM", **GATED, head_dim=4), tokens),
    "bert": (hf("BertModel", **SMALL, intermediate_size=24), tokens),
    "t5": (hf("T5ForConditionalGeneration", **T5), both),
    "mixtral": (hf("MixtralForCausalLM", **GATED, num_local_experts=4), tokens),
    "mamba": (hf("MambaForCausalLM", **MAMBA), tokens),
}
