"""Tiny models and inputs for the valid calls, and what enters contexts."""

from functools import cache

import torch
from torch import nn

import toumei.misc.modularity as mod
import toumei.models as models

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
CNN = nn.Sequential(
    *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
).eval()
X, PICTURES = torch.rand(2, 4), torch.rand(2, 3, 8, 8)
VALUES, MASKS = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) > 0.5
LABELS, TARGETS = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 2])
QUIET = {"verbose": False}


@cache
def world():
    return models.facts_gpt()


def text():
    model, tokenizer, facts = world()
    return {"model": model, "tokenizer": tokenizer}, facts.facts[0]


MODELS = {"net": NET, "cnn": CNN}


def graph():
    return mod.chain(["a", "b"], [torch.rand(2, 2) + 0.1])


def entered(context):
    def enter(**given):
        with context(**given):
            pass

    return enter
