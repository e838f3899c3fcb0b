"""Valid calls of attribution: every method, metric and baseline."""

import torch

import toumei.attribution as att

from .small_models import CNN, MASKS, NET, PICTURES, QUIET, VALUES, X, text


def built(kind, call, **settings):
    """A method of attribution that is made and called: settings and data are spoilt alike."""

    def make_and_call(**given):
        settings = {name: given.pop(name) for name in list(given) if name not in call}
        return kind(**settings)(**given)

    return make_and_call


def method(kind, *, model=NET, inputs=X, **settings):
    call = {"inputs": inputs, "target": 1, "baselines": 0.0}
    call |= {"feature_names": None, "class_names": None, "row_names": None}
    return built(kind, call), {"model": model, **settings, **call}


def methods():
    """Every method with settings that take few passes."""
    few = {"samples": 4, "seed": 0, "batch_size": 8}
    pictured = {"model": CNN, "inputs": PICTURES}
    yield from (
        method(att.Saliency, absolute=True, batch_size=4, layer=None),
        method(att.InputXGradient, batch_size=4),
        method(att.IntegratedGradients, tolerance=0.1, max_steps=16, steps=4, layer="0"),
        method(att.LayerConductance, layer="0", tolerance=0.1, max_steps=16, steps=4),
        method(att.SmoothGrad, noise=0.1, absolute=False, of=att.Saliency, **few),
        method(att.VarGrad, noise=0.1, **few),
        method(att.ExpectedGradients, **few),
        method(att.DeepLift, unknown="error", batch_size=4),
        method(att.DeepLiftShap, unknown="error", **few),
        method(att.LRP, epsilon=1e-9),
        method(att.GuidedBackprop, absolute=True),
        method(att.GradCam, layer="0", upsample=True, channel_axis=None, grid=None, **pictured),
        method(att.GradCamPlusPlus, layer="0", **pictured),
        method(att.LayerCam, layer="0", **pictured),
        method(att.GuidedGradCam, layer="0", channel_axis=None, grid=None, **pictured),
        method(att.ExactShapley, interactions=True, features=None, baseline_samples=2, **QUIET),
        method(att.KernelShap, features=None, baseline_samples=2, **{**few, "samples": 16}),
        method(
            att.Lime,
            space="features",
            distance="cosine",
            width=0.3,
            ridge=1.0,
            lasso=None,
            **{**few, "samples": 8},
        ),
        method(att.ShapleySampling, tolerance=0.1, channel_axis=None, **{**few, "samples": 40}),
        method(att.PartitionShap, hierarchy=((0, 1), (2, 3)), **few),
        method(att.Occlusion, window=2, stride=1, channel_axis=None, batch_size=8, seed=0),
        method(att.Rise, cells=2, shown=0.5, **few),
    )


def metrics():
    given = {"model": NET, "inputs": X, "values": torch.rand(2, 4), "target": 1, "baselines": 0.0}
    sets = {**given, "size": 2, "samples": 3, "features": None, "batch_size": 4, "seed": 0}
    curve = {**given, "channel_axis": None, "steps": 3, "batch_size": 4}
    tested = {"method": att.Saliency(NET), "inputs": X, "target": 1, "baselines": None}
    yield from ((one, curve) for one in (att.insertion, att.deletion))
    yield from ((one, sets) for one in (att.removals, att.infidelity, att.faithfulness_correlation))
    yield att.max_sensitivity, {**tested, "radius": 0.1, "samples": 2, "seed": 0}
    yield att.randomization, {**tested, "layers": ["2"], "seed": 0}
    for one in (att.pointing_game, att.relevance_mass_accuracy, att.balance_inside):
        yield one, {"values": VALUES, "masks": MASKS}
    yield att.chance_level, {"measure": att.pointing_game, "values": VALUES, "masks": MASKS, "others": 2}
    compared = {"methods": [att.Saliency(NET)], "inputs": X, "target": 1, "masks": None, "baselines": 0.0}
    batched = {"method": att.Saliency(NET), "inputs": X, "target": 1, "baselines": 0.0, "batch_size": 2}
    named = {"feature_names": list("abcd"), "class_names": None, "row_names": None}
    yield att.attribute_many, {**batched, **named, "jobs": 1, "folder": None, **QUIET}
    yield att.compare, {**compared, "samples": 3, "steps": 2, "batch_size": 4, "faithfulness": True}
    table = {"feature_names": list("abcd"), "class_names": ["no", "yes", "maybe"][: NET(X).shape[1]]}
    yield att.explain, {"model": NET, "inputs": X, "target": 1, "baselines": 0.0, **table, "seed": 0}
    shown = {"show": ["map"], "sign": "both", "percentile": 90.0}
    yield att.overlay, {"results": [att.Saliency(CNN)(PICTURES, 1)], "images": PICTURES, **shown}
    yield att.superpixels, {"images": PICTURES, "count": 4, "compactness": 10.0, "sigma": 1.0}
    yield att.grid, {"images": PICTURES, "rows": 2, "columns": 2}
    yield att.AnswerSpan, {"start": 1, "end": 2}
    yield att.LogProbability, {"token": 1, "against": 0, "position": -1}
    yield att.Constant, {"value": 0.5}
    yield att.AtLayer, {"baseline": 0.5}
    yield att.FromData, {"data": X, "replace": True}
    yield att.Gaussian, {"sigma": 1.0, "mean": None, "low": None, "high": None}
    yield att.Uniform, {"low": 0.0, "high": 1.0}
    yield att.MaxDistance, {"low": 0.0, "high": 1.0}
    yield att.Mean, {"channel_axis": None}
    yield att.Blur, {"sigma": 2.0}
    yield att.Inpaint, {"sigma": 2.0}
    parts, fact = text()
    asked = {"text": fact.prompt.format(fact.subject), "target": fact.target, "against": None}
    yield att.token_attribution, {**parts, **asked, "method": None, "baseline": None}
    generated = {"text": asked["text"], "max_new_tokens": 2, "method": None}
    yield att.generation_attribution, {**parts, **generated}
