"""Valid calls of lenses and of direct logit attribution."""

from functools import cache

import torch
from torch import nn

import toumei.transformers as trans
from toumei.transformers.lenses import linear_contributions
from toumei.transformers.model.frozen_norms import freeze_norm

from .small_models import QUIET, text, world

SIZE = {"steps": 1, "tokens_per_step": 16, "length": 8, "batch_size": 2}


def texts():
    return [fact.text for fact in world()[2].facts[:8]]


@cache
def trained():
    return trans.TunedLens.train(**text()[0], texts=texts(), **SIZE, **QUIET)


def lenses():
    parts, fact = text()
    prompt = fact.prompt.format(fact.subject)
    recipe = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 1e-3, "loss": "cross_entropy"}
    given = {**parts, "texts": texts()}
    yield trans.TunedLens.train, {**given, **SIZE, **recipe, "bias_only": True, "seed": 0, **QUIET}
    lens = trained()
    yield lens, {**parts, "prompt": prompt, "top": 2}
    yield lens.evaluate, {**given, "max_tokens": 16, "batch_size": 1, **QUIET}
    yield trans.TunedLens.load, {"path": "no such file", "model": parts["model"]}
    shown = {"ax": None, "color": "entropy", "positions": [0, 1], "limit": 1.0}
    yield lens(**parts, prompt=prompt).plot, shown
    yield lens.evaluate(**given, max_tokens=16, verbose=False).plot, {"ax": None}
    other = next(one for one in world()[2].facts if one.target != fact.target)
    split = {"heads": True, "neurons": True, "sources": True}
    asked = {**parts, "prompt": prompt, "answer": fact.target, "against": other.target}
    yield trans.direct_logit_attribution, {**asked, **split}
    found = trans.direct_logit_attribution(**{**asked, **split})
    yield found.top, {"k": 2, "of": "neurons"}
    yield found.plot, {"ax": None, "of": "heads", "k": 2}
    summands = torch.rand(3, 4)
    norm = freeze_norm(nn.LayerNorm(4), summands.sum(0))
    yield linear_contributions, {"summands": summands, "direction": torch.rand(4), "norm": norm}
