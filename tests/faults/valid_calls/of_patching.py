"""Valid calls of ablations and of patching, between two runs of an induction head."""

from functools import cache

import torch

import toumei.models as models
import toumei.transformers as trans
import toumei.transformers.patching as patching

CLEAN, CORRUPT = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])


@cache
def hooked():
    return trans.HookedModel(models.InductionTransformer(vocabulary=8, positions=12))


def ablated(**given):
    """The logits of two texts while a head is ablated, or a part of it."""
    with hooked().edit({("z", 1): patching.ablation(**given)}):
        return hooked()(torch.cat([CLEAN, CORRUPT]))


def measured(metric, **given):
    """The effects of the heads, by a metric that is made of its arguments."""
    return patching.activation_patching(hooked(), CLEAN, CORRUPT, metric(**given), "z", "head")


def logit_difference(answers, wrong):
    return measured(patching.logit_difference, answers=answers, wrong=wrong)


def probability(answers):
    return measured(patching.probability, answers=answers)


def metric_of_parts(name, prepare):
    return measured(patching.Metric, name=name, prepare=prepare)


def logit_of_token_4(model, ids, clean):
    return lambda logits: logits[..., 4]


def ablations():
    with torch.no_grad():
        cache = hooked().run_with_cache(torch.cat([CORRUPT, CLEAN]))[1]
    part = {"heads": [0], "positions": [1, -1], "direction": torch.ones(12)}
    yield ablated, {"kind": "zero", **part}
    yield ablated, {"kind": "mean", "neurons": [0, 1], "reference": cache, "pooled": True}
    yield ablated, {"kind": "resample", "reference": cache}
    texts = {"model": hooked(), "texts": torch.cat([CLEAN, CORRUPT]), "layers": [0, 1], "batch_size": 2}
    yield patching.head_ablation, {**texts, "kind": "mean", "reference": CORRUPT, "pooled": False}
    metric = patching.logit_difference(4, 5)
    settings = {"kind": "zero", "metric": metric, "confidence": 0.9, "verbose": False}
    yield patching.head_ablation, {**texts, **settings}
    found = patching.head_ablation(hooked(), torch.cat([CLEAN, CORRUPT]))
    yield found.top, {"k": 2}
    yield found.plot, {"ax": None}


def patches():
    pair = {"model": hooked(), "clean": CLEAN, "corrupt": CORRUPT, "metric": patching.kl_to_clean()}
    by_head = {"what": "z", "by": "head_position", "layers": [0, 1], "batch_size": 2}
    yield patching.activation_patching, {**pair, **by_head, "direction": "noising", "verbose": False}
    pair["metric"] = patching.logit_difference(4, 5)
    paths = {"receivers": [(1, 0, "k")], "senders": "heads", "mlps": "free", "direction": "denoising"}
    yield patching.path_patching, {**pair, **paths, "batch_size": 2, "verbose": False}
    first_order = {**pair, **by_head, "gradient_at": "clean", "sample": 4, "seed": 0}
    yield patching.attribution_patching, first_order
    yield logit_difference, {"answers": [4], "wrong": torch.tensor([5])}
    yield probability, {"answers": 4}
    yield metric_of_parts, {"name": "logit", "prepare": logit_of_token_4}
    found = patching.activation_patching(**pair)
    yield found.top, {"k": 2}
    yield found.__getitem__, {"key": "0.1"}
    yield found.plot, {"ax": None}
    yield patching.attribution_patching(**first_order).plot, {"ax": None}


def patched():
    yield from ablations()
    yield from patches()
